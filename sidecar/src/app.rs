//! Puts the parts together, runs them, and takes them down in order: intake, work, settling, broker, admin port.

use crate::admin;
use crate::broker::Supervisor;
use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::status::{Ledger, State, Status};
use crate::telemetry;
use ops::shutdown::Shutdown;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A configured sidecar.
#[derive(Debug)]
pub struct App;

/// A sidecar whose admin port is bound and that takes no messages yet.
#[derive(Debug)]
pub struct Bound {
    pipeline: Arc<Pipeline>,
    admin: Option<ops::admin::Bound>,
    shutdown: Shutdown,
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
}

impl App {
    /// Binds the admin port, if there is one, so that a port that is taken is known before anything else happens.
    ///
    /// # Errors
    /// When the admin address cannot be bound.
    pub async fn bind(config: Config) -> io::Result<Bound> {
        let admin = match config.admin {
            Some(address) => Some(ops::admin::bind(address).await?),
            None => None,
        };
        let shutdown = Shutdown::new();
        let ledger = Arc::new(Ledger::new(Instant::now().into_std()));
        let pipeline = Arc::new(Pipeline::new(config, ledger, shutdown.clone()));
        Ok(Bound {
            pipeline,
            admin,
            shutdown,
        })
    }
}

impl Bound {
    /// Asks and steers the sidecar, also after it has ended.
    pub fn handle(&self) -> Handle {
        Handle {
            pipeline: Arc::clone(&self.pipeline),
        }
    }

    /// The admin port's address, if there is one.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn admin_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(ops::admin::Bound::addr).transpose()
    }

    /// Runs until `shutdown` drains and everything in flight is settled, or until it is forced or the grace period
    /// is over.
    pub async fn run(self, shutdown: Shutdown) -> Drained {
        telemetry::describe();
        let stop_admin = CancellationToken::new();
        let admin = self.admin.map(|bound| {
            let handle = Handle {
                pipeline: Arc::clone(&self.pipeline),
            };
            tokio::spawn(bound.serve(
                move |request| admin::answer(handle.clone(), request),
                stop_admin.clone(),
            ))
        });
        let grace = self.pipeline.config().grace;
        let own = self.shutdown.clone();
        let relaying = async {
            shutdown.draining().await;
            own.drain();
            // Forced from outside, or by the clock.
            let _forced = tokio::time::timeout(grace, shutdown.forced()).await;
            own.force();
        };
        let supervisor = Supervisor::new(Arc::clone(&self.pipeline), self.shutdown.clone());
        let drained = tokio::select! {
            biased;
            () = supervisor.run() => Drained::Completely,
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

impl Handle {
    /// Everything that is known now.
    pub fn status(&self) -> Status {
        self.pipeline.ledger().snapshot()
    }

    /// The state and its changes.
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.pipeline.ledger().watch_state()
    }

    /// The queue that messages come from.
    pub fn queue(&self) -> &str {
        &self.pipeline.config().queue
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

    /// How long a drain may take, from the configuration.
    pub fn grace(&self) -> Duration {
        self.pipeline.config().grace
    }
}
