//! The stream that lapin reads: above TLS, and with what lapin cannot read made legible.

use super::heard::{Counted, Listening};
use crate::legible::{Count, Passage};
use crate::version::Server;
use async_rs::Tokio;
use async_rs::traits::Reactor;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::tcp::AsyncTcpStream;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A socket, with TLS or without.
type Socket = AsyncTcpStream<Counted<<Tokio as Reactor>::TcpStream>>;

/// A stream of frames that are legible.
#[derive(Debug)]
pub(super) struct Legible<S> {
    stream: S,
    passage: Passage,
    listener: Listener,
}

/// Who hears what came.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    /// Told what was mended.
    pub(super) mended: watch::Sender<Count>,
    /// Told what the broker is.
    pub(super) server: Arc<OnceLock<Server>>,
}

impl<S> Legible<S> {
    pub(super) fn new(stream: S, listener: Listener) -> Self {
        Self {
            stream,
            passage: Passage::default(),
            listener,
        }
    }

    /// Seldom has anything to say.
    fn tell(&mut self) {
        let count = self.passage.count();
        if *self.listener.mended.borrow() != count {
            self.listener.mended.send_replace(count);
        }
        if let Some(server) = self.passage.take_server() {
            // A second `connection.start` would be a fault of the broker; the first one holds.
            let _first = self.listener.server.set(server).is_ok();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Legible<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let handed = this.passage.hand_out(buffer);
            if handed > 0 {
                return Poll::Ready(Ok(handed));
            }
            let Some(room) = this.passage.room() else {
                let read = ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
                let passed = this.passage.pass(&mut buffer[..read]).map_err(io::Error::other)?;
                this.tell();
                if passed > 0 || read == 0 {
                    return Poll::Ready(Ok(passed));
                }
                continue;
            };
            match ready!(Pin::new(&mut this.stream).poll_read(context, room))? {
                0 => this.passage.end(),
                read => this.passage.fill(read).map_err(io::Error::other)?,
            }
            this.tell();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Legible<S> {
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

/// Opens such streams. lapin names the kind of its stream by what opens it, and takes none that it cannot open itself.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) listening: Listening,
    pub(super) listener: Listener,
}

impl Reactor for Reading {
    type TcpStream = Legible<Socket>;
    type Sleep = <Listening as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.listening.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.listening.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.listening.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.listening.tcp_connect_addr(address);
        let listener = self.listener.clone();
        async move { Ok(Legible::new(AsyncTcpStream::Plain(connecting.await?), listener)) }
    }
}
