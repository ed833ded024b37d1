//! Bodies on their way through: streamed frame by frame, never collected.

use crate::load::InFlight;
use crate::proxy::pool::Lease;
use crate::telemetry::Access;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// A request's body on its way to the worker.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    progress: Arc<Progress>,
}

/// How far a request's body has come, seen from outside of the connection that sends it.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<Upload>);

/// A snapshot of [`Progress`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upload {
    /// When the last byte went through.
    pub(crate) moved: Instant,
    /// Who has to act next.
    pub(crate) turn: Turn,
}

/// Who an upload waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The caller has bytes to send.
    Caller,
    /// The worker has bytes to take, or, when the body is at its end, to answer.
    Worker,
    /// The caller broke off: its connection or stream ended in the middle of the body.
    BrokenOff,
}

impl RequestBody {
    /// A body that has not moved yet.
    pub(crate) fn new(incoming: Option<Incoming>) -> Self {
        let upload = Upload {
            moved: Instant::now(),
            turn: Turn::Worker,
        };
        Self {
            incoming,
            progress: Arc::new(Progress(Mutex::new(upload))),
        }
    }

    /// A view of how far it has come.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// The body as it came, when nothing of it was sent.
    pub(crate) fn into_incoming(self) -> Option<Incoming> {
        self.incoming
    }
}

impl Progress {
    /// Where the upload stands.
    pub(crate) fn upload(&self) -> Upload {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, moved: bool, turn: Turn) {
        let mut upload = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        upload.turn = turn;
        if moved {
            upload.moved = Instant::now();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(incoming).poll_frame(cx);
        match &polled {
            Poll::Pending => self.progress.note(false, Turn::Caller),
            Poll::Ready(Some(Ok(_)) | None) => self.progress.note(true, Turn::Worker),
            Poll::Ready(Some(Err(_))) => self.progress.note(true, Turn::BrokenOff),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A response's body on its way to the caller.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Our own answer.
    Own {
        /// What is left of it.
        text: Full<Bytes>,
        /// Says the call's end; a tunnel says its own.
        _access: Option<Access>,
    },
    /// The worker's answer.
    Worker(Box<Streaming>),
}

/// A worker's body, with everything that must last as long as it does.
#[derive(Debug)]
pub(crate) struct Streaming {
    incoming: Incoming,
    lease: Lease,
    _in_flight: InFlight,
    _access: Access,
}

impl ResponseBody {
    /// Our own answer.
    pub(crate) fn own(text: impl Into<Bytes>, access: Option<Access>) -> Self {
        Self::Own {
            text: Full::new(text.into()),
            _access: access,
        }
    }

    /// The worker's answer. When it has ended, the connection it came on is free for the next call; when it is
    /// dropped before, the connection is closed, because the rest of the answer is still to come on it.
    pub(crate) fn worker(incoming: Incoming, lease: Lease, in_flight: InFlight, access: Access) -> Self {
        Self::Worker(Box::new(Streaming {
            incoming,
            lease,
            _in_flight: in_flight,
            _access: access,
        }))
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.lease.is_free_again();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own { text, .. } => Pin::new(text)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Worker(streaming) => {
                let polled = Pin::new(&mut streaming.incoming).poll_frame(cx);
                if matches!(polled, Poll::Ready(None)) {
                    streaming.lease.is_free_again();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { text, .. } => text.is_end_stream(),
            Self::Worker(streaming) => streaming.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => text.size_hint(),
            Self::Worker(streaming) => streaming.incoming.size_hint(),
        }
    }
}

/// Why a body was not collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uncollected {
    /// It is longer than the bound.
    TooLarge,
    /// The caller was silent for too long.
    TooSlow,
    /// The caller broke off.
    BrokenOff,
}

/// Reads a body of at most `limit` bytes, with at most `patience` between two frames. Trailers are dropped: AMQP has
/// no place for them.
///
/// # Errors
///
/// What went wrong; nothing of the body is kept.
pub(crate) async fn collect(
    body: &mut Option<Incoming>,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Uncollected> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    if body.size_hint().lower() > limit as u64 {
        return Err(Uncollected::TooLarge);
    }
    let mut frames: Vec<Bytes> = Vec::new();
    let mut length = 0;
    loop {
        let frame = match tokio::time::timeout(patience, body.frame()).await {
            Err(_elapsed) => return Err(Uncollected::TooSlow),
            Ok(None) => break,
            Ok(Some(Err(_broken))) => return Err(Uncollected::BrokenOff),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > limit {
            return Err(Uncollected::TooLarge);
        }
        frames.push(data);
    }
    Ok(match frames.len() {
        1 => frames.remove(0),
        _ => frames.concat().into(),
    })
}

/// Reads on for a moment and throws away what comes, so that a caller in the middle of sending reads the answer that
/// it is about to get. A connection that is closed over unread bytes is reset, and the answer is lost with it
/// (RFC 9112 §9.6).
pub(crate) async fn discard(mut body: Incoming) {
    const MOST_BYTES: usize = 2 << 20;
    const LONGEST: Duration = Duration::from_secs(1);
    if body.size_hint().lower() > MOST_BYTES as u64 {
        return;
    }
    let reading = async {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > MOST_BYTES {
                return;
            }
        }
    };
    // Whether it has come to its end or to its bound: the answer goes out now.
    let _done = tokio::time::timeout(LONGEST, reading).await;
}
