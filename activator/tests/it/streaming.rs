//! Bodies pass through both ways at once, and no further ahead than their receivers take them.

use crate::support::{FakeTargets, PATIENCE, Raw, Running};
use activator::Limits;
use bytes::Bytes;
use http::Response;
use http::header::TRAILER;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use testkit::http::{Method, open};
use testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A worker that answers with the request's body while it is still coming.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: http::Request<Incoming>| async {
                let (head, body) = request.into_parts();
                let mut response = Response::new(body);
                // hyper sends trailers only when they are announced.
                response
                    .headers_mut()
                    .extend(head.headers.get("trailer").map(|names| (TRAILER, names.clone())));
                Ok::<_, Infallible>(response)
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    address
}

pub(crate) async fn to(worker: SocketAddr) -> (Arc<FakeTargets>, Running) {
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[worker]);
    let running = Running::start(&targets, Limits::default()).await;
    (targets, running)
}

#[tokio::test]
async fn the_answer_comes_while_the_request_is_still_sent() {
    let (targets, running) = to(echo().await).await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let body = StreamBody::new(futures_util::stream::unfold(receiver, |mut receiver| async {
        let data = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(data)), receiver))
    }));
    let url = running.url("/default/orders");
    let call = tokio::spawn(async move { open(Method::POST, &url, &[], body).await.unwrap() });
    sender.send(Bytes::from("first")).await.unwrap();
    let mut answer = call.await.unwrap();
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
    for n in 0..100 {
        let chunk = Bytes::from(format!("chunk {n}"));
        sender.send(chunk.clone()).await.unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), chunk);
    }
    assert_eq!(targets.loads("orders"), [1], "in flight until the last byte");
    drop(sender);
    assert_eq!(answer.chunk().await.unwrap(), None);
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn a_body_arrives_byte_for_byte() {
    let (_targets, running) = to(echo().await).await;
    let body: Vec<u8> = (0..251u8).cycle().take(3_000_000).collect();
    let frames: Vec<Result<Frame<Bytes>, Infallible>> = body
        .chunks(70_001)
        .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    let stream = StreamBody::new(futures_util::stream::iter(frames));
    let mut answer = open(Method::PUT, &running.url("/default/orders"), &[], stream)
        .await
        .unwrap();
    let mut echoed = Vec::new();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        echoed.extend_from_slice(&chunk);
    }
    assert!(
        echoed == body,
        "{} of {} bytes, or others",
        echoed.len(),
        body.len()
    );
}

/// Writes until nothing has been taken for a while, and returns how much was.
async fn write_until_stuck(stream: &mut TcpStream) -> usize {
    let block = vec![b'x'; 1 << 16];
    let mut written = 0;
    while let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(500), stream.write(&block)).await {
        written += length;
    }
    written
}

/// What kernels buffer on two loopback connections, and a little for us.
const IN_SOCKETS: usize = 32 << 20;

#[tokio::test]
async fn a_worker_that_does_not_read_stops_its_caller() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (targets, running) = to(listener.local_addr().unwrap()).await;
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 1000000000\n",
            b"",
        )
        .await;
    let (worker, _) = listener.accept().await.unwrap();
    let written = write_until_stuck(&mut caller.0).await;
    assert!(written < IN_SOCKETS, "{written} bytes are somewhere in between");
    drop(caller);
    drop(worker);
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_its_worker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (targets, running) = to(listener.local_addr().unwrap()).await;
    let mut caller = running.connect().await;
    caller.send("GET /default/orders HTTP/1.1\nHost: a\n", b"").await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut worker = Raw(stream);
    worker.read_until("\r\n\r\n").await;
    worker
        .send("HTTP/1.1 200 OK\nContent-Length: 1000000000\n", b"")
        .await;
    let written = write_until_stuck(&mut worker.0).await;
    assert!(written < IN_SOCKETS, "{written} bytes are somewhere in between");
    // And when the caller has gone, the worker is told.
    drop(caller);
    targets.loaded("orders", 0).await;
    let mut buffer = [0; 1];
    let ended = tokio::time::timeout(PATIENCE, worker.0.read(&mut buffer))
        .await
        .expect("the worker is told");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_caller_that_leaves_while_the_worker_thinks_ends_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (targets, running) = to(listener.local_addr().unwrap()).await;
    let mut caller = running.connect().await;
    caller
        .send(
            "POST /default/orders HTTP/1.1\nHost: a\nContent-Length: 3\n",
            b"abc",
        )
        .await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut worker = Raw(stream);
    worker.read_until("abc").await;
    drop(caller);
    assert_eq!(worker.read_to_end().await, "", "the connection is closed");
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_caller_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (targets, running) = to(listener.local_addr().unwrap()).await;
    let url = running.url("/default/orders");
    let call = tokio::spawn(async move { testkit::http::get(&url).await });
    let (stream, _) = listener.accept().await.unwrap();
    let mut worker = Raw(stream);
    worker.read_until("\r\n\r\n").await;
    worker
        .send("HTTP/1.1 200 OK\nContent-Length: 10\n", b"half")
        .await;
    drop(worker);
    let error = call.await.unwrap().unwrap_err();
    assert!(error.0.contains("broke off"), "{error}");
    targets.loaded("orders", 0).await;
}

