//! Calls to workers at zero.

use crate::support::{FakeOutbox, FakeTargets, Running, captured_logs, impatient, target};
use activator::{Limits, Routing};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use testkit::http::{self, get, post};
use testkit::worker::{Answer, Worker};

/// A worker whose port is closed until it is started again.
async fn asleep(answer: Answer) -> Worker {
    let worker = Worker::start(move |_| answer.clone()).await;
    worker.crash();
    worker
}

fn calls(running: &Running, count: usize) -> Vec<tokio::task::JoinHandle<http::Response>> {
    let call = |n: usize| {
        let url = running.url(&format!("/default/orders/{n}"));
        tokio::spawn(async move { post(&url, &[], n.to_string()).await.unwrap() })
    };
    (0..count).map(call).collect()
}

#[tokio::test]
async fn a_held_call_is_answered_after_the_wake() {
    let worker = Worker::start(|_| Answer::ok().body("from the worker").header("x-worker", "1")).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    let logs = captured_logs();

    let url = running.url("/default/orders/a/b?c=d");
    let call = tokio::spawn(async move { get(&url).await.unwrap() });
    targets.loaded("orders", 1).await;
    assert_eq!((targets.wakes("orders"), worker.count()), (1, 0));
    targets.endpoints("orders", &[worker.address()]);
    let answer = call.await.unwrap();

    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "from the worker")
    );
    assert_eq!(answer.header("x-worker"), "1");
    let waited: u64 = answer.header("x-kubedaemon-cold-start").parse().unwrap();
    let timing = answer.header("server-timing");
    assert!(
        timing.starts_with(&format!("wake;dur={waited}.")),
        "{timing} and {waited}"
    );
    let request = &worker.requests()[0];
    assert_eq!(request.path, "/a/b?c=d");
    assert_eq!(request.header("host"), running.address.to_string());
    assert_eq!(request.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(request.header("x-forwarded-prefix"), "/default/orders");
    targets.loaded("orders", 0).await;
    assert_eq!(targets.loads("orders"), [1, 0]);
    assert_eq!(logs.matching("waking").len(), 1, "{logs:?}");
    assert_eq!(logs.matching("awake").len(), 1, "{logs:?}");
}

#[tokio::test]
async fn a_call_to_a_worker_that_is_up_does_not_wait() {
    let worker = Worker::start(|_| 200).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[worker.address()]);
    let running = Running::start(&targets, Limits::default()).await;
    for _ in 0..3 {
        let answer = get(&running.url("/default/orders")).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-kubedaemon-cold-start")),
            (200, "")
        );
    }
    assert_eq!(targets.wakes("orders"), 0);
    assert_eq!(worker.connections(), 1, "connections to workers are kept");
}

#[tokio::test]
async fn many_cold_calls_cause_one_wake_and_all_are_answered() {
    let worker = asleep(Answer::ok()).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    let calls = calls(&running, 200);
    targets.loaded("orders", 200).await;
    // First the endpoint is listed, then its socket opens: nobody may be answered in between.
    targets.endpoints("orders", &[worker.address()]);
    tokio::task::yield_now().await;
    worker.start_again();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{n}: {}", answer.text());
        assert_ne!(answer.header("x-kubedaemon-cold-start"), "");
    }
    assert_eq!(targets.wakes("orders"), 1);
    let mut bodies: Vec<usize> = worker
        .requests()
        .iter()
        .map(|request| request.text().parse().unwrap())
        .collect();
    bodies.sort_unstable();
    assert_eq!(
        bodies,
        (0..200).collect::<Vec<_>>(),
        "each call arrives once, with its own body"
    );
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn the_connection_that_finds_the_socket_open_carries_the_call() {
    let worker = asleep(Answer::ok()).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[worker.address()]);
    let running = Running::start(&targets, Limits::default()).await;
    let calls = calls(&running, 1);
    targets.loaded("orders", 1).await;
    worker.start_again();
    for call in calls {
        assert_eq!(call.await.unwrap().status.as_u16(), 200);
    }
    assert_eq!((worker.connections(), worker.count()), (1, 1));
    assert_eq!(
        targets.wakes("orders"),
        0,
        "it had an endpoint, so nobody needed to wake it"
    );
}

#[tokio::test]
async fn when_the_probing_caller_leaves_another_one_probes() {
    let worker = asleep(Answer::ok()).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[worker.address()]);
    let running = Running::start(&targets, Limits::default()).await;
    let mut first = running.connect().await;
    first.send("GET /default/orders HTTP/1.1\nHost: a\n", b"").await;
    targets.loaded("orders", 1).await;
    let calls = calls(&running, 2);
    targets.loaded("orders", 3).await;
    drop(first);
    targets.loaded("orders", 2).await;
    worker.start_again();
    for call in calls {
        assert_eq!(call.await.unwrap().status.as_u16(), 200);
    }
}

