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
use tokio::time::Instant;

/// How often the prober asks a socket that does not accept yet. Refused connections on loopback and within a
/// cluster cost some twenty microseconds.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(4);

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
        self.connect(endpoints, may_connect, self.connect_timeout)
            .await
            .ok()
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
    /// Tries once to get a connection: when this call is the prober, or when the prober found a socket open.
    pub(crate) async fn try_once(&mut self, endpoints: &[SocketAddr], deadline: Instant) -> Option<Lease> {
        let upstream = self.upstream;
        let is_open = *self.gate.borrow_and_update();
        if endpoints.is_empty() {
            // Whatever comes next is another worker, which may not accept at once.
            upstream.open_gate(false);
            return None;
        }
        let may_connect = is_open || self.prober.is_some();
        let patience = upstream
            .connect_timeout
            .min(deadline.saturating_duration_since(Instant::now()));
        match upstream.connect(endpoints, may_connect, patience).await {
            Ok(lease) => Some(lease),
            Err(failure) => {
                self.failure = failure.or(self.failure.take());
                None
            }
        }
    }

    /// Waits until another try is worth it: this call has become the prober, the prober's next probe is due, or the
    /// gate has opened. Cancel safe.
    pub(crate) async fn worth_trying(&mut self, any_endpoint: bool) {
        if self.prober.is_some() && any_endpoint {
            return tokio::time::sleep(PROBE_EVERY).await;
        }
        // Each branch is cancel safe: a permit that is not taken stays, a change that is not seen stays unseen.
        tokio::select! {
            permit = self.upstream.prober.acquire(), if any_endpoint => self.prober = permit.ok(),
            _changed = self.gate.changed() => {}
        }
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
