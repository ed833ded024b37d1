//! A relay between a runner and the broker that notices the first `basic.ack`, so that "the first message is settled"
//! is seen where it counts and not where a runner claims it.

use anyhow::Context;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A running relay; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    first_ack: watch::Receiver<Option<Instant>>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Relays a port of its own to `broker`, a port of this machine.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(broker: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no port for the relay")?;
        let port = listener.local_addr()?.port();
        let (sender, first_ack) = watch::channel(None);
        let accepting = tokio::spawn(async move {
            while let Ok((runner, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).await else {
                    continue;
                };
                let _set = (
                    runner.set_nodelay(true).is_ok(),
                    upstream.set_nodelay(true).is_ok(),
                );
                let (runner_read, runner_write) = runner.into_split();
                let (broker_read, broker_write) = upstream.into_split();
                // They end with their connections.
                tokio::spawn(copy(runner_read, broker_write, Some(sender.clone())));
                tokio::spawn(copy(broker_read, runner_write, None));
            }
        });
        Ok(Self {
            port,
            first_ack,
            accepting,
        })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the first acknowledgement and says when it passed. Cancel safe.
    ///
    /// # Errors
    /// When the relay has ended.
    pub async fn first_ack(&mut self) -> anyhow::Result<Instant> {
        let acked = self.first_ack.wait_for(Option::is_some).await?;
        acked.context("waited for")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    first_ack: Option<watch::Sender<Option<Instant>>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut acks = Acks::default();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..read];
        if to.write_all(bytes).await.is_err() {
            return;
        }
        if let Some(first_ack) = &first_ack
            && acks.in_bytes(bytes) > 0
            && first_ack.borrow().is_none()
        {
            first_ack.send_replace(Some(Instant::now()));
        }
    }
}

/// Counts `basic.ack` in what a client sends: the protocol header of 8 bytes, then frames of type (1 byte), channel
/// (2), size (4), payload, end (1); the payload of a method frame (type 1) begins with class and method (2 each).
///
/// Source: AMQP 0-9-1, section 4.2.
#[derive(Debug, Default)]
struct Acks {
    header_bytes: usize,
    head: Vec<u8>,
    /// What is left of the frame after its head.
    left: usize,
}

const PROTOCOL_HEADER_BYTES: usize = 8;
/// Up to class and method. Frames with a shorter payload (heartbeats) are complete at this length or before.
const HEAD_BYTES: usize = 11;
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];

impl Acks {
    fn in_bytes(&mut self, bytes: &[u8]) -> usize {
        let mut found = 0;
        let mut rest = bytes;
        let skipped = (PROTOCOL_HEADER_BYTES - self.header_bytes).min(rest.len());
        self.header_bytes += skipped;
        rest = &rest[skipped..];
        while !rest.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(rest.len());
                self.left -= skipped;
                rest = &rest[skipped..];
                continue;
            }
            self.head.push(rest[0]);
            rest = &rest[1..];
            let Some(size) = self.head.get(3..7) else { continue };
            let size = size.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
            let frame = 7 + size + 1;
            if self.head.len() < HEAD_BYTES.min(frame) {
                continue;
            }
            if self.head[0] == 1 && self.head.get(7..HEAD_BYTES) == Some(&BASIC_ACK) {
                found += 1;
            }
            self.left = frame - self.head.len();
            self.head.clear();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::Acks;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 1];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame.push(0xce);
        frame
    }

    fn conversation() -> Vec<u8> {
        let ack = [0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let frames = [
            frame(1, &[0, 10, 0, 11, 1, 2, 3]),
            frame(8, &[]),
            frame(1, &ack),
            // Looks like one, in a body.
            frame(3, &ack),
            frame(1, &[0, 60, 0, 20, 5]),
            frame(1, &ack),
        ];
        [b"AMQP\x00\x00\x09\x01".to_vec(), frames.concat()].concat()
    }

    #[test]
    fn acks_are_counted_however_the_bytes_are_split() {
        let bytes = conversation();
        assert_eq!(Acks::default().in_bytes(&bytes), 2);
        for size in 1..bytes.len() {
            let mut acks = Acks::default();
            let found: usize = bytes.chunks(size).map(|chunk| acks.in_bytes(chunk)).sum();
            assert_eq!(found, 2, "in pieces of {size}");
        }
    }
}
