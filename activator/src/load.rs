//! How many calls a target has, told at every change, so that nobody scales it to zero under them.

use crate::targets::{TargetName, Targets};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A target's calls: waiting and in flight.
#[derive(Clone)]
pub(crate) struct Load(Arc<Inner>);

struct Inner {
    target: TargetName,
    targets: Arc<dyn Targets>,
    calls: Mutex<u32>,
}

/// One call, counted until this is dropped: when the last byte of its answer has left, or when it is given up.
#[derive(Debug)]
#[must_use = "dropping it ends the call's count"]
pub(crate) struct InFlight(Load);

impl Load {
    /// No calls.
    pub(crate) fn new(target: TargetName, targets: Arc<dyn Targets>) -> Self {
        Self(Arc::new(Inner {
            target,
            targets,
            calls: Mutex::new(0),
        }))
    }

    /// One call more.
    pub(crate) fn enter(&self) -> InFlight {
        self.change(|calls| calls.saturating_add(1));
        InFlight(self.clone())
    }

    /// The calls now.
    pub(crate) fn calls(&self) -> u32 {
        *self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells within the lock: two changes told in the wrong order would leave a wrong number standing.
    fn change(&self, to: impl FnOnce(u32) -> u32) {
        let mut calls = self.0.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls = to(*calls);
        self.0.targets.load_changed(&self.0.target, *calls);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.change(|calls| calls.saturating_sub(1));
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("target", &self.0.target)
            .field("calls", &self.calls())
            .finish()
    }
}
