//! What is done to a run, in an order that comes from its seed.

use crate::lane::{Lane, QueueType};
use rustix::process::Signal;
use std::time::Duration;
use testkit::Broker;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of the sidecar, and a new one.
    KillSidecar,
    /// SIGSTOP of the sidecar for a second, and SIGCONT.
    PauseSidecar,
    /// SIGTERM of the sidecar, which has to end well, and a new one.
    EndSidecar,
    /// Intake stopped until nothing is in flight, and resumed.
    DrainAndResume,
    /// SIGKILL of the worker, and a new one.
    KillWorker,
    /// The broker closes all connections.
    CloseConnections,
    /// The broker stops as for a service, and starts.
    RestartBroker,
    /// SIGKILL of the broker, and a start.
    KillBroker,
}

const PAUSE: Duration = Duration::from_secs(1);

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::KillSidecar,
        Self::PauseSidecar,
        Self::EndSidecar,
        Self::DrainAndResume,
        Self::KillWorker,
        Self::CloseConnections,
        Self::RestartBroker,
        Self::KillBroker,
    ];

    /// What it is called in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KillSidecar => "sidecar killed",
            Self::PauseSidecar => "sidecar stopped for 1 s",
            Self::EndSidecar => "sidecar ended by SIGTERM",
            Self::DrainAndResume => "sidecar drained, resumed",
            Self::KillWorker => "worker killed",
            Self::CloseConnections => "all connections closed",
            Self::RestartBroker => "broker restarted",
            Self::KillBroker => "broker killed",
        }
    }

    /// Whether it befalls all lanes, and not one.
    pub fn is_of_the_broker(self) -> bool {
        match self {
            Self::CloseConnections | Self::RestartBroker | Self::KillBroker => true,
            Self::KillSidecar
            | Self::PauseSidecar
            | Self::EndSidecar
            | Self::DrainAndResume
            | Self::KillWorker => false,
        }
    }

    /// Whether a new process takes the place of the sidecar.
    pub fn ends_the_sidecar(self) -> bool {
        matches!(self, Self::KillSidecar | Self::EndSidecar)
    }

    /// How many messages of a lane it can have settled twice at most: what the broker had handed over. Nothing when the
    /// sidecar is told before.
    pub fn duplicates(self, lane: &Lane) -> usize {
        match self {
            Self::EndSidecar | Self::DrainAndResume => 0,
            Self::KillSidecar
            | Self::PauseSidecar
            | Self::KillWorker
            | Self::CloseConnections
            | Self::RestartBroker
            | Self::KillBroker => lane.setup.prefetch(),
        }
    }

    /// Whether the broker may forget acknowledgements that it had got: those of a classic queue it writes down with the
    /// next message that it confirms there, or when the queue is idle, and so up to then a kill undoes them. Of a
    /// quorum queue they are written as they come.
    pub fn forgets_acknowledgements(self, queue_type: QueueType) -> bool {
        self == Self::KillBroker && queue_type == QueueType::Classic
    }

    /// Does it to a lane. Everything runs again when this returns.
    ///
    /// Panics when the sidecar does not end well where it has to, and for what is done [to the
    /// broker](Self::inflict_on_broker).
    pub async fn inflict(self, lane: &mut Lane) {
        match self {
            Self::KillSidecar => {
                lane.kill_sidecar().await;
                lane.start_sidecar();
            }
            Self::PauseSidecar => {
                lane.sidecar().signal(Signal::STOP);
                tokio::time::sleep(PAUSE).await;
                lane.sidecar().signal(Signal::CONT);
            }
            Self::EndSidecar => {
                // One that has not begun to listen to signals would end without a word, and rightly so.
                lane.until_sidecar_listens().await;
                let status = lane.end_sidecar().await;
                assert!(status.success(), "the sidecar did not drain: {status}");
                lane.start_sidecar();
            }
            Self::DrainAndResume => lane.drain_and_resume().await,
            Self::KillWorker => lane.kill_worker().await,
            Self::CloseConnections | Self::RestartBroker | Self::KillBroker => {
                panic!("{self:?} befalls the broker")
            }
        }
    }

    /// Does it to the broker. It takes connections again when this returns.
    ///
    /// Panics for what is done to one lane.
    pub async fn inflict_on_broker(self, broker: &Broker) {
        match self {
            Self::CloseConnections => broker.close_all_connections().await,
            Self::RestartBroker => {
                broker.stop().await;
                broker.start_again().await;
            }
            Self::KillBroker => {
                broker.kill().await;
                broker.start_again().await;
            }
            Self::KillSidecar
            | Self::PauseSidecar
            | Self::EndSidecar
            | Self::DrainAndResume
            | Self::KillWorker => panic!("{self:?} befalls a lane"),
        }
    }
}

/// So many of each kind, in an order that comes from the seed.
pub fn shuffled(seed: u64, kinds: &[(Fault, usize)]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = kinds
        .iter()
        .flat_map(|(fault, times)| std::iter::repeat_n(*fault, *times))
        .collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut faults);
    faults
}
