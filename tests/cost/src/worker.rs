//! A worker in memory that accepts everything. It answers when its task has its turn, as one in another process would:
//! no connection is read right after it was written.

use crate::broker::LAST_BYTE;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sidecar::dispatch;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

/// What a server on hyper says.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: Sat, 21 Nov 2026 10:00:00 GMT\r\n\r\n";
/// More connections than there are ever at once.
const CONNECTIONS: usize = 1024;

/// What the sidecar is given for a network.
#[derive(Debug)]
pub(crate) struct Network {
    asked: mpsc::Sender<Arc<Wire>>,
    counters: Arc<Counters>,
}

/// What came to the worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Whole requests.
    pub(crate) posts: u32,
    /// Writes that the kernel would have been called for.
    pub(crate) writes: u32,
    /// Reads that brought something.
    pub(crate) reads: u32,
}

#[derive(Debug, Default)]
struct Counters {
    posts: AtomicU32,
    writes: AtomicU32,
    reads: AtomicU32,
}

#[derive(Debug, Default)]
struct Wire(Mutex<End>);

#[derive(Debug, Default)]
struct End {
    has_answer: bool,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Stream {
    wire: Arc<Wire>,
    asked: mpsc::Sender<Arc<Wire>>,
    counters: Arc<Counters>,
}

impl Network {
    pub(crate) fn start() -> Self {
        let (asked, mut requests) = mpsc::channel::<Arc<Wire>>(CONNECTIONS);
        // Ends with the last connection.
        tokio::spawn(async move {
            while let Some(wire) = requests.recv().await {
                wire.answer();
            }
        });
        Self {
            asked,
            counters: Arc::default(),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen {
            posts: self.counters.posts.load(Relaxed),
            writes: self.counters.writes.load(Relaxed),
            reads: self.counters.reads.load(Relaxed),
        }
    }
}

impl dispatch::Network for Network {
    fn connect<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, io::Result<Box<dyn dispatch::Stream>>> {
        let stream: Box<dyn dispatch::Stream> = Box::new(Stream {
            wire: Arc::default(),
            asked: self.asked.clone(),
            counters: Arc::clone(&self.counters),
        });
        std::future::ready(Ok(stream)).boxed()
    }
}

impl Wire {
    fn answer(&self) {
        let reader = {
            let mut end = self.0.lock().expect("invariant: no holder panics");
            end.has_answer = true;
            end.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Stream {
    fn written(&self, last: Option<u8>) {
        self.counters.writes.fetch_add(1, Relaxed);
        if last == Some(LAST_BYTE) {
            self.counters.posts.fetch_add(1, Relaxed);
            let is_heard = self.asked.try_send(Arc::clone(&self.wire)).is_ok();
            assert!(is_heard, "the worker has no room");
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut end = self.wire.0.lock().expect("invariant: no holder panics");
        if !std::mem::take(&mut end.has_answer) {
            end.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.counters.reads.fetch_add(1, Relaxed);
        buffer.put_slice(ANSWER);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written(bytes.last().copied());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let last = slices.iter().rev().find_map(|slice| slice.last());
        self.written(last.copied());
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
