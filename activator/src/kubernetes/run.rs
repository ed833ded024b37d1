//! Puts the parts together, runs them, and ends them in order.
//!
//! How a drain goes:
//!
//! 1. `/readyz` says no and the replica's slices are withdrawn: nodes and callers learn that there is one replica less;
//! 2. calls are taken for another `--drain-delay`, because they learn of it with a delay;
//! 3. the listeners close and calls end as `app.rs` says.

use super::admin::Admin;
use super::config::Config;
use super::outbox::Outboxes;
use super::takeover::Takeover;
use super::targets::{KubeTargets, Shared};
use super::views::Views;
use crate::app::{Activator, BindError, Drained};
use crate::config::{Config as Calls, Limits};
use crate::domain::route::Routing;
use crate::telemetry;
use ops::admin;
use ops::shutdown::Shutdown;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An activator whose ports are bound and which follows the cluster, but does not answer calls yet.
#[derive(Debug)]
pub struct Bound {
    calls: crate::app::Bound,
    admin: Option<admin::Bound>,
    targets: Arc<KubeTargets>,
    outboxes: Arc<Outboxes>,
    takeover: Option<Takeover>,
    views: Views,
    drain_delay: Duration,
}

/// Why an activator cannot start. `Display` is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no cluster to talk to.
    #[error(transparent)]
    Cluster(#[from] k8s::ConnectError),
    /// The port for calls cannot be had.
    #[error(transparent)]
    Calls(#[from] BindError),
    /// The admin port cannot be had.
    #[error(transparent)]
    Admin(#[from] io::Error),
}

/// Binds the ports and begins to follow the cluster. An API server that is away is no error: the activator becomes
/// ready when it is back.
///
/// # Errors
/// When a port is taken, or nothing says where the API server is.
pub async fn bind(config: Config) -> Result<Bound, Error> {
    telemetry::describe_cluster();
    let clients = k8s::connect().await?;
    let views = Views::follow(&clients, &config);
    let targets = Arc::new(KubeTargets::new(clients.requests.clone(), views.clone(), &config));
    let outboxes = Arc::new(Outboxes::new(Arc::clone(&targets), config.broker.clone()));
    let mut calls = Calls::new(config.listen, Routing::ByName);
    calls.limits = Limits {
        wake_timeout: config.wake_timeout,
        ..Limits::default()
    };
    let shared = Arc::new(Shared(Arc::clone(&targets)));
    let calls = Activator::bind(calls, shared, Arc::clone(&outboxes) as _).await?;
    let admin = match config.admin {
        Some(address) => Some(admin::bind(address).await?),
        None => None,
    };
    let takeover = config
        .identity
        .zip(views.behind.clone())
        .map(|(identity, behind)| {
            Takeover::new(
                clients.requests,
                identity,
                (views.clone(), behind),
                Arc::clone(&targets),
                (calls.ports(), config.listen.ip(), config.takeover_ports),
            )
        });
    Ok(Bound {
        calls,
        admin,
        targets,
        outboxes,
        takeover,
        views,
        drain_delay: config.drain_delay,
    })
}

impl Bound {
    /// Where calls are taken.
    pub fn addr(&self) -> SocketAddr {
        self.calls.addr()
    }

    /// Where the admin port is; `None` when there is none.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn admin_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(admin::Bound::addr).transpose()
    }

    /// Runs until `shutdown` drains or forces; returns whether everything ended by itself.
    pub async fn run(self, shutdown: Shutdown) -> bool {
        let ended = CancellationToken::new();
        let is_loaded = Arc::new(AtomicBool::new(false));
        let admin = Admin {
            targets: Arc::clone(&self.targets),
            views: self.views.clone(),
            takeover: self.takeover.as_ref().map(Takeover::shown),
            is_loaded: Arc::clone(&is_loaded),
            shutdown: shutdown.clone(),
        };
        let admin = self.admin.map(|bound| {
            let handler = move |request| std::future::ready(admin.answer(&request));
            tokio::spawn(bound.serve(handler, ended.clone()))
        });
        let loaded = tokio::select! {
            () = self.views.ready() => true,
            () = shutdown.draining() => false,
        };
        let ended_by_itself = if loaded {
            let keeping = tokio::spawn(Arc::clone(&self.targets).keep());
            self.targets.known_once().await;
            is_loaded.store(true, Ordering::Relaxed);
            tracing::info!(targets = self.targets.known().len(), "the cluster is known");
            let takeover = self.takeover;
            let drained = answer_calls(self.calls, takeover, self.drain_delay, &shutdown).await;
            self.targets.end().await;
            keeping.await.ok();
            drained
        } else {
            true
        };
        self.outboxes.close().await;
        ended.cancel();
        if let Some(admin) = admin {
            admin.await.ok();
        }
        ended_by_itself
    }
}

/// Answers calls until the drain is over; whether nothing had to be cut.
async fn answer_calls(
    calls: crate::app::Bound,
    takeover: Option<Takeover>,
    drain_delay: Duration,
    shutdown: &Shutdown,
) -> bool {
    // Calls go on for a while after the drain has been asked for, so they have levers of their own.
    let (levers, withdraw) = (Shutdown::new(), CancellationToken::new());
    let takeover = takeover.map(|takeover| tokio::spawn(takeover.keep(withdraw.clone())));
    let end = {
        let (levers, shutdown) = (levers.clone(), shutdown.clone());
        async move {
            shutdown.draining().await;
            tracing::info!(delay_ms = drain_delay.as_millis(), "not ready any more");
            withdraw.cancel();
            let withdrawn = async {
                let delay = tokio::time::sleep(drain_delay);
                // The ports close when the calls' own drain begins, and not before.
                let doors = match takeover {
                    Some(takeover) => takeover.await.ok(),
                    None => None,
                };
                delay.await;
                doors
            };
            let doors = tokio::select! {
                doors = withdrawn => doors,
                () = shutdown.forced() => None,
            };
            levers.drain();
            shutdown.forced().await;
            levers.force();
            drop(doors);
            std::future::pending::<Drained>().await
        }
    };
    // The second never ends; what it does ends the first.
    let drained = tokio::select! {
        drained = calls.run(levers) => drained,
        drained = end => drained,
    };
    drained.cut == 0
}
