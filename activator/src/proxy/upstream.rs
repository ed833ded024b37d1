//! From a target's endpoints to a connection, now or as soon as a socket accepts one.
//!
//! An endpoint that is listed need not accept yet, and when it starts to, nobody announces it. So the socket itself
//! is asked, every few milliseconds, by one of the waiting calls for all of them: the *prober*. Its connection
//! carries its own call; at the same moment the gate opens and the other calls connect for themselves. When the
//! prober's caller goes away, another waiting call takes its place.

use crate::proxy::pool::{Lease, Pool};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// How often the prober asks a socket that does not accept yet. Refused connections on loopback and within a
/// cluster cost some twenty microseconds.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(4);

/// How long a connection may take that a call tries for before it counts as waiting. Ordinary ones take a hundredth.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The way to one target's endpoints.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) pool: Pool,
    connect_timeout: Duration,
    /// Whether the last connection that was tried was accepted.
    gate: watch::Sender<bool>,
    prober: Semaphore,
    turn: AtomicUsize,
}

/// One call's wait for a connection. Dropping it gives up, and lets another call probe.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    upstream: &'a Upstream,
    gate: watch::Receiver<bool>,
    prober: Option<SemaphorePermit<'a>>,
    failure: Option<Failure>,
}

/// Why an endpoint could not be connected to.
#[derive(Debug)]
pub(crate) struct Failure {
    endpoint: SocketAddr,
    error: io::Error,
}

impl Upstream {
    /// A way that nobody has gone yet.
    pub(crate) fn new(pool: Pool, connect_timeout: Duration) -> Self {
        Self {
            pool,
            connect_timeout,
            gate: watch::Sender::new(false),
            prober: Semaphore::new(1),
            turn: AtomicUsize::new(0),
        }
    }

    /// A connection for a call that has just come: an idle one, or a new one unless another call is finding out
    /// whether the endpoints accept. `None` when the call has to wait.
    pub(crate) async fn at_once(&self, endpoints: &[SocketAddr]) -> Option<Lease> {
        let prober = self.prober.try_acquire();
        let may_connect = *self.gate.borrow() || prober.is_ok();
        let patience = self.connect_timeout.min(AT_ONCE);
        self.connect(endpoints, may_connect, patience).await.ok()
    }

    /// Begins to wait.
    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait {
            upstream: self,
            gate: self.gate.subscribe(),
            prober: None,
            failure: None,
        }
    }

    /// Tries each endpoint once, an idle connection before a new one; the gate then tells the others how that went.
    async fn connect(
        &self,
        endpoints: &[SocketAddr],
        may_connect: bool,
        patience: Duration,
    ) -> Result<Lease, Option<Failure>> {
        let mut failure = None;
        for endpoint in self
            .pool
            .ordered(endpoints, self.turn.fetch_add(1, Ordering::Relaxed))
        {
            if let Some(lease) = self.pool.idle(endpoint) {
                return Ok(lease);
            }
            if !may_connect {
                continue;
            }
            match self.pool.connect(endpoint, patience).await {
                Ok(lease) => {
                    self.open_gate(true);
                    return Ok(lease);
                }
                Err(error) => failure = Some(Failure { endpoint, error }),
            }
        }
        if failure.is_some() {
            self.open_gate(false);
        }
        Err(failure)
    }

    fn open_gate(&self, open: bool) {
        self.gate
            .send_if_modified(|is_open| std::mem::replace(is_open, open) != open);
    }
}

impl Wait<'_> {
    /// Tries once to get a connection, if this call is the prober or the prober has found a socket open; if that
    /// brought none, waits until another try is worth it. Cancel safe.
    pub(crate) async fn try_once(&mut self, endpoints: &[SocketAddr]) -> Option<Lease> {
        let upstream = self.upstream;
        let may_connect = *self.gate.borrow_and_update() || self.prober.is_some();
        if endpoints.is_empty() {
            // Whatever comes next is another worker, which may not accept at once.
            upstream.open_gate(false);
        }
        match upstream
            .connect(endpoints, may_connect, upstream.connect_timeout)
            .await
        {
            Ok(lease) => return Some(lease),
            Err(failure) => self.failure = failure.or(self.failure.take()),
        }
        if self.prober.is_some() && !endpoints.is_empty() {
            tokio::time::sleep(PROBE_EVERY).await;
            return None;
        }
        // Each branch is cancel safe: a permit that is not taken stays, a change that is not seen stays unseen.
        tokio::select! {
            permit = upstream.prober.acquire(), if !endpoints.is_empty() => self.prober = permit.ok(),
            _changed = self.gate.changed() => {}
        }
        None
    }

    /// Why the last try failed.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, error } = self;
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                write!(
                    f,
                    "{endpoint} refuses connections; does the worker listen on this port?"
                )
            }
            io::ErrorKind::TimedOut => write!(f, "{endpoint} does not accept connections in time"),
            _ => write!(f, "{endpoint} cannot be connected to: {error}"),
        }
    }
}
