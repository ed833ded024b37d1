//! All workers of this machine, as the activator sees them.

use crate::fleet::WorkerFleet;
use activator::{TargetName, TargetState, Targets};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// The workers by name, each with its queue if it has one.
#[derive(Clone, Default)]
pub(crate) struct LocalTargets {
    workers: BTreeMap<TargetName, (WorkerFleet, Option<String>)>,
}

impl LocalTargets {
    /// The workers that can be called.
    pub(crate) fn new(workers: impl IntoIterator<Item = (WorkerFleet, Option<String>)>) -> Self {
        Self {
            workers: workers
                .into_iter()
                .map(|worker| (worker.0.name().clone(), worker))
                .collect(),
        }
    }

    fn fleet(&self, target: &TargetName) -> Option<&WorkerFleet> {
        self.workers.get(target).map(|(fleet, _)| fleet)
    }
}

impl Targets for LocalTargets {
    fn watch(&self, target: &TargetName) -> Option<watch::Receiver<TargetState>> {
        Some(self.fleet(target)?.watch())
    }

    fn wake(&self, target: &TargetName) {
        if let Some(fleet) = self.fleet(target) {
            fleet.wake();
        }
    }

    fn load_changed(&self, target: &TargetName, calls: u32) {
        if let Some(fleet) = self.fleet(target) {
            fleet.set_calls(calls);
        }
    }

    fn queue(&self, target: &TargetName) -> Option<String> {
        self.workers.get(target)?.1.clone()
    }

    fn names(&self) -> Vec<TargetName> {
        self.workers.keys().cloned().collect()
    }
}
