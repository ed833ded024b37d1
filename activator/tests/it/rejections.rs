//! Every reason to answer without the worker, as its caller sees it.

use crate::support::{FakeOutbox, FakeTargets, Raw, Running, impatient};
use activator::{Bounds, Limits, OutboxError, Reason, Routing};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use testkit::http::{self, get, post};
use testkit::wait::{PATIENCE, until};
use testkit::worker::{Answer, Worker};
use tokio::net::TcpListener;

/// Checks that an answer is the problem document of `reason`, and returns its sentence.
fn problem(answer: &http::Response, reason: Reason) -> String {
    assert_eq!(answer.status, reason.status(), "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let retry_after = reason
        .retry_after()
        .map(|wait| wait.as_secs().to_string())
        .unwrap_or_default();
    assert_eq!(answer.header("retry-after"), retry_after);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["reason"], reason.as_str());
    assert_eq!(body["status"], reason.status().as_u16());
    body["detail"].as_str().unwrap().to_owned()
}

/// A listener that does with each connection what the test says.
async fn peer<F>(serve: impl Fn(Raw) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Raw(stream)));
        }
    });
    address
}

async fn to_peer(peer: SocketAddr, limits: Limits) -> (Arc<FakeTargets>, Running) {
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[peer]);
    let running = Running::start(&targets, limits).await;
    (targets, running)
}

#[tokio::test]
async fn unknown_target_names_the_known_ones() {
    let targets = FakeTargets::at_zero(&["orders", "shop/mail"]);
    let running = Running::start(&targets, Limits::default()).await;
    for path in ["/", "/default/order", "/async/order"] {
        let detail = problem(
            &post(&running.url(path), &[], "x").await.unwrap(),
            Reason::UnknownTarget,
        );
        assert!(detail.contains("default/orders, shop/mail"), "{detail}");
    }
    assert_eq!(
        (targets.wakes("orders"), targets.loads("orders").len()),
        (0, 0),
        "nobody is woken by it"
    );
}

#[tokio::test]
async fn ambiguous_target_asks_for_the_namespace() {
    let targets = FakeTargets::at_zero(&["a/mail", "b/mail"]);
    let running = Running::start(&targets, Limits::default()).await;
    let answer = post(&running.url("/async/mail"), &[], "x").await.unwrap();
    assert!(problem(&answer, Reason::AmbiguousTarget).contains("a/mail, b/mail"));
}

#[tokio::test]
async fn no_queue_and_method_not_allowed() {
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    let answer = get(&running.url("/async/orders")).await.unwrap();
    problem(&answer, Reason::MethodNotAllowed);
    assert_eq!(answer.header("allow"), "POST");
    targets.queue("orders", None);
    problem(
        &post(&running.url("/async/orders"), &[], "x").await.unwrap(),
        Reason::NoQueue,
    );
}

#[tokio::test]
async fn a_full_buffer_is_said_at_once() {
    let bounds = |calls_per_target, calls, bytes| Bounds {
        calls_per_target,
        calls,
        bytes,
    };
    for (buffer, reason) in [
        (bounds(2, 100, 1 << 20), Reason::TargetBufferFull),
        (bounds(100, 4, 1 << 20), Reason::BufferFull),
        (bounds(100, 100, 70_000), Reason::BufferBytesFull),
    ] {
        let targets = FakeTargets::at_zero(&["orders", "mail"]);
        let running = Running::start(
            &targets,
            Limits {
                buffer,
                ..Limits::default()
            },
        )
        .await;
        let body = vec![b'x'; 20_000];
        let mut waiting = Vec::new();
        for calls in 1..=2 {
            let (url, body) = (running.url("/default/orders"), body.clone());
            waiting.push(tokio::spawn(async move { post(&url, &[], body).await }));
            targets.loaded("orders", calls).await;
        }
        let refused = post(&running.url("/default/orders"), &[], body.clone())
            .await
            .unwrap();
        assert!(problem(&refused, reason).contains("default/orders"));
        assert_eq!(targets.wakes("orders"), 1);
        // There is room for another target all the same.
        let url = running.url("/default/mail");
        waiting.push(tokio::spawn(async move { post(&url, &[], "x").await }));
        targets.loaded("mail", 1).await;
        let worker = Worker::start(|_| 200).await;
        targets.endpoints("orders", &[worker.address()]);
        targets.endpoints("mail", &[worker.address()]);
        for call in waiting {
            assert_eq!(call.await.unwrap().unwrap().status.as_u16(), 200);
        }
    }
}

