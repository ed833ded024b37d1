//! Outages that last: a broker that takes no publishes, one that loses patience, one that is gone for a minute.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use amqp::version::{TimeoutEnds, Version};
use lapin::BasicProperties;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::Duration;
use support::{PATIENCE, Scene, binary};
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};
use testkit::{Broker, unique};

/// Concurrency 8 and a spare of 7.
const PREFETCH: usize = 15;

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
    // From RabbitMQ 4.3 on only the consumer ends and not the channel, on which a late acknowledgement changes nothing.
    let (major, minor, patch) = broker.version();
    let ends_the_channel = Version::new(major, minor, patch).consumer_timeout_ends() == TimeoutEnds::Channel;
    until("the first answer came to nothing", PATIENCE, || async {
        let counts = scene.sidecar.handle.status().counts;
        (counts.lost, counts.accepted) == if ends_the_channel { (1, 1) } else { (0, 2) }
    })
    .await;
    scene.publish("quick").await;
    scene.until_accepted(if ends_the_channel { 2 } else { 3 }).await;
    assert_eq!(scene.worker.count(), 3);
    let said = logs.matching("WARN");
    let why = if ends_the_channel {
        "delivery acknowledgement on channel"
    } else {
        "the consumer was cancelled (was the queue deleted, or a message held"
    };
    assert!(said.len() == 1 && said[0].contains(why), "{said:#?}");
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
    support::registered(&broker).await;
    let amqp = broker.amqp().await;
    let messages = (0..1_000).map(|number: u32| (number.to_string(), BasicProperties::default()));
    amqp.publish_many(&queue, messages).await;
    worker.wait_for(500).await;
    broker.kill().await;
    sidecar.wait_for_line("broker connection lost").await;
    sidecar.wait_for_line("broker cannot be used").await;
    let before = sidecar.memory_kib("VmRSS").unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let after = sidecar.memory_kib("VmRSS").unwrap();
    let lines = sidecar.lines();
    let since = lines
        .iter()
        .position(|line| line.contains("broker connection lost"))
        .unwrap();
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
    assert!(worker.count() <= 1_000 + PREFETCH);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait().await.code(), Some(0));
    support::until_ready(&broker.amqp().await, &queue, 0).await;
}

#[tokio::test]
async fn broker_hanging_for_a_minute() {
    let broker = Broker::start().await;
    let worker = Worker::start(|_| 200).await;
    let (queue, target) = (unique("orders"), worker.url());
    let arguments = ["--queue", &queue, "--target", &target, "--admin", "127.0.0.1:0"];
    let sidecar = binary::start(&arguments, &[("KUBEDAEMON_BROKER", broker.url())]);
    binary::until_status(&sidecar, "it consumes", |status| status["state"] == "consuming").await;
    let node = i32::try_from(broker.pid().unwrap()).unwrap();
    let signal = |signal| {
        let node = rustix::process::Pid::from_raw(node).unwrap();
        rustix::process::kill_process(node, signal).unwrap();
    };
    signal(Signal::STOP);
    // Its connections stay open and say nothing: only heartbeats tell.
    sidecar
        .wait_for_line("nothing came from it for 15 s, not even a heartbeat")
        .await;
    sidecar
        .wait_for_line("the broker did not answer the connection within 10 s")
        .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let threads = std::fs::read_dir(format!("/proc/{}/task", sidecar.pid()))
        .unwrap()
        .count();
    signal(Signal::CONT);
    assert!(
        threads <= 8,
        "{threads} threads: given-up attempts do not pile up"
    );
    binary::until_status(&sidecar, "it consumes", |status| status["state"] == "consuming").await;
    let amqp = broker.amqp().await;
    amqp.publish(&queue, "m", BasicProperties::default()).await;
    binary::until_status(&sidecar, "it is accepted", |status| {
        status["messages"]["accepted"] == 1
    })
    .await;
    assert_eq!(sidecar.matching("WARN").len(), 2, "{:#?}", sidecar.lines());
}
