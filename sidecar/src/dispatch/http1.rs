//! One connection to the worker: HTTP/1.1, one request after the other (RFC 9112).
//!
//! There is no task for it: whoever sends a request writes and reads, so that a message that is answered wakes one task and
//! not two. What is left of it between two requests is the socket and two buffers.

use super::network::Stream;
use super::response::{Bounds, Malformed, Progress, Reader};
use bytes::Bytes;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

/// A body that is not longer is copied behind its head, as that costs less than to gather two parts in the kernel.
const COPIED_BYTES: usize = 8 * 1024;
/// A buffer that grew beyond is not kept for the next request.
const KEPT_ROOM: usize = 32 * 1024;

/// One HTTP/1.1 connection, ready for a request.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    sending: Sending,
    reader: Reader,
    /// Whether it has carried a request before; then the worker may have closed it in the meantime.
    pub(super) is_reused: bool,
}

/// A request on its way.
#[derive(Default)]
struct Sending {
    head: Vec<u8>,
    body: Bytes,
    sent: usize,
    progress: Sent,
}

/// How much of a request has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sent {
    /// Some of it; more can.
    #[default]
    Partly,
    /// All of it.
    Wholly,
    /// The worker does not take the rest.
    Refused,
}

/// Why an exchange ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Not a byte of the request left.
    Unsent,
    /// The request may have been received; no byte of an answer came.
    BeforeAnswer,
    /// The answer broke off.
    MidAnswer,
    /// What came is not HTTP.
    NotHttp,
}

impl From<Malformed> for Broken {
    fn from(_malformed: Malformed) -> Self {
        Self::NotHttp
    }
}

impl Connection {
    pub(super) fn over(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            sending: Sending::default(),
            reader: Reader::default(),
            is_reused: false,
        }
    }

    /// Sends a request, whose head `write_head` appends, and reads the answer to it, which then is in the
    /// [`reader`](Self::reader). An answer may come before the request has left.
    pub(super) async fn exchange(
        &mut self,
        write_head: impl FnOnce(&mut Vec<u8>),
        body: &Bytes,
        bounds: Bounds,
    ) -> Result<(), Broken> {
        self.sending.begin(write_head, body);
        poll_fn(|context| self.poll_exchange(context, bounds)).await
    }

    fn poll_exchange(&mut self, context: &mut Context<'_>, bounds: Bounds) -> Poll<Result<(), Broken>> {
        let _everything_sent = self.sending.poll(&mut *self.stream, context);
        if self.sending.progress == Sent::Refused && self.sending.sent == 0 {
            return Poll::Ready(Err(Broken::Unsent));
        }
        // A worker that does not want to read more may have answered all the same.
        loop {
            let stream = Pin::new(&mut *self.stream);
            match ready!(tokio_util::io::poll_read_buf(
                stream,
                context,
                self.reader.space()
            )) {
                Ok(1..) => {}
                Ok(0) if self.reader.end()? => return Poll::Ready(Ok(())),
                Ok(0) | Err(_) if self.reader.is_untouched() => {
                    return Poll::Ready(Err(Broken::BeforeAnswer));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::MidAnswer)),
            }
            if self.reader.advance(bounds)? == Progress::Done {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Where the answer is after an [`exchange`](Self::exchange).
    pub(super) fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// How much of the last request has left.
    pub(super) fn sent(&self) -> Sent {
        self.sending.progress
    }

    /// Sends the rest of a request that was answered early. Cancel safe.
    pub(super) async fn send_rest(mut self: Box<Self>) {
        poll_fn(|context| self.sending.poll(&mut *self.stream, context)).await;
    }

    /// Whether the worker has neither closed it nor said something that nobody asked for, as far as is known without
    /// asking the kernel.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let stream = Pin::new(&mut *self.stream);
        tokio_util::io::poll_read_buf(stream, &mut context, self.reader.space()).is_pending()
    }
}

impl Sending {
    fn begin(&mut self, write_head: impl FnOnce(&mut Vec<u8>), body: &Bytes) {
        if self.head.capacity() > KEPT_ROOM {
            self.head = Vec::new();
        }
        self.head.clear();
        write_head(&mut self.head);
        self.body = if body.len() <= COPIED_BYTES {
            self.head.extend_from_slice(body);
            Bytes::new()
        } else {
            body.clone()
        };
        (self.sent, self.progress) = (0, Sent::Partly);
    }

    /// Writes as much as is taken; ready when all is, or when no more ever will be.
    fn poll(&mut self, stream: &mut dyn Stream, context: &mut Context<'_>) -> Poll<()> {
        while self.progress == Sent::Partly {
            match ready!(self.poll_write(stream, context)) {
                Ok(0) | Err(_) => self.progress = Sent::Refused,
                Ok(bytes) => self.sent += bytes,
            }
            if self.sent == self.head.len() + self.body.len() {
                self.progress = Sent::Wholly;
                self.body = Bytes::new();
            }
        }
        Poll::Ready(())
    }

    fn poll_write(&self, stream: &mut dyn Stream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        match self.head.get(self.sent..) {
            Some(head) if self.body.is_empty() => stream.poll_write(context, head),
            Some(head) => {
                stream.poll_write_vectored(context, &[IoSlice::new(head), IoSlice::new(&self.body)])
            }
            None => stream.poll_write(context, &self.body[self.sent - self.head.len()..]),
        }
    }
}

#[cfg(test)]
mod tests;
