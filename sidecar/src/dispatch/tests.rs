use super::{Dispatcher, Post, Worker};
use crate::domain::outcome::Outcome;
use bytes::Bytes;
use std::time::Duration;
use testkit::worker::{Answer, Received, Worker as Scripted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

fn dispatcher(port: u16) -> Dispatcher {
    let host = "127.0.0.1".to_owned();
    Dispatcher::new(Worker { host, port }, PATIENCE)
}

async fn post(dispatcher: &Dispatcher) -> Outcome {
    post_body(dispatcher, &Bytes::from_static(b"m")).await
}

async fn post_body(dispatcher: &Dispatcher, body: &Bytes) -> Outcome {
    let head = |bytes: &mut Vec<u8>| {
        let head = format!(
            "POST /message HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        bytes.extend_from_slice(head.as_bytes());
    };
    dispatcher.post(Post { head, body }, None, Duration::ZERO).await
}

fn status(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Answered(answer) => answer.status.as_u16(),
        other => panic!("{other:?}"),
    }
}

/// A server that does what `serve` does with each connection.
async fn server<F>(serve: impl Fn(u32, TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    port
}

/// Reads the request of [`post`].
async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\nm") {
        assert_ne!(
            stream.read_buf(&mut read).await.unwrap(),
            0,
            "the request ends early"
        );
    }
}

/// A server that answers every request of every connection with these bytes and closes after the last of them.
async fn raw(answers: &'static [&'static [u8]]) -> u16 {
    server(move |_, mut stream| async move {
        for answer in answers {
            read_request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let worker = Scripted::start(|_| 200).await;
    let dispatcher = dispatcher(worker.port());
    for _ in 0..5 {
        assert_eq!(status(&post(&dispatcher).await), 200);
    }
    assert_eq!(worker.connections(), 1);
    let (one, two) = tokio::join!(post(&dispatcher), post(&dispatcher));
    assert_eq!((status(&one), status(&two), worker.connections()), (200, 200, 2));
}

#[tokio::test]
async fn a_connection_that_idled_for_long_is_not_used_again() {
    let worker = Scripted::start(|_| 200).await;
    let dispatcher = dispatcher(worker.port());
    post(&dispatcher).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!((status(&post(&dispatcher).await), worker.connections()), (200, 2));
}

#[tokio::test]
async fn connections_that_nobody_uses_are_closed() {
    let (saw_end, mut seen) = tokio::sync::mpsc::channel(1);
    let port = server(move |_, mut stream| {
        let saw_end = saw_end.clone();
        async move {
            read_request(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
            saw_end.send(()).await.unwrap();
        }
    })
    .await;
    let dispatcher = dispatcher(port);
    assert_eq!(status(&post(&dispatcher).await), 200);
    tokio::time::timeout(PATIENCE, seen.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status(&post(&dispatcher).await), 200);
}

#[tokio::test]
async fn a_kept_connection_that_the_worker_closed_costs_no_attempt() {
    // Says keep-alive and closes, as a server does whose idle time is over.
    let port = raw(&[b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
    let dispatcher = dispatcher(port);
    for _ in 0..20 {
        assert_eq!(status(&post(&dispatcher).await), 200);
    }
}

#[tokio::test]
async fn a_kept_connection_that_dies_before_any_answer_is_replaced_at_once_and_a_fresh_one_is_not() {
    let worker = Scripted::start(|request: &Received| match request.number {
        2 | 4 | 5 => Answer::reset(),
        _ => Answer::ok(),
    })
    .await;
    let dispatcher = dispatcher(worker.port());
    assert_eq!(status(&post(&dispatcher).await), 200);
    assert_eq!((status(&post(&dispatcher).await), worker.count()), (200, 3));
    // Both the kept and the fresh one.
    assert_eq!((post(&dispatcher).await, worker.count()), (Outcome::Reset, 5));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_and_never_tried_again() {
    let worker = Scripted::start(|request: &Received| match request.number {
        1 => Answer::ok(),
        _ => Answer::ok().body("half").cut_short(),
    })
    .await;
    let dispatcher = dispatcher(worker.port());
    post(&dispatcher).await;
    assert_eq!((post(&dispatcher).await, worker.count()), (Outcome::Reset, 2));
}

#[tokio::test]
async fn a_worker_that_is_gone_is_refused_before_and_crashed_after_the_request_left() {
    let worker = Scripted::start(|_| Answer::never()).await;
    let dispatcher = dispatcher(worker.port());
    dispatcher.until_up().await;
    let (outcome, ()) = tokio::join!(post(&dispatcher), async {
        worker.wait_for(1).await;
        worker.crash();
    });
    assert_eq!(outcome, Outcome::Crashed);
    tokio::time::timeout(PATIENCE, dispatcher.until_down())
        .await
        .unwrap();
    assert_eq!(post(&dispatcher).await, Outcome::Refused);
    worker.start_again();
    tokio::time::timeout(PATIENCE, dispatcher.until_up())
        .await
        .unwrap();
}

#[tokio::test]
async fn too_late_is_timed_out_and_the_worker_sees_the_connection_end() {
    let (saw_end, mut seen) = tokio::sync::mpsc::channel(1);
    let port = server(move |_, mut stream| {
        let saw_end = saw_end.clone();
        async move {
            read_request(&mut stream).await;
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
            saw_end.send(()).await.unwrap();
        }
    })
    .await;
    let host = "127.0.0.1".to_owned();
    let dispatcher = Dispatcher::new(Worker { host, port }, Duration::from_millis(50));
    assert_eq!(post(&dispatcher).await, Outcome::TimedOut);
    tokio::time::timeout(PATIENCE, seen.recv())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_is_not_http_is_said_to_be_not_http() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02F",
        b"HTTP/1.1 99999 ?\r\n\r\n",
    ] {
        let port = server(move |_, mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            // Not closed: what was said is enough.
            std::future::pending::<()>().await;
        })
        .await;
        assert_eq!(
            post(&dispatcher(port)).await,
            Outcome::NotHttp,
            "{}",
            answer.escape_ascii()
        );
    }
}

#[tokio::test]
async fn odd_but_right_answers_are_answers() {
    for (answer, expected) in [
        (
            &b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"[..],
            204,
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
            201,
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-trailer: 1\r\n\r\n",
            200,
        ),
        (b"HTTP/1.1 500\r\nconnection: close\r\n\r\n", 500),
    ] {
        let port = server(move |_, mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
        })
        .await;
        assert_eq!(
            status(&post(&dispatcher(port)).await),
            expected,
            "{}",
            answer.escape_ascii()
        );
    }
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_kept() {
    let body: Vec<u8> = (0..=255).cycle().take(3 * 1024 * 1024).collect();
    let long = Bytes::from(body);
    let worker = Scripted::start({
        let long = long.clone();
        move |_| Answer::status(500).body(long.clone())
    })
    .await;
    let dispatcher = dispatcher(worker.port());
    for _ in 0..2 {
        match post(&dispatcher).await {
            Outcome::Answered(answer) => assert_eq!(answer.excerpt, long[..4096]),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        worker.connections(),
        2,
        "reading it to its end would cost more than a connection"
    );
}
