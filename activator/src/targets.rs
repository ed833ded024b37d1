//! The workers behind the activator, seen from the activator: endpoints to forward to, and a way to wake them.

use std::fmt;
use std::net::SocketAddr;
use tokio::sync::watch;

/// Which worker a call is for: `namespace/name` on a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName {
    /// The namespace; `default` on one machine unless the manifest says otherwise.
    pub namespace: String,
    /// The Deployment's name.
    pub name: String,
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is known of one target now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetState {
    /// Addresses whose worker accepts connections. Empty while the target is at zero or starting.
    pub endpoints: Vec<SocketAddr>,
    /// Why it does not start, in a sentence, when that is known: the command cannot be run, the image cannot be
    /// pulled, the process keeps crashing. Told to callers whose wait ends in vain.
    pub trouble: Option<String>,
}

/// Everything that the activator can forward to. Implemented by child processes (`local`) and, on a cluster, by
/// EndpointSlices and `/scale`.
pub trait Targets: Send + Sync + 'static {
    /// The target's state and its changes; `None` when there is no such target.
    fn watch(&self, target: &TargetName) -> Option<watch::Receiver<TargetState>>;

    /// Asks that the target leaves zero. Returns at once and may be called again; the activator calls it once a
    /// wake whatever the number of callers.
    fn wake(&self, target: &TargetName);

    /// Tells how many calls wait for or are being answered by the target, at every change. The autoscaler keeps a
    /// target above zero while this is not zero. Must return at once and not call the activator: it is called with
    /// a lock held, so that numbers are told in the order in which they came about.
    fn load_changed(&self, target: &TargetName, calls: u32);

    /// The queue behind a target, for asynchronous calls; `None` when it has none.
    fn queue(&self, target: &TargetName) -> Option<String>;

    /// All targets, for routing by path and host.
    fn names(&self) -> Vec<TargetName>;
}
