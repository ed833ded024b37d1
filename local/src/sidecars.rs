//! The sidecar of each replica, as the fleet needs it.

use crate::domain::summary::Counts;
use autoscaler::ReplicaId;
use contract::settings::Settings;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ops::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What a sidecar tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Intake {
    /// Messages with the worker now.
    pub(crate) in_flight: u32,
    /// Since when nothing is in flight; `None` while something is.
    pub(crate) idle_since: Option<Instant>,
    /// What became of its messages so far.
    pub(crate) counts: Counts,
}

/// One running sidecar.
pub(crate) trait Sidecar: Send + Sync {
    /// What it knows now.
    fn intake(&self) -> Intake;
    /// Stops the intake; what is in flight is finished. Idempotent.
    fn drain(&self);
    /// Takes messages again. Idempotent.
    fn resume(&self);
}

/// A sidecar, and the future that is its work: it resolves after `shutdown`, when nothing is in flight any more.
pub(crate) struct Attached {
    /// To ask and to tell it.
    pub(crate) sidecar: Arc<dyn Sidecar>,
    /// To be run.
    pub(crate) running: BoxFuture<'static, ()>,
}

/// Makes the sidecars of one worker.
pub(crate) trait Sidecars: Send + Sync {
    /// A sidecar for the process `replica` that will listen at `worker`. It takes no message before that port
    /// answers.
    fn attach(&self, replica: &ReplicaId, worker: SocketAddr, shutdown: Shutdown) -> Attached;
}

/// The real thing: a sidecar in this process for each replica.
pub(crate) struct QueueSidecars {
    settings: Settings,
}

impl QueueSidecars {
    /// Sidecars that consume the queue of `settings`; `None` when there is none.
    pub(crate) fn new(settings: Settings) -> Option<Self> {
        settings.queue.is_some().then_some(Self { settings })
    }
}

impl Sidecars for QueueSidecars {
    fn attach(&self, replica: &ReplicaId, worker: SocketAddr, shutdown: Shutdown) -> Attached {
        let worker = sidecar::Worker {
            host: worker.ip().to_string(),
            port: worker.port(),
        };
        let config = sidecar::Config::for_worker(&self.settings, worker, format!("kubedaemon {replica}"))
            .expect("invariant: the settings name a queue and were checked");
        let bound = sidecar::App::bind(config)
            .now_or_never()
            .expect("invariant: to bind a port on loopback takes no waiting")
            .expect("invariant: without an admin port nothing has to be bound");
        let sidecar = Arc::new(bound.handle());
        let replica = replica.clone();
        let running = Box::pin(async move {
            if let sidecar::Drained::Forced { in_flight } = bound.run(shutdown).await
                && in_flight > 0
            {
                tracing::warn!(%replica, in_flight, "ended before its messages; the broker delivers them again");
            }
        });
        Attached { sidecar, running }
    }
}

impl Sidecar for sidecar::Handle {
    fn intake(&self) -> Intake {
        let sidecar::Status {
            in_flight,
            idle_since,
            counts,
            ..
        } = self.status();
        let counts = Counts {
            done: counts.accepted,
            retried: counts.retried,
            dead: counts.dead_lettered,
        };
        Intake {
            in_flight,
            idle_since,
            counts,
        }
    }

    fn drain(&self) {
        Self::drain(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }
}
