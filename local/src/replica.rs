//! One replica: a worker process that is started again when it ends, and its sidecar, which outlives the process.
//!
//! 1. The process is started at once; the sidecar connects meanwhile and takes nothing before the worker's port answers.
//! 2. It is ready when its port accepts.
//! 3. When it ends by itself it is started again after a delay. The sidecar sees its messages through.
//! 4. When the replica is to end, the sidecar finishes what is in flight, and only then the process gets SIGTERM.

use crate::display::Screen;
use crate::domain::life::{Delay, Failure, Life, SLOW_START_AFTER};
use crate::domain::summary::Member;
use crate::port::Port;
use crate::process::{CommandLine, Process};
use crate::sidecars::{Attached, Intake, Sidecar};
use autoscaler::ReplicaId;
use futures_util::future::BoxFuture;
use ops::backoff::Backoff;
use ops::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};

/// The delay before a worker that ended by itself is started again: the first and the longest.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(30);
/// How often the port of a starting worker is tried. A try on loopback costs some 50 µs.
const PORT_POLL: Duration = Duration::from_millis(2);
/// How often after [`SLOW_START_AFTER`].
const SLOW_PORT_POLL: Duration = Duration::from_millis(50);
/// How long a sidecar may take to end when the end is forced.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a replica runs.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The worker's name, for sentences.
    pub(crate) worker: String,
    /// Its command.
    pub(crate) command: CommandLine,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
}

/// A replica as its fleet knows it.
pub(crate) struct Replica {
    id: ReplicaId,
    address: SocketAddr,
    life: Mutex<Life>,
    sidecar: Option<Arc<dyn Sidecar>>,
    shutdown: Shutdown,
}

/// The work of a replica; ends after its `shutdown`.
pub(crate) struct Work {
    supervisor: Supervisor,
    sidecar: Option<BoxFuture<'static, ()>>,
}

/// Starts the process of a replica and sees how it fares.
struct Supervisor {
    replica: Arc<Replica>,
    port: Port,
    plan: Plan,
    screen: Screen,
}

impl Replica {
    /// A replica that lives until `shutdown`, and its work, which somebody must run.
    pub(crate) fn new(
        id: ReplicaId,
        port: Port,
        plan: Plan,
        screen: Screen,
        attach: impl FnOnce(&ReplicaId, SocketAddr, Shutdown) -> Option<Attached>,
        shutdown: Shutdown,
    ) -> (Arc<Self>, Work) {
        let address = port.address();
        let (sidecar, running) = match attach(&id, address, shutdown.clone()) {
            Some(attached) => (Some(attached.sidecar), Some(attached.running)),
            None => (None, None),
        };
        let life = Mutex::new(Life::new(now()));
        let replica = Arc::new(Self {
            id,
            address,
            life,
            sidecar,
            shutdown,
        });
        let supervisor = Supervisor {
            replica: Arc::clone(&replica),
            port,
            plan,
            screen,
        };
        (
            replica,
            Work {
                supervisor,
                sidecar: running,
            },
        )
    }

    /// Its name.
    pub(crate) fn id(&self) -> &ReplicaId {
        &self.id
    }

    /// Where its worker listens once it is ready.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its process stands.
    pub(crate) fn life(&self) -> Life {
        self.life.lock().expect("invariant: no holder panics").clone()
    }

    /// What its sidecar knows; nothing in flight and no counts when it has none.
    pub(crate) fn intake(&self) -> Intake {
        match &self.sidecar {
            Some(sidecar) => sidecar.intake(),
            None => Intake {
                idle_since: Some(self.life().since()),
                ..Intake::default()
            },
        }
    }

    /// For the status line.
    pub(crate) fn member(&self, is_draining: bool) -> Member {
        let Intake {
            in_flight, counts, ..
        } = self.intake();
        let is_draining = is_draining || self.is_stopping();
        Member {
            state: self.life().state(),
            is_draining,
            in_flight,
            counts,
        }
    }

    /// Stops the intake of its sidecar.
    pub(crate) fn drain(&self) {
        if let Some(sidecar) = &self.sidecar {
            sidecar.drain();
        }
    }

