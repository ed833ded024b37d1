//! HTTP as callers of all kinds speak it.

use crate::streaming::{echo, to};
use crate::support::{FakeTargets, PATIENCE, Running};
use activator::Limits;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use testkit::worker::{Answer, Worker};
use tokio::net::TcpStream;

async fn with_worker() -> (Worker, Running) {
    let worker = Worker::start(|request| Answer::ok().body(request.path.clone())).await;
    let (_targets, running) = to(worker.address()).await;
    (worker, running)
}

#[tokio::test]
async fn http_1_0_gets_an_answer_and_the_end_of_the_connection() {
    let (worker, running) = with_worker().await;
    let mut caller = running.connect().await;
    caller.send("GET /default/orders/old HTTP/1.0\n", b"").await;
    let said = caller.read_to_end().await;
    assert!(
        said.starts_with("HTTP/1.0 200 OK") && said.ends_with("/old"),
        "{said}"
    );
    assert_eq!(worker.requests()[0].header("host"), worker.address().to_string());

    let mut caller = running.connect().await;
    for path in ["/one", "/two"] {
        let head = format!("GET /default/orders{path} HTTP/1.0\nHost: a\nConnection: keep-alive\n");
        caller.send(&head, b"").await;
        assert!(caller.read_until(path).await.ends_with(path));
    }
}

#[tokio::test]
async fn http_1_0_gets_a_streamed_answer_without_chunks() {
    let (_targets, running) = to(echo().await).await;
    let mut caller = running.connect().await;
    caller
        .send("POST /default/orders HTTP/1.0\nContent-Length: 5\n", b"hello")
        .await;
    let said = caller.read_to_end().await;
    assert!(
        said.ends_with("\r\n\r\nhello") && !said.to_lowercase().contains("chunked"),
        "{said}"
    );
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    let (worker, running) = with_worker().await;
    let mut caller = running.connect().await;
    for n in 0..20 {
        caller
            .send(
                &format!("POST /default/orders/{n} HTTP/1.1\nHost: a\nContent-Length: 1\n"),
                b"x",
            )
            .await;
        let said = caller.read_until(&format!("/{n}")).await;
        assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    }
    // Pipelined: both requests at once, answers in order.
    let both = "GET /default/orders/a HTTP/1.1\nHost: a\n\nGET /default/orders/b HTTP/1.1\nHost: a\n";
    caller.send(both, b"").await;
    let said = caller.read_until("/b").await;
    assert!(said.find("/a").unwrap() < said.find("/b").unwrap(), "{said}");
    assert_eq!(worker.connections(), 1);
    // A rejection does not end it.
    caller.send("GET /nobody HTTP/1.1\nHost: a\n", b"").await;
    assert!(
        caller
            .read_until("unknown_target")
            .await
            .starts_with("HTTP/1.1 404")
    );
    caller
        .send("GET /default/orders/c HTTP/1.1\nHost: a\n", b"")
        .await;
    assert!(caller.read_until("/c").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn bad_requests_are_refused_and_reach_no_worker() {
    let (worker, running) = with_worker().await;
    let long = "x".repeat(70_000);
    for (request, status) in [
        ("NONSENSE\n", "400"),
        ("GET /default/orders HTTP/1.1\n", "400"),
        ("GET /default/orders HTTP/1.1\nHost: a\nHost: b\n", "400"),
        ("GET /default/orders HTTP/9.9\nHost: a\n", "400"),
        (
            "GET /default/orders HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 2\n",
            "400",
        ),
        (
            "GET /default/orders HTTP/1.1\nHost: a\nContent-Length: x\n",
            "400",
        ),
        ("GET /default/orders HTTP/1.1\nHost: a\nBad Name: x\n", "400"),
        (
            "POST /default/orders HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n",
            "501",
        ),
        (
            "POST /default/orders HTTP/1.1\nHost: a\nTransfer-Encoding: gzip\n",
            "400",
        ),
        (
            "POST /default/orders HTTP/1.0\nTransfer-Encoding: chunked\n",
            "400",
        ),
        ("CONNECT a:80 HTTP/1.1\nHost: a\n", "405"),
        (
            &format!("GET /default/orders HTTP/1.1\nHost: a\nX-Long: {long}\n"),
            "431",
        ),
        (
            &format!(
                "GET /default/orders HTTP/1.1\nHost: a\n{}",
                "X-Many: 1\n".repeat(200)
            ),
            "431",
        ),
        (&format!("GET /{long} HTTP/1.1\nHost: a\n"), "431"),
    ] {
        let mut caller = running.connect().await;
        caller.send(request, b"").await;
        let said = caller.read_until("\r\n\r\n").await;
        let shown = &request[..request.len().min(80)];
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status}")),
            "{shown:?} got {said:?}"
        );
    }
    assert_eq!(worker.count(), 0);
}

#[tokio::test]
async fn large_headers_within_the_bound_pass_both_ways() {
    let large = "v".repeat(30_000);
    let answered = large.clone();
    let worker = Worker::start(move |_| Answer::ok().header("x-answered", &answered)).await;
    let (_targets, running) = to(worker.address()).await;
    let url = running.url("/default/orders");
    let answer = testkit::http::post(&url, &[("x-asked", large.as_str())], "x")
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-answered")),
        (200, large.as_str())
    );
    assert_eq!(worker.requests()[0].header("x-asked"), large);
}

