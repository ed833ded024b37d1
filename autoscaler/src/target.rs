//! What is scaled, seen from the autoscaler: a `/scale` subresource with its pods, or a set of child processes.

use std::fmt;
use std::future::Future;
use std::time::Instant;

/// The name of one replica: a pod's name, or a worker process's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub String);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a replica stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Asked for, but its worker does not answer yet. Has no work.
    Starting,
    /// Takes messages and calls.
    Ready,
    /// Intake stopped; what is in flight is being finished. Once it is reported with nothing in flight nothing more
    /// can come (the broker has confirmed the cancel, no call is routed to it), so it may be removed.
    Draining,
}

/// One replica as its sidecar reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub id: ReplicaId,
    /// Where it stands in its life.
    pub phase: Phase,
    /// Messages and calls that it is working on now, prefetched messages included.
    pub in_flight: u32,
    /// Since when nothing is in flight (for one that never had work: since it is ready). `None` while something is,
    /// and when it is not known: such a replica is never chosen for removal.
    pub idle_since: Option<Instant>,
}

/// Every replica of a target at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// In no particular order.
    pub replicas: Vec<Replica>,
    /// Why none of them may be drained or removed now, in a clause; `None` when they may.
    pub kept: Option<String>,
}

/// Why a target could not be asked or changed. Never means "no replicas".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TargetError {
    /// One sentence: what failed and what to do.
    pub reason: String,
}

/// Something with a replica count. Implemented by child processes (`local`) and by a `/scale` subresource.
///
/// Removal is in three steps so that no busy replica is ever killed: [`drain`](Self::drain) idle ones, watch them in
/// [`observe`](Self::observe) until nothing is in flight, then [`remove`](Self::remove) them.
///
/// Calls come one at a time, each with a deadline of a few seconds after which its future is dropped and the next
/// tick asks again: every method must bear being dropped half way and being repeated.
pub trait ScaleTarget: Send + Sync + 'static {
    /// What is there now.
    ///
    /// # Errors
    /// When it cannot be known; the caller holds.
    fn observe(&self) -> impl Future<Output = Result<Fleet, TargetError>> + Send;

    /// Raises the replica count to `replicas`; does nothing when it is that high already. Returns without waiting
    /// for the new replicas to be ready.
    ///
    /// `replicas` counts every replica that [`observe`](Self::observe) lists, draining ones too, as `spec.replicas`
    /// does. It is never above the policy's maximum.
    ///
    /// # Errors
    /// When the change was refused; the caller tries again at its next tick.
    fn scale_up(&self, replicas: u32) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Stops the intake of these replicas; what they hold is finished. Idempotent. They are idle or still starting
    /// when they are chosen; one that got work meanwhile finishes it.
    ///
    /// # Errors
    /// When a replica could not be told.
    fn drain(&self, replicas: &[ReplicaId]) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Lets draining replicas take messages again, because the load came back. Idempotent.
    ///
    /// # Errors
    /// When a replica could not be told.
    fn resume(&self, replicas: &[ReplicaId]) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Removes replicas that were drained and have nothing in flight.
    ///
    /// # Errors
    /// When the change was refused.
    fn remove(&self, replicas: &[ReplicaId]) -> impl Future<Output = Result<(), TargetError>> + Send;
}