/// A slot is free as soon as its caller has gone, whatever lies unread on the caller's connection.
#[tokio::test]
async fn a_caller_that_leaves_frees_its_place() {
    let buffer = Bounds {
        calls_per_target: 1,
        calls: 100,
        bytes: 64 << 20,
    };
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(
        &targets,
        Limits {
            buffer,
            ..Limits::default()
        },
    )
    .await;
    for (head, body) in [
        ("GET /default/orders HTTP/1.1\nHost: a\n", 0),
        ("POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 3\n", 3),
        (
            "POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 10000000\n",
            3,
        ),
        (
            "POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 10000000\n",
            50_000,
        ),
        (
            "POST /default/orders HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 9\n",
            0,
        ),
    ] {
        let mut caller = running.connect().await;
        caller.send(head, &vec![b'x'; body]).await;
        targets.loaded("orders", 1).await;
        let refused = get(&running.url("/default/orders")).await.unwrap();
        problem(&refused, Reason::TargetBufferFull);
        targets.loaded("orders", 1).await;
        drop(caller);
        targets.loaded("orders", 0).await;
    }
    assert_eq!(targets.wakes("orders"), 1, "it is being woken all the time");
}

#[tokio::test]
async fn not_started_says_why() {
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, impatient()).await;
    let answer = get(&running.url("/default/orders")).await.unwrap();
    let detail = problem(&answer, Reason::NotStarted);
    assert!(
        detail.starts_with("default/orders did not start within 0.3 s: "),
        "{detail}"
    );
    targets.trouble("orders", "the command worker.py cannot be run: no such file");
    let detail = problem(
        &get(&running.url("/default/orders")).await.unwrap(),
        Reason::NotStarted,
    );
    assert!(
        detail.ends_with("the command worker.py cannot be run: no such file"),
        "{detail}"
    );
    assert_eq!(targets.wakes("orders"), 1);
    assert_eq!(targets.loads("orders").last(), Some(&0));
}

#[tokio::test]
async fn upstream_connect_names_the_endpoint() {
    let worker = Worker::start(|_| 200).await;
    worker.crash();
    let (_targets, running) = to_peer(worker.address(), impatient()).await;
    let detail = problem(
        &get(&running.url("/default/orders")).await.unwrap(),
        Reason::UpstreamConnect,
    );
    assert!(
        detail.contains(&format!("{} refuses connections", worker.address())),
        "{detail}"
    );
}

#[tokio::test]
async fn a_port_that_accepts_and_closes_is_no_worker_yet() {
    let peer = peer(|_closed| async {}).await;
    let (_targets, running) = to_peer(peer, impatient()).await;
    let answer = get(&running.url("/default/orders")).await.unwrap();
    assert_eq!(answer.status.as_u16(), 502, "{}", answer.text());
}