/// A second message hidden in the first one's body is never seen as one by the worker.
#[tokio::test]
async fn length_and_chunks_together_are_read_one_way_only() {
    let (worker, running) = with_worker().await;
    let smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (first, second) in [
        ("Content-Length: 43", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 43"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding: xchunked", "Content-Length: 43"),
    ] {
        let mut caller = running.connect().await;
        let head = format!("POST /default/orders/first HTTP/1.1\nHost: a\n{first}\n{second}\n");
        caller.send(&head, smuggled).await;
        caller.read_until("\r\n\r\n").await;
    }
    for request in worker.requests() {
        assert_eq!(request.path, "/first", "{request:?}");
        assert!(
            request.headers.get("content-length").is_none()
                || request.headers.get("transfer-encoding").is_none()
        );
    }
}

#[tokio::test]
async fn a_request_body_is_asked_for_only_when_the_worker_is_there() {
    let worker = Worker::start(|_| 200).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /default/orders HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 5\n",
            b"",
        )
        .await;
    targets.loaded("orders", 1).await;
    let silent = tokio::time::timeout(Duration::from_millis(50), caller.0.readable()).await;
    assert!(silent.is_err(), "no 100 before there is a worker");
    targets.endpoints("orders", &[worker.address()]);
    assert!(
        caller
            .read_until("\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 100 Continue")
    );
    caller.send("", b"").await;
    tokio::io::AsyncWriteExt::write_all(&mut caller.0, b"abc")
        .await
        .unwrap();
    let said = caller.read_until("\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(worker.requests()[0].text(), "\r\nabc");
}

#[tokio::test]
async fn head_and_no_content_have_no_body() {
    let worker = Worker::start(|request| match request.path.as_str() {
        "/none" => Answer::status(204),
        "/unchanged" => Answer::status(304),
        _ => Answer::ok().body("body"),
    })
    .await;
    let (_targets, running) = to(worker.address()).await;
    let mut caller = running.connect().await;
    for (request, status) in [
        ("HEAD /default/orders/x", 200),
        ("GET /default/orders/none", 204),
        ("GET /default/orders/unchanged", 304),
    ] {
        for _ in 0..3 {
            caller.send(&format!("{request} HTTP/1.1\nHost: a\n"), b"").await;
            let said = caller.read_until("\r\n\r\n").await;
            assert!(
                said.starts_with(&format!("HTTP/1.1 {status}")) && said.ends_with("\r\n\r\n"),
                "{said}"
            );
        }
    }
    assert_eq!(worker.connections(), 1);
}

#[tokio::test]
async fn http_2_with_prior_knowledge_wakes_and_multiplexes() {
    let worker = Worker::start(|request| Answer::ok().body(request.body.clone())).await;
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut calls = Vec::new();
    for n in 0..50 {
        let mut sender = sender.clone();
        let request = http::Request::post(format!("http://orders.default/{n}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Full::new(Bytes::from(n.to_string())))
            .unwrap();
        calls.push(tokio::spawn(async move {
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            assert!(answer.headers().contains_key("x-kubedaemon-cold-start"));
            answer.into_body().collect().await.unwrap().to_bytes()
        }));
    }
    targets.loaded("orders", 50).await;
    // One stream is given up: its place is free, the others go on.
    calls.pop().unwrap().abort();
    targets.loaded("orders", 49).await;
    targets.endpoints("orders", &[worker.address()]);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), n.to_string());
    }
    assert_eq!(targets.wakes("orders"), 1);
    for request in worker.requests() {
        assert_eq!(request.header("host"), "orders.default");
        assert_eq!(request.header("cookie"), "a=1; b=2");
        assert_eq!(request.header("via"), "2 kubedaemon");
    }
}

#[tokio::test]
async fn connections_that_only_hold_their_place_are_closed() {
    let targets = FakeTargets::at_zero(&["orders"]);
    let limits = Limits {
        header_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = Running::start(&targets, limits).await;
    for said in ["", "GET / HT", "PRI * HTTP/2.0\r\n\r", "P"] {
        let mut caller = running.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut caller.0, said.as_bytes())
            .await
            .unwrap();
        let ended = tokio::time::timeout(PATIENCE, caller.read_to_end()).await;
        assert!(ended.is_ok(), "{said:?}");
    }
    // Idle after a call, too.
    let mut caller = running.connect().await;
    caller.send("GET /nobody HTTP/1.1\nHost: a\n", b"").await;
    assert!(caller.read_to_end().await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(
        &targets,
        Limits {
            connections: 2,
            ..Limits::default()
        },
    )
    .await;
    let (first, second) = (running.connect().await, running.connect().await);
    let url = running.url("/nobody");
    let third = tokio::spawn(async move { testkit::http::get(&url).await.unwrap() });
    let mut second = second;
    second.send("GET /nobody HTTP/1.1\nHost: a\n", b"").await;
    assert!(
        second
            .read_until("unknown_target")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(!third.is_finished());
    drop(first);
    assert_eq!(third.await.unwrap().status.as_u16(), 404);
}
