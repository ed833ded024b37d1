//! The targets that calls have come for: each with its wake state, its connections and its load.

use crate::config::Limits;
use crate::domain::buffer::Buffer;
use crate::domain::reject::{Reason, Reject};
use crate::domain::route::{Directory, Unrouted};
use crate::domain::wake::{Effect, Event, State};
use crate::load::Load;
use crate::proxy::pool::{Lease, Pool};
use crate::proxy::upstream::{Upstream, Wait};
use crate::targets::{TargetName, TargetState, Targets};
use crate::telemetry;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The least time before a wake is asked for again; otherwise half of the wake timeout. Late enough that no ordinary
/// cold start is asked for twice, early enough that a call which waits for a lost wake is still answered.
const ASK_AGAIN_AT_LEAST: Duration = Duration::from_secs(10);

/// How long connections to workers may take to close at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Finds targets and wakes them.
pub(crate) struct Waker {
    targets: Arc<dyn Targets>,
    known: Mutex<HashMap<TargetName, Arc<Target>>>,
    limits: Limits,
    /// Owns the tasks that drive connections to workers.
    tasks: TaskTracker,
    /// Cancelled when waiting calls are to be answered now, because the process ends.
    giving_up: CancellationToken,
}

/// One target, as long as calls come for it.
pub(crate) struct Target {
    pub(crate) name: TargetName,
    targets: Arc<dyn Targets>,
    state: Mutex<State>,
    waiting: AtomicUsize,
    pub(crate) load: Load,
    upstream: Upstream,
    ask_again: Duration,
    /// From when the wake machine counts its time.
    known_since: Instant,
}

/// What a wait has brought.
#[derive(Debug)]
pub(crate) struct Woken {
    pub(crate) lease: Lease,
    /// Whether the call met no endpoint, or one that refused, before this one.
    pub(crate) was_cold: bool,
}

