//! A wake under way: it ends with the first endpoint, and until then the target does not stay at zero while calls wait.

use super::KubeTargets;
use crate::kubernetes::scale::{self, Wake};
use crate::kubernetes::workload::Workload;
use crate::targets::TargetName;
use crate::telemetry;
use ops::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two tries to scale when the API server refuses or is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// After a wake that has worked, how long the view may go on to show zero before the wake is thought to be undone.
const SETTLE: Duration = Duration::from_secs(1);

impl KubeTargets {
    /// One wake, from the ask for it to the first endpoint.
    pub(super) async fn waking(self: Arc<Self>, name: TargetName, called: Arc<Notify>) {
        let mut changes = self.revision.subscribe();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut scaled: Option<Instant> = None;
        let mut is_first = true;
        loop {
            changes.borrow_and_update();
            let Some((workload, is_wanted)) = self.still_waking(&name) else {
                return;
            };
            let is_settling = scaled.is_some_and(|scaled| scaled.elapsed() < SETTLE);
            let mut wait = None;
            if workload.replicas == 0 && (is_wanted || is_first) && !is_settling {
                is_first = false;
                match scale::wake(&self.client, &workload).await {
                    Ok(outcome) => {
                        telemetry::scaled(&name, workload.wakes_to, outcome == Wake::Scaled);
                        scaled = Some(Instant::now());
                        backoff.reset();
                        self.say(&name, None);
                        wait = Some(SETTLE);
                    }
                    Err(cause) => {
                        telemetry::scale_failed(&name, &cause);
                        self.say(&name, Some(format!("it cannot be scaled up: {cause}")));
                        tokio::time::sleep(backoff.next_delay()).await;
                        continue;
                    }
                }
            } else if is_settling {
                wait = Some(SETTLE);
            }
            // Each branch is cancel safe: what is missed is looked at in the next round.
            tokio::select! {
                _changed = changes.changed() => {}
                () = called.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {}
            }
        }
    }

    /// The workload of a wake that has not brought an endpoint yet, and whether calls wait for it; `None` when the wake
    /// is over, which is then no longer under way: the next ask begins another.
    fn still_waking(&self, name: &TargetName) -> Option<(Arc<Workload>, bool)> {
        let mut inner = self.lock();
        let target = inner.targets.get(name);
        let Some(target) = target.filter(|target| target.state.borrow().endpoints.is_empty()) else {
            inner.waking.remove(name);
            return None;
        };
        Some((Arc::clone(&target.workload), inner.calls.contains_key(name)))
    }

    /// Why the wake has not worked so far.
    fn say(&self, name: &TargetName, trouble: Option<String>) {
        if let Some(waking) = self.lock().waking.get_mut(name) {
            waking.trouble = trouble;
        }
        self.nudged.notify_one();
    }
}
