//! The introduction at `init-path`: before the first message, after each start of the worker, and only where it is
//! asked for.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use sidecar::State;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use support::{PATIENCE, Running, Scene, config};
use testkit::unique;
use testkit::worker::{Answer, Received, Worker};

/// A scene whose worker is introduced at `/init`, with the first message in its queue before it starts.
async fn scene(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Scene {
    let broker = testkit::broker().await;
    let (queue, amqp) = (unique("orders"), broker.amqp().await);
    amqp.declare_quorum(&queue).await;
    let worker = Worker::start(script).await;
    let mut config = config(broker.url(), &queue, worker.port());
    config.init_path = Some("/init".parse().unwrap());
    let scene = Scene {
        sidecar: Running::start(config).await,
        queue,
        worker,
        amqp,
    };
    scene.publish("m").await;
    scene
}

fn paths(scene: &Scene) -> Vec<String> {
    scene
        .worker
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect()
}

#[tokio::test]
async fn a_worker_is_told_of_its_work_before_its_first_message_and_after_each_start() {
    let scene = scene(|_| Answer::ok()).await;
    scene.until_accepted(1).await;
    scene.publish("m").await;
    scene.until_accepted(2).await;
    assert_eq!(paths(&scene), ["/init", "/message", "/message"]);
    let told: serde_json::Value = serde_json::from_slice(&scene.worker.requests()[0].body).unwrap();
    let expected = serde_json::json!({
        "version": 1, "queue": scene.queue, "path": "/message", "concurrency": 4, "max_attempts": 3,
        "timeout_seconds": 20.0, "max_defer_seconds": 1500, "reply_max_bytes": 1_048_576,
    });
    assert_eq!(told, expected);

    scene.worker.crash();
    scene.publish("m").await;
    scene.until_state(State::WaitingForWorker).await;
    scene.worker.start_again();
    scene.until_accepted(3).await;
    assert_eq!(paths(&scene)[3..], ["/init", "/message"]);
    scene.end().await;
}

#[tokio::test]
async fn a_worker_that_does_not_know_the_path_gets_its_messages_all_the_same() {
    for status in [404, 405, 501] {
        let scene =
            scene(move |request| Answer::status(if request.path == "/init" { status } else { 200 })).await;
        scene.until_accepted(1).await;
        assert_eq!(paths(&scene), ["/init", "/message"]);
        scene.end().await;
    }
}

#[tokio::test]
async fn a_worker_that_is_not_ready_gets_no_message_until_it_is() {
    let logs = testkit::logs::capture();
    let calls = AtomicU32::new(0);
    let scene = scene(move |request| {
        if request.path == "/init" && calls.fetch_add(1, Relaxed) < 3 {
            Answer::status(503).body("the model is loading")
        } else {
            Answer::ok()
        }
    })
    .await;
    scene.until_accepted(1).await;
    assert_eq!(paths(&scene), ["/init", "/init", "/init", "/init", "/message"]);
    let said = logs.matching("the model is loading");
    assert_eq!(said.len(), 1, "{said:#?}");
    scene.end().await;
}

#[tokio::test]
async fn an_introduction_without_an_end_holds_up_no_drain() {
    let scene = scene(|_| Answer::never()).await;
    scene.worker.wait_for(1).await;
    let stopped = tokio::time::timeout(PATIENCE, scene.sidecar.stop()).await;
    assert!(stopped.is_ok());
    assert_eq!(scene.worker.count(), 1);
    scene.amqp.delete(&scene.queue).await;
}
