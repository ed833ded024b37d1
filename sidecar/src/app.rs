//! Puts the parts together, runs them, and takes them down in order: intake, work, settling, broker, admin port.

use crate::admin::Admin;
use crate::broker::port::Broker;
use crate::broker::{RabbitMq, Supervisor};
use crate::callbacks::{self, Settled};
use crate::config::Config;
use crate::connections::Connections;
use crate::dispatch::{Network, Tcp};
use crate::pipeline::Pipeline;
use crate::reporter::Reporter;
use crate::status::{Ledger, State, Status};
use crate::telemetry;
use ops::admin;
use ops::shutdown::Shutdown;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A configured sidecar.
#[derive(Debug)]
pub struct App;

/// The world around a sidecar.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Where messages come from.
    pub broker: Arc<dyn Broker>,
    /// How the worker is reached.
    pub network: Arc<dyn Network>,
}

impl Default for Ports {
    /// RabbitMQ and TCP.
    fn default() -> Self {
        Self {
            broker: Arc::new(RabbitMq::default()),
            network: Arc::new(Tcp),
        }
    }
}

/// A sidecar whose admin port is bound and that takes no messages yet.
#[derive(Debug)]
pub struct Bound {
    pipeline: Arc<Pipeline>,
    broker: Arc<dyn Broker>,
    admin: Option<admin::Bound>,
    /// Only where there is no admin port.
    callbacks: Option<admin::Bound>,
    shutdown: Shutdown,
}

/// What a verdict document may have at least, however short replies are to be.
const VERDICT_BYTES: usize = 64 * 1024;

/// A port on loopback for callbacks alone. Without one messages cannot be deferred, and everything else works.
async fn bind_callbacks(body_bytes: usize) -> Option<admin::Bound> {
    match admin::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await {
        Ok(bound) => Some(bound.with_bodies(body_bytes)),
        Err(error) => {
            telemetry::no_callbacks(&error.to_string());
            None
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was in flight is settled.
    Completely,
    /// The end was forced, or the grace period was over; the broker delivers what was left again.
    Forced {
        /// Messages that were with the worker.
        in_flight: u32,
    },
}

/// Asks and steers a running sidecar.
#[derive(Debug, Clone)]
pub struct Handle {
    pipeline: Arc<Pipeline>,
    connections: Arc<Connections>,
}

impl App {
    /// Binds the admin port, if there is one, so that a port that is taken is known before anything else happens.
    ///
    /// # Errors
    /// When the admin address cannot be bound.
    pub async fn bind(config: Config) -> io::Result<Bound> {
        Self::bind_in(config, Ports::default()).await
    }

    /// As [`bind`](Self::bind), in a world that may be a simulated one.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub async fn bind_in(config: Config, ports: Ports) -> io::Result<Bound> {
        // Bodies are for callbacks, and as long as answers may be.
        let body_bytes = config.reply_max_bytes.max(VERDICT_BYTES);
        let admin = match config.admin {
            Some(address) => Some(admin::bind(address).await?.with_bodies(body_bytes)),
            None => None,
        };
        let callbacks = match admin {
            None if config.callback_port => bind_callbacks(body_bytes).await,
            _ => None,
        };
        let callback_address = admin.as_ref().or(callbacks.as_ref()).map(admin::Bound::addr);
        let shutdown = Shutdown::new();
        let ledger = Arc::new(Ledger::new(Instant::now().into_std()));
        let pipeline = Arc::new(Pipeline::new(config, ports.network, ledger, shutdown.clone()));
        pipeline.serve_callbacks_at(callback_address.transpose()?);
        Ok(Bound {
            pipeline,
            broker: ports.broker,
            admin,
            callbacks,
            shutdown,
        })
    }
}

impl Bound {
    /// Asks and steers the sidecar, also after it has ended.
    pub fn handle(&self) -> Handle {
        Handle {
            connections: Arc::new(Connections::to(&self.pipeline.config().worker)),
            pipeline: Arc::clone(&self.pipeline),
        }
    }

    /// The admin port's address, if there is one.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn admin_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(admin::Bound::addr).transpose()
    }

    /// Runs until `shutdown` drains and everything in flight is settled, or until it is forced or the grace period
    /// is over.
    pub async fn run(self, shutdown: Shutdown) -> Drained {
        telemetry::describe();
        let stop_admin = CancellationToken::new();
        let levers = Admin::new(self.handle());
        let callbacks = levers.clone();
        let answer = move |request| {
            let levers = levers.clone();
            async move { levers.answer(request).await }
        };
        let answer_callback = move |request| {
            let callbacks = callbacks.clone();
            async move { callbacks.answer_callback(request).await }
        };
        let admin = match (self.admin, self.callbacks) {
            (Some(bound), _) => Some(tokio::spawn(bound.serve(answer, stop_admin.clone()))),
            (None, Some(bound)) => Some(tokio::spawn(bound.serve(answer_callback, stop_admin.clone()))),
            (None, None) => None,
        };
        let grace = self.pipeline.config().grace;
        let own = self.shutdown.clone();
        let relaying = async {
            shutdown.draining().await;
            own.drain();
            // Forced from outside, or by the clock.
            let _forced = tokio::time::timeout(grace, shutdown.forced()).await;
            own.force();
        };
        let drained = tokio::select! {
            biased;
            () = take_in(Arc::clone(&self.pipeline), self.broker, self.shutdown.clone()) => Drained::Completely,
            () = relaying => Drained::Forced { in_flight: self.pipeline.ledger().in_flight() },
        };
        // What the force dropped is counted by the time its tasks are gone.
        self.pipeline.finished().await;
        stop_admin.cancel();
        if let Some(admin) = admin
            && let Err(error) = admin.await
        {
            tracing::error!(%error, "the admin server ended unexpectedly");
        }
        drained
    }
}

