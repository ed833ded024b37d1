//! Tests of the proxy, with a broker that echoes.

use super::{Fault, Harm, Toxic, Way, method};
use crate::wait::{PATIENCE, until};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Echoes everything but the eight bytes with which AMQP begins.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut begin = [0; 8];
                stream.read_exact(&mut begin).await.unwrap();
                let (mut reads, mut writes) = stream.split();
                // It ends when the proxy does.
                let _ended = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    port
}

async fn client(toxic: &Toxic) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", toxic.port())).await.unwrap();
    client.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    client
}

/// Sends a frame and returns what comes back of it.
async fn ask(client: &mut TcpStream) -> (Vec<u8>, std::io::Result<usize>) {
    let frame = method(1, 60, 60, b"hello");
    client.write_all(&frame).await.unwrap();
    let mut answer = vec![0; frame.len()];
    let read = client.read_exact(&mut answer).await;
    (answer, read)
}

#[tokio::test]
async fn passes_everything_and_counts() {
    let toxic = Toxic::before(echo().await, 1);
    let mut client = client(&toxic).await;
    let frame = method(1, 60, 60, b"hello");
    assert_eq!(ask(&mut client).await.0, frame);
    assert_eq!(
        (toxic.connections().len(), toxic.open(), toxic.harmed()),
        (1, 1, 0)
    );
    assert_eq!(toxic.bytes(), [frame.len() as u64; 2]);
    drop(client);
    until("it has ended", PATIENCE, || async { toxic.open() == 0 }).await;
}

#[tokio::test]
async fn delays_and_splits_and_still_passes_everything() {
    let toxic = Toxic::before(echo().await, 1);
    let mut client = client(&toxic).await;
    for fault in [Fault::OneByteWrites, Fault::Resplit, Fault::Bandwidth(2000)] {
        toxic.set(fault);
        assert_eq!(ask(&mut client).await.0, method(1, 60, 60, b"hello"));
    }
    toxic.set(Fault::Latency(Duration::from_millis(50), Duration::ZERO));
    let begun = Instant::now();
    assert_eq!(ask(&mut client).await.0, method(1, 60, 60, b"hello"));
    assert!(begun.elapsed() >= Duration::from_millis(100), "both ways");
}

#[tokio::test]
async fn harms_one_frame_of_a_kind() {
    let toxic = Toxic::before(echo().await, 1);
    let mut client = client(&toxic).await;
    toxic.set(Fault::Harm(60, 60, Harm::WrongEnd));
    let harmed = ask(&mut client).await.0;
    assert_eq!(harmed.last(), Some(&0));
    assert_eq!(ask(&mut client).await.0, method(1, 60, 60, b"hello"), "once");
    toxic.set(Fault::Harm(60, 60, Harm::EndInside));
    ask(&mut client).await.1.unwrap_err();
    assert_eq!(toxic.harmed(), 2);
}

#[tokio::test]
async fn a_black_hole_swallows_for_ever_and_a_reset_is_an_error() {
    let toxic = Toxic::before(echo().await, 1);
    let (mut swallowed, mut reset) = (client(&toxic).await, client(&toxic).await);
    ask(&mut reset).await.1.unwrap();
    toxic.set(Fault::BlackHole(&[Way::Up]));
    let silent = timeout(Duration::from_millis(100), ask(&mut swallowed)).await;
    assert!(silent.is_err());
    toxic.heal();
    let silent = timeout(Duration::from_millis(100), ask(&mut swallowed)).await;
    assert!(silent.is_err(), "what is broken stays broken");
    toxic.set(Fault::Reset);
    let error = reset.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