#[tokio::test]
async fn upstream_reset_is_never_sent_again() {
    let worker = Worker::start(|request| match request.text().as_str() {
        "die" => Answer::reset(),
        _ => Answer::ok(),
    })
    .await;
    let (targets, running) = to_peer(worker.address(), Limits::default()).await;
    let url = running.url("/default/orders");
    for round in 0..10 {
        // On a new connection, and on one that has carried a call before.
        if round % 2 == 1 {
            assert_eq!(post(&url, &[], "live").await.unwrap().status.as_u16(), 200);
        }
        let before = worker.count();
        problem(&post(&url, &[], "die").await.unwrap(), Reason::UpstreamReset);
        assert_eq!(worker.count(), before + 1, "round {round}");
    }
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn upstream_reset_in_the_middle_of_the_request() {
    let peer = peer(|mut worker| async move {
        worker.read_until("0123").await;
    })
    .await;
    let (targets, running) = to_peer(peer, Limits::default()).await;
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 1000\n",
            b"0123",
        )
        .await;
    let said = caller.read_until("\"reason\"").await;
    assert!(
        said.starts_with("HTTP/1.1 502") && said.contains("upstream_reset"),
        "{said}"
    );
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn upstream_malformed() {
    let peer = peer(|mut worker| async move {
        worker.read_until("\r\n\r\n").await;
        worker.send("SSH-2.0-OpenSSH_9.2", b"").await;
    })
    .await;
    let (_targets, running) = to_peer(peer, Limits::default()).await;
    problem(
        &get(&running.url("/default/orders")).await.unwrap(),
        Reason::UpstreamMalformed,
    );
}

#[tokio::test]
async fn upstream_timeout_and_request_timeout_say_who_was_silent() {
    let worker = Worker::start(|_| Answer::never()).await;
    let limits = Limits {
        response_timeout: Some(Duration::from_millis(200)),
        ..Limits::default()
    };
    let (targets, running) = to_peer(worker.address(), limits).await;
    problem(
        &post(&running.url("/default/orders"), &[], "x").await.unwrap(),
        Reason::UpstreamTimeout,
    );
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 9\n",
            b"half",
        )
        .await;
    let said = caller.read_until("\"reason\"").await;
    assert!(
        said.starts_with("HTTP/1.1 408") && said.contains("request_timeout"),
        "{said}"
    );
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn an_upload_that_moves_is_not_silent() {
    let worker = Worker::start(|_| 200).await;
    let limits = Limits {
        response_timeout: Some(Duration::from_millis(400)),
        ..Limits::default()
    };
    let (_targets, running) = to_peer(worker.address(), limits).await;
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 10\n",
            b"",
        )
        .await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10 {
        ticks.tick().await;
        tokio::io::AsyncWriteExt::write_all(&mut caller.0, b"x")
            .await
            .unwrap();
    }
    assert!(caller.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_target_that_is_taken_away_answers_its_waiting_calls() {
    let targets = FakeTargets::at_zero(&["orders", "mail"]);
    let running = Running::start(&targets, Limits::default()).await;
    let url = running.url("/default/orders");
    let call = tokio::spawn(async move { get(&url).await.unwrap() });
    targets.loaded("orders", 1).await;
    targets.remove("orders");
    let detail = problem(&call.await.unwrap(), Reason::UnknownTarget);
    assert!(detail.ends_with("there is default/mail"), "{detail}");
}

#[tokio::test]
async fn asynchronous_calls_are_refused_with_their_reason() {
    let targets = FakeTargets::at_zero(&["orders"]);
    let outbox = Arc::<FakeOutbox>::default();
    let limits = Limits {
        async_body: 100,
        body_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = Running::start_with(&targets, limits, Routing::ByName, Arc::clone(&outbox) as _).await;
    let url = running.url("/async/orders");

    let detail = problem(
        &post(&url, &[], vec![b'x'; 101]).await.unwrap(),
        Reason::BodyTooLarge,
    );
    assert!(detail.contains("100 bytes"), "{detail}");
    let chunked = format!("65\r\n{}\r\n0\r\n\r\n", "x".repeat(0x65));
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /async/orders HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n",
            chunked.as_bytes(),
        )
        .await;
    assert!(caller.read_until("\"reason\"").await.contains("body_too_large"));
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /async/orders HTTP/1.1\nHost: a\nContent-Length: 9\n",
            b"half",
        )
        .await;
    assert!(caller.read_until("\"reason\"").await.contains("request_timeout"));

    let long = "v".repeat(17_000);
    for (header, value, reason) in [
        ("idempotency-key", "\"open", Reason::BadIdempotencyKey),
        ("x-long", long.as_str(), Reason::HeadersTooLarge),
        ("content-type", &long[..300], Reason::BadRequest),
    ] {
        problem(&post(&url, &[(header, value)], "x").await.unwrap(), reason);
    }
    assert!(
        outbox.published.lock().unwrap().is_empty(),
        "nothing of it was published"
    );

    for (error, reason) in [
        (
            OutboxError::Unavailable("the broker is away".to_owned()),
            Reason::BrokerUnavailable,
        ),
        (
            OutboxError::Unconfirmed("no confirm".to_owned()),
            Reason::Unconfirmed,
        ),
    ] {
        *outbox.answer.lock().unwrap() = Some(error.clone());
        let answer = post(&url, &[("idempotency-key", "k-1")], "x").await.unwrap();
        let detail = problem(&answer, reason);
        assert!(detail.contains(&error.to_string()), "{detail}");
        assert_eq!(answer.header("x-call-id"), "");
    }
    assert_eq!(targets.wakes("orders"), 0, "the queue wakes it, not the call");
}

/// The longest body that a caller may still be sending when it is answered reaches it: no reset overtakes the answer.
#[tokio::test]
async fn a_caller_in_the_middle_of_sending_reads_its_rejection() {
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    for (path, reason) in [
        ("/nobody", Reason::UnknownTarget),
        ("/async/orders", Reason::BodyTooLarge),
    ] {
        for _ in 0..5 {
            problem(
                &post(&running.url(path), &[], vec![b'x'; (1 << 20) + 1])
                    .await
                    .unwrap(),
                reason,
            );
        }
    }
}

#[tokio::test]
async fn rejections_are_counted_by_reason() {
    let page = ops::metrics::install();
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    problem(
        &get(&running.url("/nobody")).await.unwrap(),
        Reason::UnknownTarget,
    );
    until("the rejection is counted", PATIENCE, || async {
        page.render()
            .contains("activator_rejections_total{reason=\"unknown_target\"}")
    })
    .await;
    let page = page.render();
    assert!(
        page.contains("http_server_request_duration_seconds_bucket"),
        "{page}"
    );
    assert!(page.contains("# HELP activator_rejections_total Calls"), "{page}");
}
