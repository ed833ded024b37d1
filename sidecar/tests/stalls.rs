//! What is a stall and what only looks like one: the watch over deliveries must not end connections that work.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::AMQPValue;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::wait::until;
use testkit::worker::{Answer, Received, Worker};
use testkit::{Amqp, table, text, unique};

/// Two looks at a queue that is not empty, as late as they may come, and a good while.
const LONG: Duration = Duration::from_secs(45);

/// Consumes with this priority; the messages are left unacknowledged when `keeps` says so.
async fn rival(amqp: &Amqp, queue: &str, priority: i32, prefetch: u16, keeps: bool) -> lapin::Channel {
    let channel = amqp.channel().await;
    channel
        .basic_qos(prefetch, BasicQosOptions { global: false })
        .await
        .unwrap();
    let arguments = table([("x-priority", AMQPValue::LongInt(priority))]);
    let mut consumer = channel
        .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments)
        .await
        .unwrap();
    let acks = channel.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            if !keeps {
                let tag = delivery.delivery_tag;
                acks.basic_ack(tag, BasicAckOptions::default()).await.unwrap();
            }
        }
    });
    channel
}

async fn on_existing(arguments: lapin::types::FieldTable) -> (Amqp, String, Worker) {
    let amqp = testkit::broker().await.amqp().await;
    let queue = unique("orders");
    amqp.declare(&queue, arguments).await;
    (amqp, queue, Worker::start(|_| 200).await)
}

#[tokio::test]
async fn behind_another_active_consumer_it_stands_by_and_takes_over() {
    let single = ("x-single-active-consumer", AMQPValue::Boolean(true));
    let (amqp, queue, worker) = on_existing(table([("x-queue-type", text("quorum")), single])).await;
    let metrics = ops::metrics::install();
    let active = rival(&amqp, &queue, 0, 1, true).await;
    let logs = testkit::logs::capture();
    let sidecar = Running::start(config(testkit::broker().await.url(), &queue, worker.port())).await;
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp,
    };
    scene.until_state(sidecar::State::Consuming).await;
    for number in 0..5 {
        scene.publish(&number.to_string()).await;
    }
    until("it says that it stands by", PATIENCE, || async {
        !logs.matching("messages wait for the active consumer").is_empty()
    })
    .await;
    let holding = r#"sidecar_holding{reason="single_active_consumer"} "#;
    assert!(
        metrics.render().contains(&format!("{holding}1")),
        "{}",
        metrics.render()
    );
    tokio::time::sleep(LONG).await;
    assert_eq!(scene.worker.count(), 0);
    assert_eq!(
        logs.matching("messages wait for the active consumer").len(),
        1,
        "said once"
    );
    assert_eq!(logs.matching("broker connection lost").len(), 0, "{logs:#?}");
    active.close(200, "over".into()).await.unwrap();
    scene.until_accepted(5).await;
    assert!(
        metrics.render().contains(&format!("{holding}0")),
        "{}",
        metrics.render()
    );
    scene.end().await;
}

#[tokio::test]
async fn behind_a_consumer_of_higher_priority_it_waits() {
    let (amqp, queue, worker) = on_existing(table([])).await;
    let _rival = rival(&amqp, &queue, 10, 1000, false).await;
    let logs = testkit::logs::capture();
    let sidecar = Running::start(config(testkit::broker().await.url(), &queue, worker.port())).await;
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp,
    };
    scene.until_state(sidecar::State::Consuming).await;
    let publishing = async {
        loop {
            let bodies = (0..100).map(|number| (number.to_string(), BasicProperties::default()));
            scene.amqp.publish_many(&scene.queue, bodies).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        () = tokio::time::sleep(LONG) => {}
    }
    assert_eq!(logs.matching("broker connection lost").len(), 0, "{logs:#?}");
    until("the rest is taken", PATIENCE, || async {
        scene
            .amqp
            .depth(&scene.queue)
            .await
            .is_some_and(|(ready, _)| ready == 0)
    })
    .await;
    scene.end().await;
}

#[tokio::test]
async fn a_busy_worker_and_a_stop_of_intake_are_no_stall() {
    let logs = testkit::logs::capture();
    let busy = |request: &Received| match request.text().as_str() {
        "slow" => Answer::ok().after(LONG),
        _ => Answer::ok(),
    };
    let broker = testkit::broker().await;
    let scene = Scene::with(broker, busy, |config| {
        config.concurrency = 1;
        config.timeout = 2 * LONG;
    })
    .await;
    let stopped = Scene::new(|_| 200).await;
    stopped.sidecar.handle.drain();
    stopped.sidecar.handle.drained().await;
    for body in ["slow", "a", "b", "c"] {
        scene.publish(body).await;
        stopped.publish(body).await;
    }
    testkit::wait::until("all are accepted", 3 * LONG, || async {
        scene.sidecar.handle.status().counts.accepted == 4
    })
    .await;
    assert_eq!(stopped.worker.count(), 0);
    assert_eq!(logs.matching("broker connection lost").len(), 0, "{logs:#?}");
    stopped.sidecar.handle.resume();
    stopped.until_accepted(4).await;
    scene.end().await;
    stopped.end().await;
}
