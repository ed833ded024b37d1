//! Workers that cannot be talked to, and connections that die between two requests.

use crate::play::{Counts, RawScene, Row, ok};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use testkit::raw::{Exchange, Patience, RawWorker, Step};
use testkit::wait::{PATIENCE, until};
use tokio::net::TcpSocket;

/// The rows that need a scene of their own, with the name of their test.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "kept_connection_dies_before_a_byte",
        worker: "closes a kept connection at the moment of the next request",
        verdict: "accepted",
        reason: "succeeded",
        counts: Counts::Ends,
    },
    Row {
        name: "kept_connection_dies_and_the_next_one_too",
        worker: "the same, and resets the new connection as well",
        verdict: "retry",
        reason: "reset",
        counts: Counts::Yes,
    },
    Row {
        name: "closes_what_it_accepts",
        worker: "closes every connection as it is accepted",
        verdict: "retry",
        reason: "reset",
        counts: Counts::Yes,
    },
    Row {
        name: "listens_and_never_accepts",
        worker: "listens, and never accepts what the kernel took for it",
        verdict: "retry",
        reason: "timed_out",
        counts: Counts::Yes,
    },
    Row {
        name: "full_backlog",
        worker: "listens, and its backlog is full: connecting hangs",
        verdict: "released",
        reason: "worker_unreachable",
        counts: Counts::No,
    },
    Row {
        name: "throttles_for_ever",
        worker: "answers 503 with `Retry-After: 0` for ever",
        verdict: "retry",
        reason: "throttled",
        counts: Counts::No,
    },
];

fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).unwrap()
}

fn assert_judged(scene: &RawScene, name: &str, index: usize) {
    let row = row(name);
    let judged = scene.judged();
    let (verdict, reason, _) = &judged[index];
    assert_eq!(
        (verdict.as_str(), reason.as_str()),
        (row.verdict, row.reason),
        "{judged:?}"
    );
}

#[tokio::test]
async fn kept_connection_dies_before_a_byte() {
    for death in [Step::Close, Step::Reset] {
        let worker = RawWorker::start(Patience::Whole, move |exchange: &Exchange| {
            if exchange.on_connection == 1 {
                ok()
            } else {
                vec![death.clone()]
            }
        });
        let scene = RawScene::new(worker, |config| config.concurrency = 1).await;
        for number in 1..=5 {
            scene.publish("m").await;
            scene.until_settled(number).await;
        }
        let judged = scene.judged();
        assert!(judged.iter().all(|(_, _, attempt)| *attempt == 1), "{judged:?}");
        assert_judged(&scene, "kept_connection_dies_before_a_byte", 4);
        let exchanges = scene.worker().exchanges();
        // Each but the first came once on the kept connection and once on a new one, at once.
        assert_eq!(exchanges.len(), 9, "{exchanges:#?}");
        for pair in exchanges[1..].chunks(2) {
            assert_eq!(pair[0].header("x-message-id"), pair[1].header("x-message-id"));
            let waited = pair[1].at.duration_since(pair[0].at);
            assert!(waited < Duration::from_millis(90), "sent again after {waited:?}");
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn kept_connection_dies_and_the_next_one_too() {
    let worker = RawWorker::start(Patience::Whole, |exchange: &Exchange| {
        if exchange.text() == "first" || exchange.header("x-delivery-attempt") == "3" {
            return ok();
        }
        vec![Step::Reset]
    });
    let scene = RawScene::new(worker, |config| config.concurrency = 1).await;
    scene.publish("first").await;
    scene.until_settled(1).await;
    scene.publish("second").await;
    scene.until_settled(2).await;
    assert_judged(&scene, "kept_connection_dies_and_the_next_one_too", 1);
    let attempts = |wanted: &str| {
        let exchanges = scene.worker().exchanges();
        exchanges
            .iter()
            .filter(|exchange| exchange.text() == "second" && exchange.header("x-delivery-attempt") == wanted)
            .count()
    };
    // Once more only after a kept connection; there is none at the second attempt.
    assert_eq!((attempts("1"), attempts("2"), attempts("3")), (2, 1, 1));
    scene.end().await;
}

#[tokio::test]
async fn closes_what_it_accepts() {
    for death in [Step::Close, Step::Reset] {
        let worker = RawWorker::start(Patience::None, move |_: &Exchange| vec![death.clone()]);
        let scene = RawScene::new(worker, |_| {}).await;
        scene.publish("m").await;
        scene.until_settled(1).await;
        assert_judged(&scene, "closes_what_it_accepts", 0);
        let attempts: Vec<u32> = scene.judged().iter().map(|(_, _, attempt)| *attempt).collect();
        assert_eq!(attempts, [1, 2, 3]);
        // The port is tried once before messages are taken, and once behind each failure.
        let connections = scene.worker().connections();
        assert!(
            connections <= 7,
            "{connections} connections for three attempts: {:#?}",
            scene.logs
        );
        assert_eq!(scene.dead_letters().await.len(), 1);
        scene.end().await;
    }
}

#[tokio::test]
async fn listens_and_never_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = RawScene::at(listener.local_addr().unwrap().port(), |_| {}).await;
    scene.publish("m").await;
    scene.until_settled(1).await;
    assert_judged(&scene, "listens_and_never_accepts", 0);
    let attempts: Vec<u32> = scene.judged().iter().map(|(_, _, attempt)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert_eq!(scene.dead_letters().await.len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn full_backlog() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    // There is room for one: the look that finds the port open takes it.
    let listener = socket.listen(0).unwrap();
    let scene = RawScene::at(listener.local_addr().unwrap().port(), |_| {}).await;
    scene.publish("m").await;
    until("the message is given back", PATIENCE, || async {
        scene.sidecar.handle.status().counts.released >= 1
    })
    .await;
    assert_judged(&scene, "full_backlog", 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let judged = scene.judged();
    assert!(
        judged.len() <= 2,
        "intake waits until the port answers: {judged:?}"
    );
    let answering = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream));
        }
    });
    scene.until_settled(1).await;
    let judged = scene.judged();
    assert!(
        judged.iter().all(|(_, _, attempt)| *attempt == 1),
        "no attempt was burnt: {judged:?}"
    );
    assert_eq!(scene.sidecar.handle.status().counts.accepted, 1);
    scene.end().await;
    answering.abort();
}

/// One answer to whatever comes.
async fn answer(mut stream: tokio::net::TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = [0; 4096];
    if stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn throttles_for_ever() {
    let worker = RawWorker::start(Patience::Whole, |_: &Exchange| {
        vec![Step::send(
            "HTTP/1.1 503 No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        )]
    });
    let scene = RawScene::new(worker, |_| {}).await;
    scene.publish("m").await;
    until("it has come ten times", PATIENCE, || async {
        scene.worker().exchanges().len() >= 10
    })
    .await;
    assert_judged(&scene, "throttles_for_ever", 0);
    for pair in scene.worker().exchanges().windows(2) {
        let waited = pair[1].at.duration_since(pair[0].at);
        assert!(
            waited >= Duration::from_millis(95),
            "it came again after {waited:?}"
        );
    }
    assert!(scene.judged().iter().all(|(_, _, attempt)| *attempt == 1));
    scene.sidecar.stop().await;
    for queue in [scene.queue.clone(), format!("{}.retry.100ms", scene.queue)] {
        scene.amqp.delete(&queue).await;
    }
}
