//! A broker that is away, restarted, killed or cut off under load: nothing is lost, and duplicates stay within the
//! prefetch of each fault.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use sidecar::State;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::wait::until;
use testkit::worker::{Answer, Received, Worker};
use testkit::{Broker, unique};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// The broker of this file, for one test at a time.
async fn broker() -> MutexGuard<'static, Broker> {
    static BROKER: OnceCell<Mutex<Broker>> = OnceCell::const_new();
    let broker = BROKER
        .get_or_init(|| async { Mutex::new(Broker::start().await) })
        .await
        .lock()
        .await;
    if broker.pid().is_none() {
        // A test that failed left it so.
        broker.start_again().await;
    }
    broker
}

/// Concurrency 8 and a spare of 7.
const PREFETCH: usize = 15;

/// A sidecar that works on `messages` messages for some milliseconds each.
async fn under_load(broker: &Broker, messages: u32) -> Scene {
    let scene = Scene::with(
        broker,
        |_| Answer::ok().after(Duration::from_millis(5)),
        |config| config.concurrency = 8,
    )
    .await;
    support::registered(broker).await;
    let bodies = (0..messages).map(|number| (number.to_string(), BasicProperties::default()));
    scene.amqp.publish_many(&scene.queue, bodies).await;
    scene
}

/// Waits until the worker has had every message, asserts that nothing is left, and returns how many it had twice.
async fn duplicates_at_the_end(broker: &Broker, mut scene: Scene, messages: usize) -> usize {
    let seen = until("the worker has every message", PATIENCE, || async {
        let mut seen = BTreeMap::new();
        for request in scene.worker.requests() {
            *seen.entry(request.text()).or_insert(0_usize) += 1;
        }
        (seen.len() == messages).then_some(seen)
    })
    .await;
    scene.amqp = broker.amqp().await;
    scene.end().await;
    seen.values().sum::<usize>() - messages
}

#[tokio::test]
async fn a_broker_that_is_absent_at_the_start_is_waited_for() {
    let broker = broker().await;
    broker.stop().await;
    let logs = testkit::logs::capture();
    let (queue, worker) = (unique("orders"), Worker::start(|_| 200).await);
    let sidecar = Running::start(config(broker.url(), &queue, worker.port())).await;
    until("it has been said", PATIENCE, || async {
        !logs.matching("broker cannot be used").is_empty()
    })
    .await;
    broker.start_again().await;
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp: broker.amqp().await,
    };
    scene.until_state(State::Consuming).await;
    assert!(!scene.sidecar.handle.status().draining);
    let said = logs.matching("WARN");
    assert!(said[0].contains("the broker cannot be reached: "), "{said:?}");
    assert!(said.len() <= 3, "said at a change and not at a try: {said:?}");
    scene.publish("m").await;
    scene.until_accepted(1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_graceful_restart_under_load_loses_nothing() {
    let broker = broker().await;
    let scene = under_load(&broker, 400).await;
    scene.worker.wait_for(100).await;
    broker.stop().await;
    scene.until_state(State::Connecting).await;
    broker.start_again().await;
    let duplicates = duplicates_at_the_end(&broker, scene, 400).await;
    assert!(duplicates <= PREFETCH, "{duplicates} duplicates");
}

#[tokio::test]
async fn a_kill_under_load_loses_nothing() {
    let broker = broker().await;
    let scene = under_load(&broker, 400).await;
    scene.worker.wait_for(100).await;
    broker.kill().await;
    scene.until_state(State::Connecting).await;
    broker.start_again().await;
    let duplicates = duplicates_at_the_end(&broker, scene, 400).await;
    assert!(duplicates <= PREFETCH, "{duplicates} duplicates");
}

#[tokio::test]
async fn connections_closed_five_times_under_load_lose_nothing() {
    let broker = broker().await;
    let scene = under_load(&broker, 3_000).await;
    let logs = testkit::logs::capture();
    for round in 1..=5 {
        scene.worker.wait_for(round * 100).await;
        broker.close_all_connections().await;
        until("the sidecar noticed and is back", PATIENCE, || async {
            logs.matching("broker connection lost").len() == round
                && scene.sidecar.handle.status().state == State::Consuming
        })
        .await;
    }
    let duplicates = duplicates_at_the_end(&broker, scene, 3_000).await;
    assert!(duplicates <= 5 * PREFETCH, "{duplicates} duplicates");
    let said = logs.matching("WARN");
    assert_eq!(said.len(), 5, "one line a loss: {said:#?}");
    assert!(
        said.iter().all(|line| line.contains("CONNECTION_FORCED")),
        "{said:#?}"
    );
}

#[tokio::test]
async fn a_kill_among_retries_loses_nothing() {
    let broker = broker().await;
    let script = |request: &Received| {
        let is_first = request.header("x-delivery-attempt") == "1";
        Answer::status(if is_first { 500 } else { 200 }).after(Duration::from_millis(5))
    };
    let scene = Scene::with(&broker, script, |config| config.concurrency = 8).await;
    let publish = async |bodies: std::ops::Range<u32>| {
        let bodies = bodies.map(|number| (number.to_string(), BasicProperties::default()));
        scene.amqp.publish_many(&scene.queue, bodies).await;
    };
    // Both retry queues are there and stay there.
    publish(0..20).await;
    scene.until_accepted(20).await;
    support::registered(&broker).await;
    publish(20..220).await;
    scene.worker.wait_for(140).await;
    broker.kill().await;
    scene.until_state(State::Connecting).await;
    broker.start_again().await;
    until("every message was taken", PATIENCE, || async {
        let second = |request: &Received| request.header("x-delivery-attempt") != "1";
        let taken = scene.worker.requests().into_iter().filter(second);
        taken.map(|request| request.text()).collect::<BTreeSet<_>>().len() == 220
    })
    .await;
    let duplicates = duplicates_at_the_end(&broker, scene, 220).await - 220;
    // A copy and its original may both come back, each for two attempts.
    assert!(duplicates <= 2 * PREFETCH, "{duplicates} requests too many");
}
