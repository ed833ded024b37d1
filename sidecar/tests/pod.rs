//! What a pod asks of its sidecar: to hold back the worker's end, to be unready while it drains, to do without a
//! queue, to be quick.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use http::StatusCode;
use lapin::BasicProperties;
use rustix::process::Signal;
use sidecar::{Drained, State};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, binary, config};
use testkit::http::{Response, get, post};
use testkit::process::Process;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};
use testkit::{Broker, unique};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A sidecar without a queue, and its worker.
async fn reporting() -> (Running, Worker) {
    let worker = Worker::start(|_: &Received| 200).await;
    let mut config = config("amqp://127.0.0.1:1", "", worker.port());
    config.report_only = true;
    let sidecar = Running::start(config).await;
    until_state(&sidecar, State::Consuming).await;
    (sidecar, worker)
}

async fn until_state(sidecar: &Running, wanted: State) {
    let mut state = sidecar.handle.watch_state();
    let reached = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state == wanted)).await;
    assert!(reached.is_ok(), "the sidecar does not reach {wanted:?}");
}

fn url(sidecar: &Running, path: &str) -> String {
    format!("http://{}{path}", sidecar.admin.unwrap())
}

/// Asks for `/drained` as the hook of the worker does, and tells how long the answer took.
fn hook(url: String) -> JoinHandle<(Response, Duration)> {
    let asked = Instant::now();
    tokio::spawn(async move { (get(&url).await.unwrap(), asked.elapsed()) })
}

async fn ready(sidecar: &Running) -> (u16, String) {
    let answer = get(&url(sidecar, "/readyz")).await.unwrap();
    (answer.status.as_u16(), answer.text().trim().to_owned())
}

#[tokio::test]
async fn the_worker_may_go_when_its_last_message_is_settled_and_not_before_services_know() {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = Scene::new(move |_| answer.clone()).await;
    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    let asked = Instant::now();
    let hook = hook(url(&scene.sidecar, "/drained"));
    scene.sidecar.handle.drain();
    assert_eq!(ready(&scene.sidecar).await, (503, "draining".to_owned()));
    until("more than the shortest time is over", PATIENCE, || async {
        asked.elapsed() > Duration::from_millis(2300)
    })
    .await;
    assert!(!hook.is_finished(), "a message is in flight");
    gate.open();
    let (answer, _) = hook.await.unwrap();
    assert_eq!((answer.status, answer.text().trim()), (StatusCode::OK, "drained"));
    assert_eq!(scene.sidecar.handle.status().counts.accepted, 1);
    scene.end().await;
}

