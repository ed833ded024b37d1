//! Connections to one target's endpoints: kept while idle, counted while in use.
//!
//! HTTP/1.1 connections of our own rather than hyper-util's client, because three things must be exact: a call that
//! was not sent comes back whole, a connection that the worker has closed is never used again, and the connection
//! that found the worker's socket open carries the first call.

use crate::proxy::body::RequestBody;
use crate::proxy::socket::Socket;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Idle connections kept to one endpoint. More than a worker usually answers at a time; the rest are closed.
const IDLE_PER_ENDPOINT: usize = 128;
/// Response headers of one answer, twice what hyper takes unless told.
const RESPONSE_HEADERS: usize = 200;
/// How long an endpoint that did not accept a connection is tried after the others.
const AVOIDED_FOR: Duration = Duration::from_secs(5);

/// One target's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    endpoints: Arc<Mutex<HashMap<SocketAddr, Endpoint>>>,
    /// Owns the tasks that drive the connections.
    tasks: TaskTracker,
    idle_timeout: Duration,
}

#[derive(Debug, Default)]
struct Endpoint {
    idle: Vec<Idle>,
    in_use: usize,
    /// When it last did not accept a connection, unless it has since.
    refused: Option<Instant>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    socket: Socket,
}

/// A connection in use by one call. Dropped, it is closed, unless it was said to be free again.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Connection>,
    endpoint: SocketAddr,
    pool: Pool,
}

impl Pool {
    /// No connections yet; `tasks` owns those that will be.
    pub(crate) fn new(idle_timeout: Duration, tasks: TaskTracker) -> Self {
        Self {
            endpoints: Arc::default(),
            tasks,
            idle_timeout,
        }
    }

    /// The endpoints in the order in which to try them: those that accept, then those with the fewest calls.
    /// `turn` decides between equals.
    pub(crate) fn ordered(&self, endpoints: &[SocketAddr], turn: usize) -> Vec<SocketAddr> {
        let mut ordered = endpoints.to_vec();
        if ordered.len() > 1 {
            let now = Instant::now();
            let known = self.lock();
            ordered.rotate_left(turn % endpoints.len());
            ordered.sort_by_key(|endpoint| {
                known.get(endpoint).map_or((false, 0), |known| {
                    let is_avoided = known.refused.is_some_and(|refused| now - refused < AVOIDED_FOR);
                    (is_avoided, known.in_use)
                })
            });
        }
        ordered
    }

    /// An idle connection to `endpoint` that can be used at once, the one used last.
    pub(crate) fn idle(&self, endpoint: SocketAddr) -> Option<Lease> {
        let mut endpoints = self.lock();
        let known = endpoints.get_mut(&endpoint)?;
        while let Some(Idle { connection, since }) = known.idle.pop() {
            let is_usable = connection.sender.is_ready()
                && since.elapsed() < self.idle_timeout
                && !connection.socket.is_spent();
            if is_usable {
                known.in_use += 1;
                return Some(Lease {
                    connection: Some(connection),
                    endpoint,
                    pool: self.clone(),
                });
            }
        }
        None
    }

    /// A new connection to `endpoint`.
    ///
    /// # Errors
    ///
    /// The operating system's, `TimedOut` after `patience`.
    pub(crate) async fn connect(&self, endpoint: SocketAddr, patience: Duration) -> io::Result<Lease> {
        let connecting = tokio::time::timeout(patience, Socket::connect(endpoint)).await;
        let connected = connecting.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        self.lock().entry(endpoint).or_default().refused = connected.is_err().then(Instant::now);
        let socket = connected?;
        let (sender, driver) = Builder::new()
            .max_headers(RESPONSE_HEADERS)
            .handshake(TokioIo::new(socket.clone()))
            .await
            .map_err(io::Error::other)?;
        // Ends when the sender is dropped or the worker hangs up; what went wrong on it is the call's to tell.
        self.tasks
            .spawn(async move { drop(driver.with_upgrades().await) });
        self.lock().entry(endpoint).or_default().in_use += 1;
        Ok(Lease {
            connection: Some(Connection { sender, socket }),
            endpoint,
            pool: self.clone(),
        })
    }

    /// Closes connections that lie idle for too long, and all idle ones to endpoints that are none any more, so that
    /// a worker that is told to stop is not kept by them.
    pub(crate) fn sweep(&self, endpoints: &[SocketAddr]) {
        self.lock().retain(|endpoint, known| {
            let is_listed = endpoints.contains(endpoint);
            known.idle.retain(|idle| {
                is_listed && idle.since.elapsed() < self.idle_timeout && !idle.connection.sender.is_closed()
            });
            is_listed || known.in_use > 0
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Endpoint>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Where the connection leads.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// The connection's sending side.
    pub(crate) fn sender(&mut self) -> Option<&mut SendRequest<RequestBody>> {
        self.connection.as_mut().map(|connection| &mut connection.sender)
    }

    /// The answer has ended: the connection may carry another call. Nothing happens the second time.
    pub(crate) fn is_free_again(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if connection.sender.is_closed() {
            return;
        }
        let mut endpoints = self.pool.lock();
        let known = endpoints.entry(self.endpoint).or_default();
        if known.idle.len() < IDLE_PER_ENDPOINT {
            known.idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(known) = self.pool.lock().get_mut(&self.endpoint) {
            known.in_use = known.in_use.saturating_sub(1);
        }
    }
}
