//! Callers' connections: HTTP/1 and HTTP/2 with prior knowledge, each bounded in time and memory.

use crate::config::Limits;
use crate::domain::route::Routing;
use crate::pipeline::Pipeline;
use crate::proxy::socket::Socket;
use crate::telemetry;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How much of a request is read ahead while nobody takes it, bytes: hyper's buffer under HTTP/1, the stream's
/// window under HTTP/2. Also the longest request head.
pub(crate) const READ_AHEAD: u32 = 64 << 10;
/// Calls at a time on one HTTP/2 connection; nginx's number.
const STREAMS: u32 = 128;
/// How long to wait after an accept that failed for lack of file descriptors; calls that end free some.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long a connection without a request is kept when the drain begins: its request may be on the way.
const FIRST_REQUEST_IN_DRAIN: Duration = Duration::from_secs(1);

/// Who is at the other end of a caller's connection, and whom the calls on it can be for.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) socket: Socket,
    /// That of the listener on which the connection came.
    pub(crate) routing: Arc<Routing>,
}

/// Accepts connections and answers what comes on them.
#[derive(Debug)]
pub(crate) struct Server {
    pipeline: Arc<Pipeline>,
    http: Builder<TokioExecutor>,
    header_timeout: Duration,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    /// Cancelled when connections are to end after the answer that they are at.
    draining: CancellationToken,
    /// Cancelled when what is still open must end.
    cut: CancellationToken,
    cut_off: Arc<AtomicUsize>,
}

impl Server {
    /// A server that puts every request through `pipeline`.
    pub(crate) fn new(pipeline: Arc<Pipeline>, limits: &Limits, cut: CancellationToken) -> Self {
        Self {
            pipeline,
            http: http(limits),
            header_timeout: limits.header_timeout,
            places: Arc::new(Semaphore::new(limits.connections)),
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
            cut,
            cut_off: Arc::default(),
        }
    }

    /// Accepts connections until `stop`, and then those that had already been made; `routing` is whom their calls can
    /// be for. Several listeners may be accepted from at the same time.
    pub(crate) async fn accept(
        &self,
        listener: TcpListener,
        routing: Arc<Routing>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = pin!(stop);
        let mut has_failed = false;
        loop {
            // Cancel safe: a connection that is not accepted stays queued.
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_the_callers(&error) => continue,
                Err(error) => {
                    if !std::mem::replace(&mut has_failed, true) {
                        telemetry::accept_failed(&error);
                    }
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            if std::mem::take(&mut has_failed) {
                telemetry::accept_recovered();
            }
            // At the end places become free only after accepting has stopped, so this connection does without one.
            let place = tokio::select! {
                biased;
                place = Arc::clone(&self.places).acquire_owned() => place.ok(),
                () = &mut stop => None,
            };
            let stopped = place.is_none();
            self.serve(stream, address.ip(), Arc::clone(&routing), place);
            if stopped {
                break;
            }
        }
        // Callers whose handshake the kernel has completed for us believe that they are connected.
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
            && let Some(Ok((stream, address))) = now_or_never(listener.accept()).await
        {
            self.serve(stream, address.ip(), Arc::clone(&routing), Some(place));
        }
    }

    /// Lets every connection end after the answer that it is at, and waits for that. Cancel safe.
    pub(crate) async fn drain(&self) {
        self.draining.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    /// How many connections had to be cut.
    pub(crate) fn cut_off(&self) -> usize {
        self.cut_off.load(Ordering::Relaxed)
    }

    fn serve(
        &self,
        stream: TcpStream,
        address: IpAddr,
        routing: Arc<Routing>,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let peer = Arc::new(Peer {
            address,
            socket: Socket::new(stream),
            routing,
        });
        let connection = Connection {
            pipeline: Arc::clone(&self.pipeline),
            http: self.http.clone(),
            peer,
            first_request: self.header_timeout,
            draining: self.draining.clone(),
            cut: self.cut.clone(),
            cut_off: Arc::clone(&self.cut_off),
        };
        self.connections.spawn(async move {
            connection.run().await;
            drop(place);
        });
    }
}

struct Connection {
    pipeline: Arc<Pipeline>,
    http: Builder<TokioExecutor>,
    peer: Arc<Peer>,
    first_request: Duration,
    draining: CancellationToken,
    cut: CancellationToken,
    cut_off: Arc<AtomicUsize>,
}

impl Connection {
    async fn run(self) {
        let (asked, has_asked) = watch::channel(false);
        let service = service_fn({
            let (pipeline, peer) = (self.pipeline, Arc::clone(&self.peer));
            move |request| {
                asked.send_if_modified(|asked| !std::mem::replace(asked, true));
                let (pipeline, peer) = (Arc::clone(&pipeline), Arc::clone(&peer));
                async move { Ok::<_, Infallible>(pipeline.serve(request, &peer).await) }
            }
        });
        let io = TokioIo::new(self.peer.socket.clone());
        let mut connection = pin!(self.http.serve_connection_with_upgrades(io, service));
        // hyper bounds the time for a head only once it knows the version, which takes a first byte.
        let mut patience = pin!(first_request(has_asked.clone(), self.first_request));
        let mut ending = pin!(async {
            self.draining.cancelled().await;
            first_request(has_asked.clone(), FIRST_REQUEST_IN_DRAIN).await;
        });
        let (mut is_new, mut is_ending) = (true, false);
        loop {
            // The connection goes on in the next round; dropping it, when another branch ends this, closes it.
            tokio::select! {
                // How a caller's connection ends is the caller's affair; its calls have been accounted for.
                _ended = &mut connection => return,
                () = self.cut.cancelled() => {
                    self.cut_off.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                () = &mut patience, if is_new => {
                    if !*has_asked.borrow() {
                        return;
                    }
                    is_new = false;
                }
                () = &mut ending, if !is_ending => {
                    connection.as_mut().graceful_shutdown();
                    is_ending = true;
                }
            }
        }
    }
}

/// Waits for a connection's first request, at most for `patience`.
async fn first_request(mut has_asked: watch::Receiver<bool>, patience: Duration) {
    // Asked, given up or the connection ended: the caller looks.
    let _which = tokio::time::timeout(patience, has_asked.wait_for(|asked| *asked)).await;
}

fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(READ_AHEAD as usize);
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(READ_AHEAD)
        .initial_connection_window_size(16 * READ_AHEAD)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(READ_AHEAD)
        .max_send_buf_size(READ_AHEAD as usize)
        .keep_alive_interval(limits.header_timeout);
    http
}

/// Whether an accept failed because of the one connection that was to be accepted (accept(2)).
fn is_the_callers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Polls once.
async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