#[tokio::test]
async fn a_worker_that_fell_asleep_is_woken_again() {
    let worker = Worker::start(|_| 200).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.wakes_to("orders", worker.address());
    let running = Running::start(&targets, Limits::default()).await;
    for wakes in 1..=3 {
        let answer = get(&running.url("/default/orders")).await.unwrap();
        assert_eq!((answer.status.as_u16(), targets.wakes("orders")), (200, wakes));
        targets.endpoints("orders", &[]);
    }
}

#[tokio::test]
async fn endpoints_that_vanish_under_waiting_calls_are_woken_again() {
    let (gone, worker) = (asleep(Answer::ok()).await, Worker::start(|_| 200).await);
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[gone.address()]);
    let running = Running::start(&targets, Limits::default()).await;
    let calls = calls(&running, 3);
    targets.loaded("orders", 3).await;
    assert_eq!(targets.wakes("orders"), 0);
    targets.wakes_to("orders", worker.address());
    targets.endpoints("orders", &[]);
    for call in calls {
        assert_eq!(call.await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(targets.wakes("orders"), 1);
}

#[tokio::test]
async fn a_worker_that_died_between_two_calls_is_waited_for() {
    let worker = Worker::start(|_| 200).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[worker.address()]);
    let running = Running::start(&targets, Limits::default()).await;
    for round in 0..5 {
        let answer = post(&running.url("/default/orders"), &[], "x").await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "round {round}");
        worker.crash();
        let calls = calls(&running, 3);
        targets.loaded("orders", 3).await;
        worker.start_again();
        for call in calls {
            assert_eq!(call.await.unwrap().status.as_u16(), 200, "round {round}");
        }
    }
    assert_eq!(worker.count(), 20, "no call arrived twice");
}

#[tokio::test]
async fn a_dead_endpoint_beside_a_live_one_fails_nobody() {
    let (dead, live) = (asleep(Answer::ok()).await, Worker::start(|_| 200).await);
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, impatient()).await;
    targets.endpoints("orders", &[dead.address(), live.address()]);
    for call in calls(&running, 50) {
        assert_eq!(call.await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(live.count(), 50);
}

#[tokio::test]
async fn calls_are_spread_over_endpoints() {
    let workers = [
        Worker::start(|_| 200).await,
        Worker::start(|_| 200).await,
        Worker::start(|_| 200).await,
    ];
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    let endpoints: Vec<SocketAddr> = workers.iter().map(Worker::address).collect();
    targets.endpoints("orders", &endpoints);
    for _ in 0..30 {
        assert_eq!(
            get(&running.url("/default/orders"))
                .await
                .unwrap()
                .status
                .as_u16(),
            200
        );
    }
    for worker in &workers {
        assert_eq!(worker.count(), 10);
    }
}

#[tokio::test]
async fn single_target_mode_sends_every_path_to_the_one_worker() {
    let worker = Worker::start(|_| 200).await;
    let targets = FakeTargets::at_zero(&["orders", "mail"]);
    targets.wakes_to("orders", worker.address());
    let routing = Routing::Single(target("orders"));
    let running =
        Running::start_with(&targets, Limits::default(), routing, Arc::<FakeOutbox>::default()).await;
    for path in ["/", "/default/mail?x=1", "/message"] {
        assert_eq!(get(&running.url(path)).await.unwrap().status.as_u16(), 200);
        assert_eq!(worker.requests().last().unwrap().path, path);
    }
    assert_eq!(targets.wakes("orders"), 1);
}

/// An endpoint that takes no connection and refuses none, as an unreachable node does, must not hold up what comes
/// after it.
#[tokio::test]
async fn a_silent_endpoint_is_left_as_soon_as_another_one_is_listed() {
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let silent = silent.listen(1).unwrap();
    let address = silent.local_addr().unwrap();
    // Linux drops handshakes when the backlog is full; connecting then takes as long as one is patient.
    let mut backlog = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(200),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        backlog.push(stream);
    }
    let worker = Worker::start(|_| 200).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[address]);
    let limits = Limits {
        connect_timeout: Duration::from_mins(1),
        ..Limits::default()
    };
    let running = Running::start(&targets, limits).await;
    let calls = calls(&running, 3);
    targets.loaded("orders", 3).await;
    targets.endpoints("orders", &[worker.address()]);
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    }
}