/// One waiting call, counted until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waker {
    /// Knows no target yet.
    pub(crate) fn new(targets: Arc<dyn Targets>, limits: Limits, giving_up: CancellationToken) -> Self {
        Self {
            targets,
            known: Mutex::default(),
            limits,
            tasks: TaskTracker::new(),
            giving_up,
        }
    }

    /// The target of that name, if there is one, and the view of its endpoints.
    ///
    /// # Errors
    ///
    /// When it has gone since the call was routed.
    pub(crate) fn find(
        &self,
        name: &TargetName,
    ) -> Result<(Arc<Target>, watch::Receiver<TargetState>), Reject> {
        let Some(states) = self.targets.watch(name) else {
            let mut known = self.targets.names();
            known.sort();
            return Err(Reject::unrouted(&Unrouted::Unknown {
                asked: name.to_string(),
                known,
            }));
        };
        let mut targets = self.lock();
        let target = targets
            .entry(name.clone())
            .or_insert_with(|| Arc::new(self.target(name)));
        Ok((Arc::clone(target), states))
    }

    /// A connection for a call that need not wait; `None` when it must.
    pub(crate) async fn at_once(
        &self,
        target: &Target,
        states: &watch::Receiver<TargetState>,
    ) -> Option<Lease> {
        let endpoints = states.borrow().endpoints.clone();
        target.upstream.at_once(&endpoints).await
    }

    /// Wakes the target if nobody has, and waits for a connection to it.
    ///
    /// Dropping this future gives up the wait and leaves nothing behind but the wake.
    ///
    /// # Errors
    ///
    /// [`Reason::NotStarted`] or [`Reason::UpstreamConnect`] at the deadline, with the cause; [`Reason::Draining`];
    /// [`Reason::UnknownTarget`] when the target is taken away meanwhile.
    pub(crate) async fn wait(
        &self,
        target: &Target,
        mut states: watch::Receiver<TargetState>,
        deadline: Instant,
    ) -> Result<Woken, Reject> {
        let _waiting = Waiting::new(&target.waiting);
        let mut wait = target.upstream.wait();
        let mut was_at_zero = false;
        let mut has_ended = false;
        loop {
            let endpoints = states.borrow_and_update().endpoints.clone();
            was_at_zero |= endpoints.is_empty();
            target.on(Event::Called {
                ready: !endpoints.is_empty(),
            });
            // Every branch is cancel safe: a try that is given up, because the endpoints have changed under it, is
            // made anew in the next round.
            tokio::select! {
                biased;
                () = self.giving_up.cancelled() => return Err(drained(&target.name)),
                () = tokio::time::sleep_until(deadline) => {
                    let trouble = states.borrow().trouble.clone();
                    return Err(self.in_vain(target, &wait, was_at_zero, trouble));
                }
                changed = states.changed(), if !has_ended => if changed.is_err() {
                    // The view has ended: the target was taken away, or replaced by one of the same name.
                    states = self.find(&target.name)?.1;
                    has_ended = states.has_changed().is_err();
                },
                lease = wait.try_once(&endpoints) => if let Some(lease) = lease {
                    let was_cold = was_at_zero || wait.failure().is_some();
                    return Ok(Woken { lease, was_cold });
                },
            }
        }
    }

    /// Looks at every target: notices those that fell asleep, asks again for wakes that got lost, closes idle
    /// connections, forgets targets that are gone, and publishes gauges. Called every half second.
    pub(crate) fn look_around(&self, buffer: &Buffer) {
        let targets: Vec<Arc<Target>> = self.lock().values().cloned().collect();
        for target in targets {
            let Some(states) = self.targets.watch(&target.name) else {
                if target.load.calls() == 0 {
                    self.lock().remove(&target.name);
                    telemetry::observed(&telemetry::Snapshot {
                        target: &target.name,
                        state: State::Asleep,
                        endpoints: 0,
                        buffered: 0,
                        capacity: 0,
                    });
                }
                continue;
            };
            let endpoints = states.borrow().endpoints.clone();
            let waiting = target.waiting.load(Ordering::Relaxed) > 0;
            target.on(Event::Observed {
                ready: !endpoints.is_empty(),
                waiting,
            });
            target.upstream.pool.sweep(&endpoints);
            telemetry::observed(&telemetry::Snapshot {
                target: &target.name,
                state: *target.lock(),
                endpoints: endpoints.len(),
                buffered: buffer.of(&target.name).calls,
                capacity: buffer.bounds().calls_per_target,
            });
        }
    }

    /// Closes what lies idle and waits a moment for the connections to end. Nothing may be forwarded any more.
    pub(crate) async fn close(&self) {
        for target in self.lock().values() {
            target.upstream.pool.sweep(&[]);
        }
        self.tasks.close();
        // A worker that keeps its side open does not hold us up.
        let _ended = tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await;
    }

    fn target(&self, name: &TargetName) -> Target {
        let pool = Pool::new(self.limits.idle_timeout, self.tasks.clone());
        Target {
            name: name.clone(),
            targets: Arc::clone(&self.targets),
            state: Mutex::new(State::Asleep),
            waiting: AtomicUsize::new(0),
            load: Load::new(name.clone(), Arc::clone(&self.targets)),
            upstream: Upstream::new(pool, self.limits.connect_timeout),
            ask_again: (self.limits.wake_timeout / 2).max(ASK_AGAIN_AT_LEAST),
            known_since: Instant::now(),
        }
    }

    fn in_vain(
        &self,
        target: &Target,
        wait: &Wait<'_>,
        was_at_zero: bool,
        trouble: Option<String>,
    ) -> Reject {
        let name = &target.name;
        let within = self.limits.wake_timeout.as_secs_f64();
        let failure = wait.failure().map(ToString::to_string);
        if was_at_zero || trouble.is_some() {
            let cause = trouble
                .or(failure)
                .unwrap_or_else(|| "it was asked to and has not said why; its own log may".to_owned());
            return Reject::new(
                Reason::NotStarted,
                format!("{name} did not start within {within} s: {cause}"),
            );
        }
        let cause = failure.unwrap_or_else(|| "other calls were before this one".to_owned());
        Reject::new(
            Reason::UpstreamConnect,
            format!("{name} accepted no connection within {within} s: {cause}"),
        )
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetName, Arc<Target>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drained(target: &TargetName) -> Reject {
    Reject::new(
        Reason::Draining,
        format!("this activator shuts down, and {target} has not started before that; try again"),
    )
}

impl Directory for Waker {
    fn knows(&self, target: &TargetName) -> bool {
        self.targets.watch(target).is_some()
    }

    fn names(&self) -> Vec<TargetName> {
        self.targets.names()
    }

    fn queue(&self, target: &TargetName) -> Option<String> {
        self.targets.queue(target)
    }
}

impl Target {
    /// Feeds the wake machine and does what it says.
    fn on(&self, event: Event) {
        let now = self.known_since.elapsed();
        let effect = {
            let mut state = self.lock();
            let (next, effect) = state.step(event, now, self.ask_again);
            *state = next;
            effect
        };
        match effect {
            Some(Effect::Wake { again }) => {
                telemetry::wake_asked(&self.name, again);
                self.targets.wake(&self.name);
            }
            Some(Effect::Woken { took }) => telemetry::woken(&self.name, took),
            Some(Effect::FellAsleep) => telemetry::fell_asleep(&self.name),
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker")
            .field("known", &self.lock().keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("state", &*self.lock())
            .finish_non_exhaustive()
    }
}
