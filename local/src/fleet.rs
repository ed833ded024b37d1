//! All replicas of one worker: what the autoscaler scales and the activator forwards to.

mod scale;
#[cfg(test)]
mod tests;

use crate::display::Screen;
use crate::domain::life::State;
use crate::domain::summary::{Counts, Member, Summary, summarize};
use crate::port::Port;
use crate::replica::{Plan, Replica};
use crate::sidecars::Sidecars;
use activator::{TargetName, TargetState};
use autoscaler::domain::Calls;
use autoscaler::{Phase, ReplicaId, TargetError};
use ops::shutdown::Shutdown;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

/// One worker, as `run` or a manifest describes it.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    /// `default/orders`
    pub(crate) name: TargetName,
    /// What each replica runs.
    pub(crate) plan: Plan,
    /// The longest that a call is taken to last: a draining replica that may be answering one is kept for so long.
    pub(crate) call_timeout: Duration,
}

/// The replicas of a worker. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WorkerFleet {
    inner: Arc<Inner>,
}

struct Inner {
    worker: Worker,
    sidecars: Option<Box<dyn Sidecars>>,
    screen: Screen,
    shutdown: Shutdown,
    tasks: TaskTracker,
    members: Mutex<Members>,
    state: watch::Sender<TargetState>,
    calls: watch::Sender<Calls>,
    changed: Notify,
    /// New messages are not taken any more, by replicas that are started later neither.
    is_intake_stopped: AtomicBool,
}

#[derive(Default)]
struct Members {
    replicas: Vec<Entry>,
    /// How many were ever started; names are never given twice, so that output and logs are not ambiguous.
    started: u64,
    /// The counts of replicas that are gone.
    past: Counts,
}

struct Entry {
    replica: Arc<Replica>,
    draining: Option<Draining>,
}

#[derive(Clone, Copy)]
struct Draining {
    since: Instant,
    /// A call that was under way when it began may be on this replica: the activator tells how many calls there are,
    /// not where. Cleared when there was a moment without any.
    may_hold_calls: bool,
}

