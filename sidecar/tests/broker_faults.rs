//! A broker that is away, restarted, cut off or short of memory: nothing is lost, and duplicates stay within the
//! prefetch of each fault.

mod support;

use lapin::BasicProperties;
use sidecar::State;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::{PATIENCE, Running, Scene, binary, config};
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};
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

/// RabbitMQ 3.10 keeps the list of its quorum queues in a table that it writes with a delay; a node that is killed before
/// comes back with its newest queues empty, whatever it confirmed. That is not what is tested here.
async fn registered(broker: &Broker) {
    let write = ["eval", "dets:sync(ra_directory_reverse)."];
    assert_eq!(broker.ctl(&write).await.unwrap().trim(), "ok");
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
    registered(broker).await;
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
    println!("duplicates={duplicates}");
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
    println!("duplicates={duplicates}");
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
    println!("duplicates={duplicates}");
    assert!(duplicates <= 5 * PREFETCH, "{duplicates} duplicates");
    let said = logs.matching("WARN");
    assert_eq!(said.len(), 5, "one line a loss: {said:#?}");
    assert!(
        said.iter().all(|line| line.contains("CONNECTION_FORCED")),
        "{said:#?}"
    );
}

#[tokio::test]
async fn while_the_broker_takes_no_publishes_acknowledgements_go_on_and_retries_wait() {
    let broker = Broker::start().await;
    let gate = Gate::shut();
    let scene = {
        let gate = gate.clone();
        let fails =
            |request: &Received| request.text() == "bad" && request.header("x-delivery-attempt") == "1";
        let script =
            move |request: &Received| Answer::status(if fails(request) { 500 } else { 200 }).when(&gate);
        Scene::with(&broker, script, |config| config.concurrency = 8).await
    };
    for body in ["bad", "good", "bad", "good", "bad", "good"] {
        scene.publish(body).await;
    }
    scene.worker.wait_for(6).await;
    let logs = testkit::logs::capture();
    let memory = async |limit: &[&str]| {
        let command = [&["set_vm_memory_high_watermark"], limit].concat();
        broker.ctl(&command).await.unwrap();
    };
    memory(&["0.00001"]).await;
    gate.open();
    scene.until_accepted(3).await;
    // Longer than a confirm is waited for: the copies must not be published a second time.
    tokio::time::sleep(Duration::from_secs(32)).await;
    let status = scene.sidecar.handle.status();
    assert_eq!((status.counts.retried, status.in_flight), (0, 3));
    let said = logs.matching("WARN");
    assert!(
        said.len() == 1 && said[0].contains("the broker takes no publishes: low on memory"),
        "{said:#?}"
    );

    memory(&["absolute", "2GB"]).await;
    scene.until_accepted(6).await;
    assert_eq!(scene.sidecar.handle.status().counts.retried, 3);
    let handle = scene.sidecar.handle.clone();
    let (amqp, queue) = (broker.amqp().await, scene.queue.clone());
    for delay in ["100ms", "200ms"] {
        let retries = format!("{queue}.retry.{delay}");
        until("no copy is left", PATIENCE, || async {
            amqp.depth(&retries).await.is_none_or(|(ready, _)| ready == 0)
        })
        .await;
    }
    assert_eq!(scene.worker.count(), 9, "six messages, three of them twice");
    scene.end().await;
    assert_eq!(handle.status().counts.lost, 0);
}

#[tokio::test]
async fn a_consumer_timeout_costs_one_delivery_and_no_more() {
    let broker = Broker::start_with("consumer_timeout = 1000").await;
    // It is looked at once a minute otherwise.
    let often = ["eval", "application:set_env(rabbit, channel_tick_interval, 500)."];
    broker.ctl(&often).await.unwrap();
    let gate = Gate::shut();
    let scene = {
        let gate = gate.clone();
        let script = move |request: &Received| match request.number {
            1 => Answer::ok().when(&gate),
            _ => Answer::ok(),
        };
        Scene::with(&broker, script, |config| config.concurrency = 2).await
    };
    let logs = testkit::logs::capture();
    scene.publish("slow").await;
    let requests = scene.worker.wait_for(2).await;
    assert_eq!(
        (
            requests[1].header("x-delivery-attempt"),
            requests[1].header("x-redelivered")
        ),
        ("1", "true")
    );
    scene.until_accepted(1).await;
    gate.open();
    until("the first answer came to nothing", PATIENCE, || async {
        scene.sidecar.handle.status().counts.lost == 1
    })
    .await;
    scene.publish("quick").await;
    scene.until_accepted(2).await;
    assert_eq!(scene.worker.count(), 3);
    let said = logs.matching("WARN");
    assert!(
        said.len() == 1 && said[0].contains("delivery acknowledgement on channel"),
        "{said:#?}"
    );
    scene.end().await;
}

#[tokio::test]
async fn broker_gone_for_a_minute() {
    let broker = Broker::start().await;
    let worker = Worker::start(|_| Answer::ok().after(Duration::from_millis(5))).await;
    let queue = unique("orders");
    let target = worker.url();
    let sidecar = binary::start(
        &[
            "--queue",
            &queue,
            "--target",
            &target,
            "--admin",
            "127.0.0.1:0",
            "--concurrency",
            "8",
        ],
        &[("KUBEDAEMON_BROKER", broker.url())],
    );
    binary::until_status(&sidecar, "it consumes", |status| status["state"] == "consuming").await;
    registered(&broker).await;
    let amqp = broker.amqp().await;
    let messages = (0..1_000).map(|number: u32| (number.to_string(), BasicProperties::default()));
    amqp.publish_many(&queue, messages).await;
    worker.wait_for(500).await;
    broker.kill().await;
    sidecar.wait_for_line("broker connection lost").await;
    sidecar.wait_for_line("broker cannot be used").await;
    // The first tries touch the buffers of two connections once; from then on nothing may grow.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = sidecar.memory_kib("VmRSS").unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    let after = sidecar.memory_kib("VmRSS").unwrap();
    let lines = sidecar.lines();
    let since = lines
        .iter()
        .position(|line| line.contains("broker connection lost"))
        .unwrap();
    println!(
        "VmRSS {before} KiB, later {after} KiB; log since: {:#?}",
        &lines[since..]
    );
    assert!(
        after < before + 2 * 1024,
        "VmRSS grew from {before} to {after} KiB"
    );
    assert_eq!(
        lines[since..].iter().filter(|line| line.contains("WARN")).count(),
        2,
        "the loss and its cause, and not one a try: {:#?}",
        &lines[since..]
    );

    broker.start_again().await;
    until("the worker has every message", PATIENCE, || async {
        let seen: BTreeSet<_> = worker.requests().iter().map(Received::text).collect();
        seen.len() == 1_000
    })
    .await;
    binary::until_status(&sidecar, "nothing is in flight", |status| {
        status["in_flight"] == 0
    })
    .await;
    support::until_ready(&broker.amqp().await, &queue, 0).await;
    println!("duplicates={}", worker.count() - 1_000);
    assert!(worker.count() <= 1_000 + PREFETCH);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.wait().await.code(), Some(0));
    support::until_ready(&broker.amqp().await, &queue, 0).await;
}
