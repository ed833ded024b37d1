//! The end: nobody is turned away without an answer.

use crate::streaming::to;
use crate::support::{FakeTargets, Running};
use activator::{Drained, Limits};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use testkit::http::{get, post};
use testkit::wait::{PATIENCE, until};
use testkit::worker::{Answer, Gate, Worker};
use tokio::net::TcpStream;

/// Waits for the activator's end.
async fn ended(running: &mut Running) -> Drained {
    tokio::time::timeout(PATIENCE, &mut running.task)
        .await
        .expect("the activator ends")
        .unwrap()
}

async fn refuses_connections(running: &Running) {
    until("nobody is accepted any more", PATIENCE, || async {
        TcpStream::connect(running.address).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn an_idle_activator_ends_at_once() {
    let worker = Worker::start(|_| 200).await;
    let (_targets, mut running) = to(worker.address()).await;
    let mut idle = running.connect().await;
    idle.send("GET /default/orders HTTP/1.1\nHost: a\n", b"").await;
    idle.read_until("\r\n\r\n").await;
    let started = tokio::time::Instant::now();
    running.shutdown.drain();
    assert_eq!(ended(&mut running).await, Drained { cut: 0 });
    assert!(
        started.elapsed() < Limits::default().drain_timeout / 2,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(idle.read_to_end().await, "");
    refuses_connections(&running).await;
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_what_waits() {
    let gate = Gate::shut();
    let held = gate.clone();
    let slow = Worker::start(move |_| Answer::ok().body("slow").when(&held)).await;
    let quick = Worker::start(|_| Answer::ok().body("quick")).await;
    let targets = FakeTargets::at_zero(&["orders", "mail"]);
    targets.endpoints("orders", &[slow.address()]);
    let mut running = Running::start(&targets, Limits::default()).await;
    let (in_flight, waiting) = (running.url("/default/orders"), running.url("/default/mail"));
    let in_flight = tokio::spawn(async move { get(&in_flight).await.unwrap() });
    let waiting = tokio::spawn(async move { post(&waiting, &[], "x").await.unwrap() });
    slow.wait_for(1).await;
    targets.loaded("mail", 1).await;

    running.shutdown.drain();
    refuses_connections(&running).await;
    targets.endpoints("mail", &[quick.address()]);
    assert_eq!(waiting.await.unwrap().text(), "quick");
    assert!(!running.task.is_finished());
    gate.open();
    let answer = in_flight.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "slow"));
    assert_eq!(ended(&mut running).await, Drained { cut: 0 });
}

#[tokio::test]
async fn calls_that_still_wait_at_the_end_are_told_to_come_again() {
    let never = Worker::start(|_| Answer::never()).await;
    let targets = FakeTargets::at_zero(&["orders", "mail"]);
    targets.endpoints("mail", &[never.address()]);
    let limits = Limits {
        drain_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut running = Running::start(&targets, limits).await;
    let (waiting, stuck) = (running.url("/default/orders"), running.url("/default/mail"));
    let waiting = tokio::spawn(async move { post(&waiting, &[], "x").await.unwrap() });
    let stuck = tokio::spawn(async move { get(&stuck).await });
    targets.loaded("orders", 1).await;
    never.wait_for(1).await;
    running.shutdown.drain();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert!(answer.text().contains("\"draining\""), "{}", answer.text());
    assert_eq!(
        ended(&mut running).await,
        Drained { cut: 1 },
        "the worker that never answers is not waited for"
    );
    assert!(stuck.await.unwrap().is_err());
    targets.loaded("mail", 0).await;
}

#[tokio::test]
async fn a_forced_end_does_not_wait() {
    let never = Worker::start(|_| Answer::never()).await;
    let (targets, mut running) = to(never.address()).await;
    let url = running.url("/default/orders");
    let stuck = tokio::spawn(async move { get(&url).await });
    never.wait_for(1).await;
    running.shutdown.drain();
    refuses_connections(&running).await;
    running.shutdown.force();
    assert_eq!(ended(&mut running).await, Drained { cut: 1 });
    assert!(stuck.await.unwrap().is_err());
    targets.loaded("orders", 0).await;
}

/// Connections that the kernel has made before the drain are callers' connections like any other.
#[tokio::test]
async fn callers_in_the_backlog_are_answered() {
    let worker = Worker::start(|_| 200).await;
    let (_targets, mut running) = to(worker.address()).await;
    let mut callers = Vec::new();
    for _ in 0..20 {
        let stream = std::net::TcpStream::connect(running.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut caller = crate::support::Raw(TcpStream::from_std(stream).unwrap());
        caller
            .send("GET /default/orders HTTP/1.1\nHost: a\nConnection: close\n", b"")
            .await;
        callers.push(caller);
    }
    running.shutdown.drain();
    for mut caller in callers {
        assert!(caller.read_to_end().await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(ended(&mut running).await, Drained { cut: 0 });
}

/// HTTP/2 carries many calls on one connection: those that are there are finished, and the connection then ends.
#[tokio::test]
async fn a_drain_finishes_the_streams_of_a_connection() {
    let worker = Worker::start(|_| Answer::ok().body("done")).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    let mut running = Running::start(&targets, Limits::default()).await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let calls: Vec<_> = (0..10)
        .map(|n| {
            let mut sender = sender.clone();
            let request = http::Request::get(format!("http://orders.default/{n}"))
                .body(String::new())
                .unwrap();
            tokio::spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() })
        })
        .collect();
    targets.loaded("orders", 10).await;
    running.shutdown.drain();
    refuses_connections(&running).await;
    targets.endpoints("orders", &[worker.address()]);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(ended(&mut running).await, Drained { cut: 0 });
    connection.await.unwrap().unwrap();
}