/// What the sidecar is for, until it has drained.
async fn take_in(pipeline: Arc<Pipeline>, broker: Arc<dyn Broker>, shutdown: Shutdown) {
    if pipeline.config().report_only {
        Reporter::new(pipeline, shutdown).run().await;
    } else {
        Supervisor::new(pipeline, broker, shutdown).run().await;
    }
}

impl Handle {
    /// Everything that is known now.
    pub fn status(&self) -> Status {
        self.pipeline.ledger().snapshot()
    }

    /// The state and its changes.
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.pipeline.ledger().watch_state()
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        self.pipeline.config()
    }

    /// Established connections from outside the pod to the worker's port, looked up now; `None` when that cannot be
    /// known.
    pub fn connections(&self) -> Option<u32> {
        self.connections.count()
    }

    /// Whether the worker's port has answered since the sidecar runs; it is tried when it has not. Cancel safe.
    pub async fn worker_has_answered(&self) -> bool {
        self.pipeline.dispatcher().has_answered().await
    }

    /// Settles a deferred message by what its worker posted to `path`, and waits until that is done.
    pub(crate) async fn settle_deferred(
        &self,
        path: &str,
        headers: http::HeaderMap,
        body: bytes::Bytes,
    ) -> Result<Settled, callbacks::Refused> {
        let callbacks = self.pipeline.callbacks().ok_or(callbacks::Refused::Unknown)?;
        callbacks.post(path, headers, body).await
    }

    /// Waits until intake is stopped. Cancel safe.
    pub async fn intake_stopped(&self) {
        self.pipeline.intake_stopped().await;
    }

    /// Waits until intake is open; for ever once the process drains. Cancel safe.
    pub async fn intake_resumed(&self) {
        self.pipeline.intake_resumed().await;
    }

    /// Stops intake. What is in flight goes on; prefetched messages are given back. Idempotent.
    pub fn drain(&self) {
        self.pipeline.set_intake(false);
    }

    /// Takes messages again, unless the process is ending. Idempotent.
    pub fn resume(&self) {
        self.pipeline.set_intake(true);
    }

    /// Waits until intake is stopped and nothing is in flight. Cancel safe.
    pub async fn drained(&self) {
        self.pipeline.ledger().until_state(State::Drained).await;
    }
}
