//! Puts the parts together, runs them, and ends them in order.
//!
//! How a drain goes:
//!
//! 1. the listeners close, after the connections that the kernel had already made for them were accepted;
//! 2. idle connections are closed, each other one after the answer that it is at; calls that wait go on waiting;
//! 3. shortly before `drain_timeout`, calls that still wait are answered 503 with `Retry-After`;
//! 4. at `drain_timeout`, or when the end is forced, what is still open is cut;
//! 5. connections to workers are closed.

use crate::config::Config;
use crate::domain::buffer::Buffer;
use crate::domain::route::Routing;
use crate::enqueue::Mailer;
use crate::outbox::Outbox;
use crate::pipeline::Pipeline;
use crate::proxy::server::Server;
use crate::proxy::tunnel::Tunnels;
use crate::targets::{TargetName, Targets};
use crate::telemetry;
use crate::waker::Waker;
use ops::shutdown::Shutdown;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How often targets are looked at without a call's coming.
const LOOK_AROUND_EVERY: Duration = Duration::from_millis(500);
/// For the answers to calls that are given up, to reach their callers before connections are cut.
const FLUSH: Duration = Duration::from_millis(500);

/// The activator, before it listens.
#[derive(Debug)]
pub struct Activator;

/// An activator that listens and has not accepted anybody yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    routing: Arc<Routing>,
    pipeline: Arc<Pipeline>,
    ports: Ports,
    /// Cancelled when calls that wait are to be answered now.
    giving_up: CancellationToken,
    /// Cancelled when what is still open must end.
    cut: CancellationToken,
}

/// Opens ports beside the configured one, each for the calls of one target. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ports {
    server: Arc<Server>,
    /// The tasks that accept on them.
    tasks: TaskTracker,
    /// Cancelled when none of them takes connections any more.
    closing: CancellationToken,
}

/// A port that is open until this is dropped. Connections that were made on it go on.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _closes: DropGuard,
}

impl Ports {
    /// Listens on `address` for calls that are all for `target`, whatever their host and path. Must be called within
    /// the runtime that runs [`Bound::run`]; with its end the port closes too.
    ///
    /// # Errors
    ///
    /// What the operating system says: mostly that the address is taken.
    pub async fn open(&self, address: SocketAddr, target: TargetName) -> io::Result<Port> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let closing = self.closing.child_token();
        let (server, closed) = (Arc::clone(&self.server), closing.clone());
        self.tasks.spawn(async move {
            let routing = Arc::new(Routing::Whole(target));
            server.accept(listener, routing, closed.cancelled()).await;
        });
        Ok(Port {
            address,
            _closes: closing.drop_guard(),
        })
    }
}

impl Port {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }
}

/// How an activator has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections and tunnels that were open when the time was over, or when the end was forced.
    pub cut: usize,
}

/// Why an activator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Activator {
    /// Listens on the configured address. Calls are answered once [`Bound::run`] runs; until then they wait in the
    /// kernel.
    ///
    /// # Errors
    ///
    /// [`BindError::Listen`]: the address is taken, or not this machine's.
    pub async fn bind(
        config: Config,
        targets: Arc<dyn Targets>,
        outbox: Arc<dyn Outbox>,
    ) -> Result<Bound, BindError> {
        let Config {
            listen,
            routing,
            limits,
        } = config;
        let unbound = |source| BindError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        telemetry::describe();
        let (giving_up, cut) = (CancellationToken::new(), CancellationToken::new());
        let pipeline = Arc::new(Pipeline {
            buffer: Buffer::new(limits.buffer),
            waker: Waker::new(targets, limits.clone(), giving_up.clone()),
            mailer: Mailer::new(outbox, limits.clone()),
            tunnels: Tunnels::new(cut.clone()),
            limits,
        });
        let server = Server::new(Arc::clone(&pipeline), &pipeline.limits, cut.clone());
        Ok(Bound {
            listener,
            address,
            routing: Arc::new(routing),
            pipeline,
            ports: Ports {
                server: Arc::new(server),
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
            },
            giving_up,
            cut,
        })
    }
}

impl Bound {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// For more ports than the configured one.
    pub fn ports(&self) -> Ports {
        self.ports.clone()
    }

    /// Answers calls until `shutdown` drains or forces, and returns when everything has ended.
    ///
    /// Dropping this future stops accepting; connections that are open go on until their callers end them.
    pub async fn run(self, shutdown: Shutdown) -> Drained {
        let Self {
            listener,
            address,
            routing,
            pipeline,
            ports,
            giving_up,
            cut,
        } = self;
        let Ports {
            server,
            tasks,
            closing,
        } = ports;
        tracing::info!(%address, "listening");
        // Looking around never ends; the accept loop's end ends both.
        tokio::select! {
            () = server.accept(listener, routing, shutdown.draining()) => {}
            () = look_around(&pipeline) => {}
        }
        closing.cancel();
        tasks.close();
        tasks.wait().await;
        tracing::info!(waiting = pipeline.buffer.total().calls, "draining");
        let mut ended = pin!(async {
            server.drain().await;
            pipeline.tunnels.ended().await;
        });
        let flush = FLUSH.min(pipeline.limits.drain_timeout / 2);
        // The drain itself goes on in the next steps when another branch wins.
        let mut has_ended = tokio::select! {
            () = &mut ended => true,
            () = look_around(&pipeline) => false,
            () = tokio::time::sleep(pipeline.limits.drain_timeout.saturating_sub(flush)) => false,
            () = shutdown.forced() => false,
        };
        if !has_ended {
            giving_up.cancel();
            has_ended = tokio::time::timeout(flush, &mut ended).await.is_ok();
        }
        let mut tunnels_cut = 0;
        if !has_ended {
            tunnels_cut = pipeline.tunnels.open_now();
            cut.cancel();
            ended.await;
        }
        pipeline.waker.close().await;
        let drained = Drained {
            cut: server.cut_off() + tunnels_cut,
        };
        tracing::info!(cut = drained.cut, "drained");
        drained
    }
}

/// Never ends.
async fn look_around(pipeline: &Pipeline) {
    let mut ticks = tokio::time::interval(LOOK_AROUND_EVERY);
    loop {
        ticks.tick().await;
        pipeline.waker.look_around(&pipeline.buffer);
    }
}
