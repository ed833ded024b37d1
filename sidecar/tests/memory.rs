//! Bodies in memory: the prefetch follows their size.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use support::{PATIENCE, Scene, binary};
use testkit::http::get;
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Worker};

/// What a worker cannot bear it does not get; what is behind it goes on.
#[tokio::test]
async fn a_message_beyond_the_limit_is_dead_lettered_with_its_reason_and_the_worker_never_sees_it() {
    let scene = Scene::with(
        testkit::broker().await,
        |_| 200,
        |config| config.max_body_bytes = 1000,
    )
    .await;
    let sizes = [1001, 1000];
    scene
        .amqp
        .publish_many(
            &scene.queue,
            sizes.map(|size| (vec![7; size], BasicProperties::default())),
        )
        .await;
    scene.until_settled(2).await;
    let received: Vec<usize> = scene
        .worker
        .requests()
        .iter()
        .map(|request| request.body.len())
        .collect();
    assert_eq!(received, [1000]);
    let dead = scene.dead_letters().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].body.len(), 1001, "whole");
    assert_eq!(
        dead[0].header_text("x-kubedaemon-reason").as_deref(),
        Some("body_too_large")
    );
    scene.end().await;
}

const MIB: usize = 1024 * 1024;
/// 200 MiB wait, and 127 would be prefetched if they were small.
#[tokio::test]
async fn a_backlog_of_large_bodies_stays_with_the_broker_and_small_ones_open_the_prefetch_again() {
    let broker = testkit::broker().await;
    let (queue, amqp, gate) = (unique("films"), broker.amqp().await, Gate::shut());
    amqp.declare_quorum(&queue).await;
    let large = || (vec![7; 2 * MIB], BasicProperties::default());
    amqp.publish_many(&queue, std::iter::repeat_with(large).take(100))
        .await;
    let answer = Answer::ok().when(&gate);
    let worker = Worker::start(move |_| answer.clone()).await;
    let target = worker.url();
    let arguments = [
        "--queue",
        &queue,
        "--target",
        &target,
        "--admin",
        "127.0.0.1:0",
        "--concurrency",
        "64",
    ];
    let sidecar = binary::start(&arguments, &[("KUBEDAEMON_BROKER", broker.url())]);
    // 24 of an unknown size, and 12 when it was known.
    until("36 are with the worker", PATIENCE, || async {
        (worker.in_flight() == 36).then_some(())
    })
    .await;
    gate.open();
    worker.wait_for(100).await;
    support::until_ready(&amqp, &queue, 0).await;
    assert!(worker.most_in_flight() < 64, "{}", worker.most_in_flight());
    let peak = sidecar.memory_kib("VmHWM").unwrap();
    assert!(peak < 128 * 1024, "{peak} KiB at most");

    amqp.publish_many(&queue, (0..200).map(|_| ("small", BasicProperties::default())))
        .await;
    worker.wait_for(300).await;
    let url = format!("{}/metrics", binary::admin(&sidecar).await);
    until("the prefetch is whole again", PATIENCE, || async {
        get(&url)
            .await
            .ok()?
            .text()
            .contains("sidecar_prefetch 127")
            .then_some(())
    })
    .await;
    assert_eq!(worker.count(), 300, "none came twice");
}
