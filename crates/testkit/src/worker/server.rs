//! The server behind a test worker.

use super::answer::Ending;
use super::{Answer, Received, Shared};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A listener and its connections on a thread of their own, so that neither a busy test nor a paused clock is in
/// their way. Dropping it closes everything at once and waits for that.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(address: SocketAddr, shared: Arc<Shared>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("test-worker".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener).expect("a listening socket is one");
                    // Both branches may be dropped at any point: that is what a crash is.
                    tokio::select! {
                        () = accept(&listener, &shared) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .expect("a script that panics is a mistake in the test");
        }
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _peer) = accepted.expect("the listener accepts");
                let number = {
                    let mut record = shared.record();
                    record.connections += 1;
                    record.connections
                };
                connections.spawn(serve(stream, number, Arc::clone(shared)));
            }
            Some(served) = connections.join_next() => {
                served.expect("a script that panics is a mistake in the test");
            }
        }
    }
}

async fn serve(stream: TcpStream, connection: u32, shared: Arc<Shared>) {
    // Answers are small: without this a delayed acknowledgement of the peer may hold one back for 40 ms.
    let _best_effort = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let stream = Resettable {
        stream,
        reset: Arc::clone(&reset),
    };
    let service =
        service_fn(move |request| answer(request, connection, Arc::clone(&shared), Arc::clone(&reset)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // It ends by an error whenever the script or the peer cuts it.
    let _ended = served.await;
}

/// Counts a request as in flight until it is answered or its connection ends.
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut record = self.0.record();
        record.in_flight = record.in_flight.saturating_sub(1);
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: u32,
    shared: Arc<Shared>,
    reset: Arc<AtomicBool>,
) -> Result<Response<Script>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let received = {
        let mut record = shared.record();
        let number = u32::try_from(record.requests.len() + 1).expect("a test has fewer requests");
        let path = head
            .uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
            .to_owned();
        let (method, headers, at) = (head.method, head.headers, Instant::now());
        let received = Received {
            number,
            connection,
            method,
            path,
            headers,
            body,
            at,
        };
        record.requests.push(received.clone());
        record.in_flight += 1;
        record.most_in_flight = record.most_in_flight.max(record.in_flight);
        received
    };
    let _in_flight = InFlight(Arc::clone(&shared));

    let answer: Answer = (shared.script)(&received);
    if let Some(delay) = answer.after {
        sleep(delay).await;
    }
    if let Some(gate) = &answer.gate {
        gate.opened().await;
    }
    match answer.ending {
        Ending::Never => std::future::pending().await,
        Ending::Reset => {
            reset.store(true, Ordering::Relaxed);
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        // No reset here: it could overtake the head, and then it would be no answer at all.
        Ending::CutShort | Ending::Whole => {}
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let cut_short = answer.ending == Ending::CutShort;
    response
        .body(Script {
            data: Some(answer.body),
            cut_short,
            flushed: false,
        })
        .map_err(io::Error::other)
}

/// The body of an answer; one that is cut short announces a byte more than it has.
struct Script {
    data: Option<Bytes>,
    cut_short: bool,
    flushed: bool,
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            // What there is must be on its way before the end: hyper flushes while a body makes it wait.
            None if self.cut_short && !self.flushed => {
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None if self.cut_short => Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.cut_short && self.data.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.data.as_ref().map_or(0, Bytes::len) as u64;
        SizeHint::with_exact(length + u64::from(self.cut_short))
    }
}

/// A socket that closes by a reset (RST) instead of an orderly end (FIN) once `reset` is set.
struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // A peer that is gone already cannot be told.
            let _best_effort = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