impl WorkerFleet {
    /// A fleet without replicas. `shutdown` ends all of them; `sidecars` is `None` for a worker without a queue.
    pub(crate) fn new(
        worker: Worker,
        sidecars: Option<Box<dyn Sidecars>>,
        screen: Screen,
        shutdown: Shutdown,
    ) -> Self {
        let inner = Inner {
            worker,
            sidecars,
            screen,
            shutdown,
            tasks: TaskTracker::new(),
            members: Mutex::default(),
            state: watch::Sender::default(),
            calls: watch::Sender::default(),
            changed: Notify::new(),
            is_intake_stopped: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &TargetName {
        &self.inner.worker.name
    }

    /// How it is called in output and logs.
    pub(crate) fn label(&self) -> &str {
        &self.inner.worker.plan.worker
    }

    /// Endpoints and trouble, for the activator.
    pub(crate) fn watch(&self) -> watch::Receiver<TargetState> {
        self.inner.state.subscribe()
    }

    /// How many calls wait for or are being answered by this worker, for the autoscaler.
    pub(crate) fn calls(&self) -> watch::Receiver<Calls> {
        self.inner.calls.subscribe()
    }

    /// The activator counts this many calls now.
    pub(crate) fn set_calls(&self, calls: u32) {
        if calls == 0 {
            for entry in &mut self.inner.members().replicas {
                if let Some(draining) = &mut entry.draining {
                    draining.may_hold_calls = false;
                }
            }
        }
        let _changed = self.inner.calls.send_if_modified(|current| {
            std::mem::replace(current, Calls::Known(calls)) != Calls::Known(calls)
        });
        self.inner.changed.notify_one();
    }

    /// Sees to it that there is a replica that takes work. Returns at once.
    pub(crate) fn wake(&self) {
        let mut members = self.inner.members();
        if members
            .replicas
            .iter()
            .any(|entry| entry.draining.is_none() && !entry.replica.is_stopping())
        {
            return;
        }
        // A process that is there already is quicker than a new one.
        let resumable = members
            .replicas
            .iter_mut()
            .find(|entry| !entry.replica.is_stopping());
        let woken = match resumable {
            Some(entry) => {
                entry.resume(&self.inner.is_intake_stopped);
                Ok(())
            }
            None => self.start_one(&mut members),
        };
        drop(members);
        match woken {
            Ok(()) => self.inner.refresh(),
            Err(error) => {
                tracing::warn!("{}: {error}", self.label());
                self.inner
                    .state
                    .send_modify(|state| state.trouble = Some(error.reason));
            }
        }
    }

    /// The status line's numbers.
    pub(crate) fn summary(&self) -> Summary {
        let members = self.inner.members();
        let each: Vec<Member> = members
            .replicas
            .iter()
            .map(|entry| entry.replica.member(entry.draining.is_some()))
            .collect();
        summarize(&each, self.inner.calls.borrow().count(), members.past)
    }

    /// Why no replica is ready, in a sentence, if something is known to be wrong.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.inner.state.borrow().trouble.clone()
    }

    /// For `/status`.
    pub(crate) fn to_json(&self) -> Value {
        let summary = self.summary();
        let replicas: Vec<Value> = self
            .inner
            .members()
            .replicas
            .iter()
            .map(|entry| {
                let member = entry.replica.member(entry.draining.is_some());
                json!({
                    "name": entry.replica.id().0,
                    "port": entry.replica.address().port(),
                    "state": member.state.as_str(),
                    "draining": member.is_draining,
                    "in_flight": member.in_flight,
                })
            })
            .collect();
        let Counts { done, retried, dead } = summary.counts;
        json!({
            "name": self.name().to_string(),
            "state": summary.condition.as_str(),
            "ready": summary.ready,
            "in_flight": summary.in_flight,
            "done": done,
            "retried": retried,
            "dead": dead,
            "trouble": self.trouble(),
            "replicas": replicas,
        })
    }

    /// Waits for a change of any replica's state or of the number of calls. Counts change silently.
    pub(crate) async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Takes no new messages any more; what is in flight is finished, and calls are answered as before. For good.
    pub(crate) fn stop_intake(&self) {
        self.inner.is_intake_stopped.store(true, Relaxed);
        for entry in &self.inner.members().replicas {
            entry.replica.drain();
        }
        self.inner.refresh();
    }

    /// Ends every replica gracefully, or at once when the shutdown is forced, and waits until nothing is left.
    pub(crate) async fn stop(&self) {
        self.inner.shutdown.drain();
        self.inner.refresh();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn start_one(&self, members: &mut Members) -> Result<(), TargetError> {
        let inner = &self.inner;
        if inner.shutdown.is_draining() {
            return Ok(());
        }
        let port = Port::reserve().map_err(|error| TargetError {
            reason: error.to_string(),
        })?;
        members.started += 1;
        let id = ReplicaId(format!("{}-{}", self.label(), members.started));
        let attach =
            |id: &ReplicaId, address, shutdown| Some(inner.sidecars.as_ref()?.attach(id, address, shutdown));
        let plan = inner.worker.plan.clone();
        let (replica, work) = Replica::new(
            id,
            port,
            plan,
            inner.screen.clone(),
            attach,
            inner.shutdown.child(),
        );
        if inner.is_intake_stopped.load(Relaxed) {
            replica.drain();
        }
        members.replicas.push(Entry {
            replica: Arc::clone(&replica),
            draining: None,
        });
        let fleet = Arc::clone(inner);
        inner.tasks.spawn(async move {
            work.run(|| fleet.refresh()).await;
            fleet.forget(&replica);
        });
        Ok(())
    }
}

impl Entry {
    fn drain(&mut self, calls: u32) {
        self.replica.drain();
        self.draining.get_or_insert(Draining {
            since: now(),
            may_hold_calls: calls > 0,
        });
    }

    fn resume(&mut self, is_intake_stopped: &AtomicBool) {
        if !is_intake_stopped.load(Relaxed) {
            self.replica.resume();
        }
        self.draining = None;
    }

    fn observe(&self, call_timeout: Duration, now: Instant) -> autoscaler::Replica {
        let intake = self.replica.intake();
        let life = self.replica.life();
        let phase = match (self.draining, life.state()) {
            (Some(_), _) => Phase::Draining,
            (None, State::Ready) => Phase::Ready,
            (None, State::Starting | State::Restarting | State::CrashLoop | State::Stopping) => {
                Phase::Starting
            }
        };
        let may_hold_call = self.draining.is_some_and(|draining| {
            draining.may_hold_calls && now.saturating_duration_since(draining.since) < call_timeout
        });
        let in_flight = intake.in_flight + u32::from(may_hold_call);
        let idle_since = intake.idle_since.filter(|_| in_flight == 0);
        autoscaler::Replica {
            id: self.replica.id().clone(),
            phase,
            in_flight,
            idle_since,
        }
    }
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().expect("invariant: no holder panics")
    }

    /// Tells the activator and the display what has changed.
    fn refresh(&self) {
        let label = &self.worker.plan.worker;
        let (mut endpoints, mut trouble) = (Vec::new(), None);
        for entry in &self.members().replicas {
            let life = entry.replica.life();
            let takes_calls = entry.draining.is_none() && !entry.replica.is_stopping();
            if takes_calls && life.state() == State::Ready {
                endpoints.push(entry.replica.address());
            }
            trouble = trouble.or_else(|| life.trouble(label, entry.replica.address().port()));
        }
        let state = TargetState { endpoints, trouble };
        let mut new_trouble = None;
        let _changed = self.state.send_if_modified(|current| {
            if current.trouble != state.trouble {
                new_trouble.clone_from(&state.trouble);
            }
            *current != state && {
                *current = state;
                true
            }
        });
        if let Some(trouble) = new_trouble {
            tracing::warn!("{trouble}");
        }
        self.changed.notify_one();
    }

    fn forget(&self, replica: &Arc<Replica>) {
        let mut members = self.members();
        members.past += replica.intake().counts;
        members
            .replicas
            .retain(|entry| !Arc::ptr_eq(&entry.replica, replica));
        drop(members);
        self.refresh();
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