    /// Lets its sidecar take messages again.
    pub(crate) fn resume(&self) {
        if let Some(sidecar) = &self.sidecar {
            sidecar.resume();
        }
    }

    /// Ends it gracefully: what is in flight is finished.
    pub(crate) fn stop(&self) {
        self.shutdown.drain();
    }

    /// Whether it was told to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shutdown.is_draining()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Life) -> T) -> T {
        change(&mut self.life.lock().expect("invariant: no holder panics"))
    }
}

impl Work {
    /// Runs worker and sidecar until the replica's end. `changed` is called after each change of its [`Life`].
    ///
    /// Dropping this future kills the worker's process group.
    pub(crate) async fn run(self, changed: impl Fn()) {
        let mut backoff = Backoff::new(RESTART_MIN, RESTART_MAX);
        let Self { supervisor, sidecar } = self;
        let replica = &supervisor.replica;
        let shutdown = replica.shutdown.clone();
        let mut sidecar = sidecar.map(tokio::spawn);
        loop {
            let failure = match supervisor.start() {
                Ok(mut process) => {
                    // Dropping `live` leaves the process as it is, dropping `drained` the sidecar.
                    let failure = tokio::select! {
                        failure = supervisor.live(&mut process, &changed) => Some(failure),
                        () = drained(&shutdown, &mut sidecar) => None,
                        () = shutdown.forced() => None,
                    };
                    let Some(failure) = failure else {
                        replica.change(|life| life.stops(now()));
                        changed();
                        process.stop(supervisor.plan.grace, shutdown.forced()).await;
                        break;
                    };
                    failure
                }
                Err(failure) => failure,
            };
            if replica.change(|life| life.failed(failure, now())) == Delay::Anew {
                backoff.reset();
            }
            changed();
            tokio::select! {
                () = sleep(backoff.next_delay()) => {}
                () = shutdown.draining() => {}
            }
            if shutdown.is_draining() {
                // Without a worker the sidecar gives back what it holds.
                tokio::select! {
                    () = drained(&shutdown, &mut sidecar) => {}
                    () = shutdown.forced() => {}
                }
                break;
            }
            replica.change(|life| life.started(now()));
            changed();
        }
        // After a forced end the sidecar may still be saying goodbye to the broker.
        let _gave_up = timeout(GOODBYE, ended(&mut sidecar)).await.is_err();
    }
}

impl Supervisor {
    fn start(&self) -> Result<Process, Failure> {
        if !self.port.is_free() {
            return Err(Failure::PortTaken(self.port.number()));
        }
        Process::start(
            &self.plan.command,
            self.port.number(),
            &self.replica.id.0,
            &self.screen,
        )
    }

    /// From start to end of one process. Dropping this future leaves the process as it is.
    async fn live(&self, process: &mut Process, changed: &impl Fn()) -> Failure {
        tokio::select! {
            failure = process.ended() => return failure,
            () = self.accepts(changed) => {}
        }
        self.replica.change(|life| life.accepts(now()));
        changed();
        process.ended().await
    }

    async fn accepts(&self, changed: &impl Fn()) {
        let slow = tokio::time::Instant::now() + SLOW_START_AFTER;
        tokio::select! {
            () = accepts(self.port.address(), PORT_POLL) => return,
            () = sleep_until(slow) => {}
        }
        self.replica.change(Life::is_slow_to_start);
        changed();
        accepts(self.port.address(), SLOW_PORT_POLL).await;
    }
}

/// Waits until the replica is to end and its sidecar has finished. Cancel safe.
async fn drained(shutdown: &Shutdown, sidecar: &mut Option<JoinHandle<()>>) {
    shutdown.draining().await;
    ended(sidecar).await;
}

/// Waits until the sidecar has finished. Cancel safe.
async fn ended(sidecar: &mut Option<JoinHandle<()>>) {
    if let Some(running) = sidecar {
        // A sidecar that panicked holds nothing any more: its connection is gone, and the broker has its messages.
        let _panicked = running.await.is_err();
        *sidecar = None;
    }
}

async fn accepts(address: SocketAddr, poll: Duration) {
    while TcpStream::connect(address).await.is_err() {
        sleep(poll).await;
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
