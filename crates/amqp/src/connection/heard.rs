//! Whether anything comes from the broker at all, counted in bytes below TLS and below AMQP.
//!
//! lapin watches heartbeats itself, among everything else that it does. Half-open connections have slipped through such
//! watches of client libraries more than once, so this one knows nothing but bytes and time.

use async_rs::Tokio;
use async_rs::traits::Reactor;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How often is looked: a quarter of a heartbeat. RabbitMQ sends one every half.
const LOOKS_A_HEARTBEAT: u32 = 4;
/// So many looks without a byte are the end: 1.5 heartbeats, in which three came to nothing. With what may pass until the
/// first look that is 1.75 at the most, less than the two after which lapin would notice. Looks are counted and not time,
/// so that a process that was suspended does not find its connections dead when it goes on.
const SILENT_LOOKS: u32 = 6;

/// Bytes that came on one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Waits until nothing came for almost two heartbeats of this many seconds, and returns how long that was; for ever
    /// without heartbeats, where silence says nothing. Cancel safe.
    pub(super) async fn until_silent(&self, heartbeat_seconds: u16) -> Duration {
        if heartbeat_seconds == 0 {
            return std::future::pending().await;
        }
        let pause = Duration::from_secs(heartbeat_seconds.into()) / LOOKS_A_HEARTBEAT;
        let mut silence = Silence::default();
        while !silence.look(self.0.load(Relaxed)) {
            tokio::time::sleep(pause).await;
        }
        pause * SILENT_LOOKS
    }
}

/// What the looks have shown.
#[derive(Debug, Default)]
struct Silence {
    bytes: u64,
    looks: u32,
}

impl Silence {
    /// Takes in one more look; whether it was the last that was waited for.
    fn look(&mut self, bytes: u64) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.looks = if before == bytes { self.looks + 1 } else { 0 };
        self.looks >= SILENT_LOOKS
    }
}

/// Opens sockets that count what comes.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    pub(super) tokio: Tokio,
    pub(super) heard: Heard,
}

/// A socket that counts what comes.
#[derive(Debug)]
pub(super) struct Counted<S> {
    pub(super) stream: S,
    heard: Heard,
}

impl Reactor for Listening {
    type TcpStream = Counted<<Tokio as Reactor>::TcpStream>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.tokio.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.tokio.tcp_connect_addr(address);
        let heard = self.heard.clone();
        async move {
            let stream = connecting.await?;
            Ok(Counted { stream, heard })
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(bytes)) = read {
            self.heard.0.fetch_add(bytes as u64, Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_before_two_heartbeats_and_any_byte_begins_anew() {
        let (heard, begun) = (Heard::default(), tokio::time::Instant::now());
        heard.0.fetch_add(8, Relaxed);
        let waited = heard.until_silent(10).await;
        assert_eq!(waited, Duration::from_secs(15));
        assert!(begun.elapsed() >= Duration::from_secs(15) && begun.elapsed() < Duration::from_secs(18));

        let begun = tokio::time::Instant::now();
        let speaking = async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(5)).await;
                heard.0.fetch_add(8, Relaxed);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            waited = heard.until_silent(10) => assert_eq!(waited, Duration::from_secs(15)),
            () = speaking => {}
        }
        let after = begun.elapsed().saturating_sub(Duration::from_secs(500));
        assert!(
            after >= Duration::from_secs(15) && after < Duration::from_secs(18),
            "{after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_heartbeats_silence_says_nothing() {
        let heard = Heard::default();
        let day = Duration::from_hours(24);
        assert!(tokio::time::timeout(day, heard.until_silent(0)).await.is_err());
    }

    proptest! {
        #[test]
        fn only_looks_without_a_byte_in_a_row_count(bytes in prop::collection::vec(0_u64..3, 0..200)) {
            let (mut silence, mut total, mut in_a_row) = (Silence::default(), 0, 0);
            for more in bytes {
                total += more;
                in_a_row = if more == 0 { in_a_row + 1 } else { 0 };
                prop_assert_eq!(silence.look(total), in_a_row >= SILENT_LOOKS);
            }
        }
    }
}
