//! What a worker cannot do: make the sidecar large.

use crate::support::{binary, until_ready};
use bytes::Bytes;
use lapin::BasicProperties;
use testkit::raw::{Exchange, Patience, RawWorker, Step};
use testkit::{say, unique};

const MEBIBYTE: usize = 1024 * 1024;
const MESSAGES: u64 = 64;

/// Lets a worker answer every message by `steps`, with 16 at once, and returns by how many KiB the sidecar grew at most
/// over what it needs for good answers, and how many bytes of each answer it took.
async fn growth(name: &str, bad: Vec<Step>) -> (u64, u64) {
    let worker = RawWorker::start(Patience::Whole, move |exchange: &Exchange| {
        match exchange.text().as_str() {
            "good" => vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")],
            _ => bad.clone(),
        }
    });
    let (queue, amqp) = (unique("orders"), testkit::broker().await.amqp().await);
    let target = format!("http://127.0.0.1:{}", worker.port());
    let sidecar = binary::start(
        &[
            "--queue",
            &queue,
            "--target",
            &target,
            "--admin",
            "127.0.0.1:0",
            "--concurrency",
            "16",
            "--max-attempts",
            "1",
        ],
        &[("KUBEDAEMON_BROKER", testkit::broker().await.url())],
    );
    binary::until_status(&sidecar, "it consumes", |status| status["state"] == "consuming").await;
    let settled = |status: &serde_json::Value| {
        let count = |fate: &str| status["messages"][fate].as_u64().unwrap();
        count("accepted") + count("dead_lettered")
    };
    let publish = async |body: &'static str| {
        let messages = (0..MESSAGES).map(|_| (body, BasicProperties::default()));
        amqp.publish_many(&queue, messages).await;
    };
    publish("good").await;
    binary::until_status(&sidecar, "good ones are settled", |status| {
        settled(status) == MESSAGES
    })
    .await;
    let (before, sent) = (sidecar.memory_kib("VmHWM").unwrap(), worker.sent());
    publish("bad").await;
    binary::until_status(&sidecar, "bad ones are settled", |status| {
        settled(status) == 2 * MESSAGES
    })
    .await;
    let grown = sidecar.memory_kib("VmHWM").unwrap() - before;
    let each = (worker.sent() - sent) / MESSAGES;
    say(&format!(
        "{name}: the sidecar grew by {grown} KiB, and took {each} bytes of each answer"
    ));
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.wait().await.code(), Some(0));
    until_ready(&amqp, &queue, 0).await;
    amqp.delete(&queue).await;
    amqp.delete(&format!("{queue}.dead")).await;
    (grown, each)
}

#[tokio::test]
async fn answers_are_read_up_to_a_bound() {
    let flood = |head: String| {
        vec![
            Step::send(head),
            Step::Flood(Bytes::from(vec![b'x'; MEBIBYTE / 4]), 400),
        ]
    };
    let bodies = flood(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        100 * MEBIBYTE
    ));
    let header = flood("HTTP/1.1 200 OK\r\nX-Long: ".to_owned());
    for (name, steps) in [("bodies of 100 MiB", bodies), ("headers of 100 MiB", header)] {
        let (grown, each) = growth(name, steps).await;
        // 16 at once: a body is read up to 1 MiB and kept up to 64 KiB, a head is held up to 400 KiB.
        assert!(grown < 24 * 1024, "{name}: {grown} KiB");
        // The rest of it waits in buffers of the kernel when the connection is given up.
        assert!(
            each < 12 * MEBIBYTE as u64,
            "{name}: {each} bytes of each answer were taken"
        );
    }
}