/// The connection to a worker is kept after an answer of each kind of length, and closed when the answer was not read.
#[tokio::test]
async fn connections_to_workers_are_reused_after_whole_answers_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_targets, running) = to(listener.local_addr().unwrap()).await;
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::spawn(async move {
                let mut worker = Raw(stream);
                loop {
                    let request = worker.read_until("\r\n\r\n").await;
                    match request.split(' ').nth(1) {
                        Some("/length") => worker.send("HTTP/1.1 200 OK\nContent-Length: 2\n", b"ok").await,
                        Some("/chunked") => {
                            let body = b"2\r\nok\r\n0\r\n\r\n";
                            worker
                                .send("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", body)
                                .await;
                        }
                        Some("/empty") => worker.send("HTTP/1.1 204 No Content\n", b"").await,
                        Some("/close") => {
                            worker.send("HTTP/1.0 200 OK\n", b"ok").await;
                            return;
                        }
                        _ => return,
                    }
                }
            });
        }
    });
    let opened = || connections.load(std::sync::atomic::Ordering::Relaxed);
    for (path, body, expected) in [
        ("/length", "ok", 1),
        ("/chunked", "ok", 1),
        ("/empty", "", 1),
        ("/length", "ok", 1),
        ("/close", "ok", 1),
        ("/length", "ok", 2),
    ] {
        let answer = testkit::http::get(&running.url(&format!("/default/orders{path}")))
            .await
            .unwrap();
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
        assert_eq!((answer.text().as_str(), opened()), (body, expected), "{path}");
    }
    // A caller that goes away before it has read the answer: what is left of it must not be taken for another's.
    let mut streaming = open(
        Method::GET,
        &running.url("/default/orders/chunked"),
        &[],
        String::new(),
    )
    .await
    .unwrap();
    streaming.chunk().await.unwrap();
    drop(streaming);
    let answer = testkit::http::get(&running.url("/default/orders/length"))
        .await
        .unwrap();
    assert_eq!(answer.text(), "ok");
}

/// Idle connections are closed before workers close them.
#[tokio::test]
async fn idle_connections_to_workers_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.endpoints("orders", &[listener.local_addr().unwrap()]);
    let limits = Limits {
        idle_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let running = Running::start(&targets, limits).await;
    let url = running.url("/default/orders");
    let call = tokio::spawn(async move { testkit::http::get(&url).await });
    let (stream, _) = listener.accept().await.unwrap();
    let mut worker = Raw(stream);
    worker.read_until("\r\n\r\n").await;
    worker.send("HTTP/1.1 204 No Content\n", b"").await;
    assert_eq!(call.await.unwrap().unwrap().status.as_u16(), 204);
    assert_eq!(worker.read_to_end().await, "");
}

/// Trailers pass both ways, over HTTP/2 on the caller's side and HTTP/1.1 on the worker's.
#[tokio::test]
async fn trailers_pass_through() {
    let (targets, running) = to(echo().await).await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("42"));
    let frames = [Frame::data(Bytes::from("body")), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
    let request = http::Request::post(running.url("/default/orders"))
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(
        collected
            .trailers()
            .and_then(|trailers| trailers.get("x-sum"))
            .unwrap(),
        "42"
    );
    assert_eq!(collected.to_bytes(), "body");
    until("the call is over", PATIENCE, || async {
        targets.loads("orders").last() == Some(&0)
    })
    .await;
}
