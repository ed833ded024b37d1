//! When messages are taken and when they are not: the readiness gate, drain and resume, the end of the process.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use sidecar::{Drained, State};
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Worker};

/// Ten messages; four with the worker, three prefetched, three in the queue.
async fn busy_scene(gate: &Gate) -> Scene {
    let answer = Answer::ok().when(gate);
    let scene = Scene::new(move |_| answer.clone()).await;
    for number in 0..10 {
        scene.publish(&number.to_string()).await;
    }
    scene.worker.wait_for(4).await;
    scene.until_ready(3).await;
    scene
}

#[tokio::test]
async fn no_message_is_taken_before_the_workers_port_answers() {
    let broker = testkit::broker().await;
    let (queue, amqp) = (unique("orders"), broker.amqp().await);
    amqp.declare_quorum(&queue).await;
    let worker = Worker::start(|_| 200).await;
    worker.crash();
    let sidecar = Running::start(config(broker.url(), &queue, worker.port())).await;
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp,
    };
    scene.publish("m").await;
    scene.until_state(State::WaitingForWorker).await;
    assert_eq!(scene.amqp.depth(&scene.queue).await, Some((1, 0)));
    let status = scene.sidecar.handle.status();
    assert!(status.broker_connected && !status.worker_up && status.in_flight == 0);
    scene.worker.start_again();
    scene.until_settled(1).await;
    assert!(scene.sidecar.handle.status().worker_up);
    let request = scene.worker.requests().remove(0);
    assert_eq!(
        (
            request.header("x-delivery-attempt"),
            request.header("x-redelivered")
        ),
        ("1", "false"),
        "it was never taken before"
    );
    scene.end().await;
}

#[tokio::test]
async fn a_drain_gives_prefetched_messages_back_at_once_and_finishes_what_is_in_flight() {
    let gate = Gate::shut();
    let scene = busy_scene(&gate).await;
    let handle = &scene.sidecar.handle;
    handle.drain();
    scene.until_ready(6).await;
    scene.until_state(State::Draining).await;
    let status = handle.status();
    assert!(status.draining && status.in_flight == 4 && status.idle_since.is_none());
    gate.open();
    tokio::time::timeout(PATIENCE, handle.drained()).await.unwrap();
    scene.until_accepted(4).await;
    assert_eq!((scene.worker.count(), handle.status().in_flight), (4, 0));
    scene.until_ready(6).await;

    handle.resume();
    scene.until_accepted(10).await;
    assert!(!handle.status().draining);
    scene.end().await;
}

#[tokio::test]
async fn draining_and_resuming_many_times_loses_and_repeats_nothing() {
    let scene = Scene::new(|_| Answer::ok().after(Duration::from_millis(3))).await;
    for number in 0..200 {
        scene.publish(&number.to_string()).await;
        if number % 20 == 0 {
            scene.sidecar.handle.drain();
            scene.sidecar.handle.drained().await;
            scene.sidecar.handle.resume();
        }
    }
    scene.until_settled(200).await;
    assert_eq!(scene.worker.count(), 200);
    scene.end().await;
}

#[tokio::test]
async fn sigterm_lets_others_have_what_is_not_in_flight_and_ends_after_what_is() {
    let gate = Gate::shut();
    let first = busy_scene(&gate).await;
    let other_worker = Worker::start(|_| 200).await;
    let broker = testkit::broker().await;
    let other = Running::start(config(broker.url(), &first.queue, other_worker.port())).await;
    other_worker.wait_for(3).await;
    first.sidecar.shutdown.drain();
    // Three were in the queue, three prefetched by the first; its four in flight stay with it.
    other_worker.wait_for(6).await;
    assert_eq!(first.worker.in_flight(), 4);
    gate.open();
    first.end().await;
    assert_eq!((other_worker.count(), other.handle.status().counts.lost), (6, 0));
    other.stop().await;
}

#[tokio::test]
async fn when_the_grace_is_over_the_end_is_forced_and_the_messages_go_back() {
    let scene = Scene::with(
        testkit::broker().await,
        |_| Answer::never(),
        |config| config.grace = Duration::from_millis(100),
    )
    .await;
    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    let handle = scene.sidecar.handle.clone();
    assert_eq!(scene.sidecar.stop().await, Drained::Forced { in_flight: 1 });
    assert_eq!(handle.status().counts.lost, 1);
    until("the message is back", PATIENCE, || async {
        scene.amqp.depth(&scene.queue).await == Some((1, 0))
    })
    .await;
    assert!(scene.amqp.get(&scene.queue).await.unwrap().redelivered);
    scene.amqp.delete(&scene.queue).await;
}

#[tokio::test]
async fn a_drain_while_the_worker_is_away_ends_at_once() {
    let scene = Scene::new(|_| 200).await;
    scene.worker.crash();
    scene.publish("m").await;
    scene.until_state(State::WaitingForWorker).await;
    scene.sidecar.handle.drain();
    tokio::time::timeout(PATIENCE, scene.sidecar.handle.drained())
        .await
        .unwrap();
    scene.worker.start_again();
    scene.sidecar.handle.resume();
    scene.until_settled(1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_drain_while_the_broker_is_away_ends_at_once() {
    // Nobody listens on port 1.
    let sidecar = Running::start(config("amqp://127.0.0.1:1", "orders", 1)).await;
    sidecar.handle.drain();
    tokio::time::timeout(PATIENCE, sidecar.handle.drained())
        .await
        .expect("nothing is in flight");
    assert!(sidecar.handle.status().draining);
    sidecar.handle.resume();
    sidecar
        .handle
        .watch_state()
        .wait_for(|state| *state == State::Connecting)
        .await
        .unwrap();
    assert_eq!(sidecar.stop().await, Drained::Completely);
}