#[tokio::test]
async fn an_idle_worker_goes_two_seconds_after_the_end_of_its_pod_began() {
    let (sidecar, _worker) = reporting().await;
    let hook = hook(url(&sidecar, "/drained"));
    // The hook of the sidecar comes a little later.
    until("it was asked for", PATIENCE, || async {
        get(&url(&sidecar, "/healthz")).await.is_ok()
    })
    .await;
    sidecar.handle.drain();
    let (answer, took) = hook.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(8),
        "{took:?}"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_stranger_who_asks_whether_it_is_drained_changes_nothing() {
    let (sidecar, _worker) = reporting().await;
    let (answer, took) = hook(url(&sidecar, "/drained")).await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(
        answer
            .text()
            .starts_with("intake is not stopped, and /drained does not stop it"),
        "{}",
        answer.text()
    );
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(!sidecar.handle.status().draining);
    assert_eq!(ready(&sidecar).await, (200, "consuming".to_owned()));
    sidecar.stop().await;
}

#[tokio::test]
async fn an_end_that_is_taken_back_is_no_end() {
    let (sidecar, _worker) = reporting().await;
    sidecar.handle.drain();
    until_state(&sidecar, State::Drained).await;
    let hook = hook(url(&sidecar, "/drained"));
    until("it was asked for", PATIENCE, || async {
        get(&url(&sidecar, "/healthz")).await.is_ok()
    })
    .await;
    sidecar.handle.resume();
    let (answer, _) = hook.await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    sidecar.stop().await;
}

#[tokio::test]
async fn few_wait_at_once_and_those_who_leave_make_room() {
    let (sidecar, _worker) = reporting().await;
    let path = url(&sidecar, "/drained");
    let mut hooks: Vec<_> = (0..12).map(|_| hook(path.clone())).collect();
    until("all but a few are sent away", PATIENCE, || async {
        hooks.iter().filter(|hook| hook.is_finished()).count() == 8
    })
    .await;
    let mut waiting = Vec::new();
    for hook in hooks.drain(..) {
        if hook.is_finished() {
            let (answer, _) = hook.await.unwrap();
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            let sentence = "too many wait for /drained already; ask again later";
            assert_eq!(answer.text().trim(), sentence);
        } else {
            waiting.push(hook);
        }
    }
    for hook in waiting {
        hook.abort();
    }
    sidecar.handle.drain();
    let answer = until("there is room again", PATIENCE, || async {
        let answer = get(&path).await.unwrap();
        (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_pod_is_unready_from_the_moment_it_drains_until_it_takes_messages_again() {
    let scene = Scene::new(|_| 200).await;
    for _ in 0..3 {
        let answer = post(&url(&scene.sidecar, "/drain"), &[], "").await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        assert_eq!(ready(&scene.sidecar).await.0, 503);
        scene.until_state(State::Drained).await;
        assert_eq!(ready(&scene.sidecar).await, (503, "drained".to_owned()));
        post(&url(&scene.sidecar, "/resume"), &[], "").await.unwrap();
        assert_eq!(ready(&scene.sidecar).await.0, 200);
        scene.until_state(State::Consuming).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn without_a_queue_it_tells_of_the_worker_drains_and_resumes() {
    let (sidecar, worker) = reporting().await;
    let answer = get(&url(&sidecar, "/status")).await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(
        status["queue"].is_null() && status["worker_up"] == true,
        "{status}"
    );
    assert!(
        status["broker_connected"] == false && status["connections"] == 0,
        "{status}"
    );

    worker.crash();
    until_state(&sidecar, State::WaitingForWorker).await;
    assert!(!sidecar.handle.status().worker_up);
    assert_eq!(ready(&sidecar).await.0, 200);
    worker.start_again();
    until_state(&sidecar, State::Consuming).await;

    let drained = post(&url(&sidecar, "/drain?wait"), &[], "").await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&drained.body).unwrap();
    assert!(
        status["state"] == "drained" && status["draining"] == true,
        "{status}"
    );
    assert_eq!(ready(&sidecar).await, (503, "drained".to_owned()));
    post(&url(&sidecar, "/resume"), &[], "").await.unwrap();
    until_state(&sidecar, State::Consuming).await;
    assert_eq!(sidecar.stop().await, Drained::Completely);
}

#[tokio::test]
async fn the_binary_without_a_queue_leaves_the_broker_alone() {
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    broker.set_nonblocking(true).unwrap();
    let address = format!("amqp://{}", broker.local_addr().unwrap());
    let worker = Worker::start(|_: &Received| 200).await;
    let environment = [
        ("KUBEDAEMON_REPORT_ONLY", "true"),
        ("KUBEDAEMON_BROKER", &address),
        ("KUBEDAEMON_TARGET", &worker.url()),
        ("KUBEDAEMON_ADMIN", "127.0.0.1:0"),
    ];
    let sidecar = binary::start(&[], &environment);
    binary::until_status(&sidecar, "the worker is up", |status| {
        status["state"] == "consuming"
    })
    .await;
    let admin = binary::admin(&sidecar).await;
    let drained = post(&format!("{admin}/drain?wait"), &[], "").await.unwrap();
    assert_eq!(drained.status, StatusCode::OK);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait().await.code(), Some(0));
    assert_eq!(broker.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(worker.count(), 0, "it was only looked at");
}

/// The sidecar of a pod with a message that waits for a gate, as the injector starts it.
async fn of_a_pod() -> (Process, Worker, Gate, String) {
    let broker = testkit::broker().await;
    let (queue, amqp, gate) = (unique("orders"), broker.amqp().await, Gate::shut());
    amqp.declare_quorum(&queue).await;
    amqp.publish(&queue, "m", BasicProperties::default()).await;
    let answer = Answer::ok().when(&gate);
    let worker = Worker::start(move |_| answer.clone()).await;
    let environment = [
        ("KUBEDAEMON_QUEUE", queue.as_str()),
        ("KUBEDAEMON_BROKER", broker.url()),
        ("KUBEDAEMON_TARGET", &worker.url()),
        ("KUBEDAEMON_ADMIN", "0.0.0.0:0"),
    ];
    let sidecar = binary::start(&[], &environment);
    worker.wait_for(1).await;
    let admin = binary::admin(&sidecar).await;
    let admin = admin.trim_start_matches("http://").to_owned();
    assert!(admin.starts_with("0.0.0.0:"), "{admin}");
    (sidecar, worker, gate, admin)
}

#[tokio::test]
async fn the_end_of_a_pod_whose_work_gets_done() {
    let (sidecar, _worker, gate, admin) = of_a_pod().await;
    let environment = [("KUBEDAEMON_ADMIN", admin.as_str()), ("KUBEDAEMON_GRACE", "30s")];
    let drain = binary::start(&["drain"], &environment);
    let loopback = admin.replace("0.0.0.0", "127.0.0.1");
    let hook = hook(format!("http://{loopback}/drained"));
    binary::until_status(&sidecar, "it drains", |status| status["state"] == "draining").await;
    gate.open();
    assert_eq!(drain.wait().await.code(), Some(0));
    assert_eq!(hook.await.unwrap().0.status, StatusCode::OK);
    // What is open or waits at the admin port holds nothing up.
    let _idle = tokio::net::TcpStream::connect(&loopback).await.unwrap();
    let waits = tokio::spawn(async move { get(&format!("http://{loopback}/drained")).await });
    let begun = Instant::now();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait().await.code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(waits.await.unwrap());
}

#[tokio::test]
async fn the_end_of_a_pod_whose_grace_ends_first() {
    let (sidecar, _worker, _gate, admin) = of_a_pod().await;
    let environment = [("KUBEDAEMON_ADMIN", admin.as_str()), ("KUBEDAEMON_GRACE", "1s")];
    let begun = Instant::now();
    let drain = binary::run(&["drain"], &environment).await;
    let took = begun.elapsed();
    assert_eq!(drain.code, Some(1), "{drain:?}");
    assert!(
        drain.stderr.ends_with("still has messages in flight after 1s\n"),
        "{drain:?}"
    );
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(4),
        "{took:?}"
    );
    let status = |status: &serde_json::Value| status["state"] == "draining" && status["in_flight"] == 1;
    binary::until_status(&sidecar, "it still drains", status).await;
    // Two of one kind that come together are one.
    sidecar.signal(Signal::TERM);
    sidecar.signal(Signal::INT);
    assert_eq!(sidecar.wait().await.code(), Some(1));
}

#[tokio::test]
async fn a_drain_whose_sidecar_is_ended_says_so() {
    let (sidecar, _worker, _gate, admin) = of_a_pod().await;
    let drain = binary::start(&["drain"], &[("KUBEDAEMON_ADMIN", &admin)]);
    binary::until_status(&sidecar, "it drains", |status| status["state"] == "draining").await;
    sidecar.signal(Signal::KILL);
    sidecar.wait().await;
    assert_eq!(drain.wait().await.code(), Some(1));
    assert_eq!(drain.lines().len(), 1, "{:?}", drain.lines());
}

/// Channels of the broker with their prefetch and their consumers.
async fn channels(broker: &Broker) -> Vec<(String, String)> {
    let columns = [
        "list_channels",
        "--no-table-headers",
        "prefetch_count",
        "consumer_count",
    ];
    let text = broker.ctl(&columns).await.unwrap();
    let rows = text.lines().filter_map(|line| line.split_once('\t'));
    rows.map(|(prefetch, consumers)| (prefetch.to_owned(), consumers.to_owned()))
        .collect()
}

#[tokio::test]
async fn all_but_the_subscription_is_ready_while_the_worker_starts() {
    let broker = Broker::start().await;
    let worker = Worker::start(|_: &Received| 200).await;
    worker.crash();
    let (queue, amqp) = (unique("orders"), broker.amqp().await);
    let mut config = config(broker.url(), &queue, worker.port());
    config.concurrency = 11;
    let prefetch = config.prefetch().to_string();
    let sidecar = Running::start(config).await;
    until_state(&sidecar, State::WaitingForWorker).await;
    amqp.publish(&queue, "m", BasicProperties::default()).await;
    until("a channel is prepared", PATIENCE, || async {
        channels(&broker)
            .await
            .contains(&(prefetch.clone(), "0".to_owned()))
    })
    .await;
    assert_eq!(worker.count(), 0);
    worker.start_again();
    worker.wait_for(1).await;
    assert!(channels(&broker).await.contains(&(prefetch, "1".to_owned())));
    assert_eq!(sidecar.stop().await, Drained::Completely);
}

#[tokio::test]
async fn a_worker_gets_its_first_message_as_soon_as_its_port_answers() {
    let mut best = Duration::MAX;
    // The best of several, for others keep this machine busy.
    for _ in 0..5 {
        let broker = testkit::broker().await;
        let worker = Worker::start(|_: &Received| 200).await;
        worker.crash();
        let (queue, amqp) = (unique("orders"), broker.amqp().await);
        let sidecar = Running::start(config(broker.url(), &queue, worker.port())).await;
        until_state(&sidecar, State::WaitingForWorker).await;
        amqp.publish(&queue, "m", BasicProperties::default()).await;
        let started = Instant::now();
        worker.start_again();
        let requests = worker.wait_for(1).await;
        best = best.min(requests[0].at - started);
        assert_eq!(sidecar.stop().await, Drained::Completely);
        amqp.delete(&queue).await;
    }
    assert!(best < Duration::from_millis(60), "{best:?}");
}
