//! Messages that are given back, refused or interrupted more often than a broker's own delivery limit: RabbitMQ 4.0
//! and later limit a quorum queue to 20 deliveries unless told otherwise, and drop or dead-letter at the next one.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use sidecar::State;
use support::{PATIENCE, Running, Scene, config, until_ready};
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};

/// More than the default limit of 20.
const TIMES: u32 = 30;

#[tokio::test]
async fn a_message_given_back_thirty_times_is_still_delivered() {
    let gate = Gate::shut();
    let scene = {
        let answer = Answer::ok().when(&gate);
        let broker = testkit::broker().await;
        Scene::with(
            broker,
            move |_: &Received| answer.clone(),
            |config| config.concurrency = 2,
        )
        .await
    };
    // Two with the worker, one prefetched: each drain gives back that one.
    for number in 0..3 {
        scene.publish(&number.to_string()).await;
    }
    scene.worker.wait_for(2).await;
    scene.until_ready(0).await;
    for _ in 0..TIMES {
        scene.sidecar.handle.drain();
        scene.until_ready(1).await;
        scene.sidecar.handle.resume();
        scene.until_ready(0).await;
    }
    gate.open();
    scene.until_accepted(3).await;
    assert_eq!(scene.dead_letters().await.len(), 0);
    scene.end().await;
}

#[tokio::test]
async fn a_message_refused_thirty_times_is_still_delivered() {
    let refuses = |request: &Received| {
        if request.number <= TIMES {
            Answer::status(503).header("retry-after", "0")
        } else {
            Answer::ok()
        }
    };
    let scene = Scene::new(refuses).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    assert_eq!(scene.worker.count(), TIMES as usize + 1);
    assert_eq!(scene.dead_letters().await.len(), 0);
    scene.end().await;
}

#[tokio::test]
async fn a_message_whose_sidecar_is_killed_thirty_times_is_still_delivered() {
    let broker = testkit::broker().await;
    let (queue, gate) = (unique("orders"), Gate::shut());
    let worker = Worker::start({
        let gate = gate.clone();
        move |_: &Received| Answer::ok().when(&gate)
    })
    .await;
    let amqp = broker.amqp().await;
    let config = config(broker.url(), &queue, worker.port());
    let mut sidecar = Running::start(config.clone()).await;
    until("it consumes", PATIENCE, || async {
        sidecar.handle.status().state == State::Consuming
    })
    .await;
    amqp.publish(&queue, "m", BasicProperties::default()).await;
    for number in 1..=TIMES {
        worker.wait_for(number as usize).await;
        sidecar.kill().await;
        sidecar = Running::start(config.clone()).await;
    }
    gate.open();
    until("it is accepted", PATIENCE, || async {
        sidecar.handle.status().counts.accepted == 1
    })
    .await;
    sidecar.stop().await;
    until_ready(&amqp, &queue, 0).await;
    assert_eq!(amqp.get_all(&format!("{queue}.dead")).await.len(), 0);
}
