//! Connections that switch to another protocol.

use crate::streaming::to;
use crate::support::{FakeTargets, PATIENCE, Raw, Running};
use activator::Limits;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const HANDSHAKE: &str = "GET /default/orders/chat HTTP/1.1\nHost: a\nConnection: keep-alive, Upgrade\n\
                         Upgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\n";

/// Switches protocols when it is asked to, and then says everything back.
async fn switching_worker() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut worker = Raw(stream);
                let asked = worker.read_until("\r\n\r\n").await.to_lowercase();
                let is_upgrade =
                    asked.contains("upgrade: websocket") && asked.contains("connection: upgrade");
                if is_upgrade && asked.contains("sec-websocket-key: dghlihnhbxbszq==") {
                    let head = "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\
                                Sec-WebSocket-Accept: yes\n";
                    worker.send(head, b"").await;
                    let (mut read, mut write) = worker.0.split();
                    let _end = tokio::io::copy(&mut read, &mut write).await;
                } else {
                    worker
                        .send("HTTP/1.1 426 Upgrade Required\nContent-Length: 0\n", b"")
                        .await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_websocket_wakes_its_worker_and_talks_through() {
    let targets = FakeTargets::at_zero(&["orders"]);
    let running = Running::start(&targets, Limits::default()).await;
    let mut caller = running.connect().await;
    caller.send(HANDSHAKE, b"").await;
    targets.loaded("orders", 1).await;
    targets.endpoints("orders", &[switching_worker().await]);
    let said = caller.read_until("\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 101 Switching Protocols"), "{said}");
    let said = said.to_lowercase();
    for header in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: yes",
        "x-kubedaemon-cold-start",
    ] {
        assert!(said.contains(header), "{header} in {said}");
    }
    for n in 0..50 {
        let frame = format!("frame {n}.");
        caller.0.write_all(frame.as_bytes()).await.unwrap();
        assert_eq!(caller.read_until(".").await, frame);
    }
    assert_eq!(targets.loads("orders"), [1], "a conversation keeps its worker");
    drop(caller);
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn what_is_not_switched_is_an_ordinary_answer() {
    let (targets, running) = to(switching_worker().await).await;
    let mut caller = running.connect().await;
    caller
        .send(&HANDSHAKE.replace("Upgrade: websocket", "Upgrade: h2c"), b"")
        .await;
    assert!(caller.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 426"));
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn a_worker_that_switches_unasked_is_a_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (targets, running) = to(listener.local_addr().unwrap()).await;
    let mut caller = running.connect().await;
    caller.send("GET /default/orders HTTP/1.1\nHost: a\n", b"").await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut worker = Raw(stream);
    worker.read_until("\r\n\r\n").await;
    worker
        .send(
            "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n",
            b"",
        )
        .await;
    let said = caller.read_until("\"reason\"").await;
    assert!(said.starts_with("HTTP/1.1 502"), "{said}");
    targets.loaded("orders", 0).await;
}

#[tokio::test]
async fn a_forced_end_cuts_conversations() {
    let (targets, running) = to(switching_worker().await).await;
    let mut caller = running.connect().await;
    caller.send(HANDSHAKE, b"").await;
    caller.read_until("\r\n\r\n").await;
    targets.loaded("orders", 1).await;
    running.shutdown.force();
    assert_eq!(
        tokio::time::timeout(PATIENCE, caller.read_to_end())
            .await
            .unwrap(),
        ""
    );
    targets.loaded("orders", 0).await;
}
