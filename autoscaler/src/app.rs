//! Many targets on one broker: when each of them ticks, and how all of them stop.
//!
//! A target ticks every 250 ms while it is at zero, and while something drains; every second otherwise; and at once
//! when it is nudged or a call comes or goes while it is at zero. Ticks of different targets fall together, so that
//! their questions go to the broker as one batch.

use crate::domain::{Calls, Decision, Policy, QueueName};
use crate::pipeline::{CallNews, Pipeline, Queue};
use crate::report::Report;
use crate::source::{DepthSource, Questions, Sampler, sampler};
use crate::target::ScaleTarget;
use crate::telemetry;
use ops::shutdown::Shutdown;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Between two ticks of a target at zero: half of what a message may wait for its replica to be started.
const AT_ZERO: Duration = Duration::from_millis(250);
/// Between two ticks of a target that runs.
const RUNNING: Duration = Duration::from_secs(1);
/// The least between the beginnings of two ticks, however often a target is nudged.
const LEAST: Duration = Duration::from_millis(5);

/// A target and how it is to be scaled.
#[derive(Debug)]
pub struct TargetSpec<T> {
    /// How logs and metrics call it.
    pub name: String,
    /// The queue whose depth counts; `None` for a worker that is only called.
    pub queue: Option<String>,
    /// Makes the queue as a durable quorum queue, with this dead-letter queue behind it, unless it exists: at zero
    /// replicas nobody else would. `None` leaves that to others.
    pub dead_letter: Option<String>,
    /// Bounds, aim and cool-down.
    pub policy: Policy,
    /// What is scaled.
    pub target: T,
    /// Calls that wait or are being answered; the target stays above zero while there are any. When the sender is
    /// dropped its last value stays. While not all are known the last replica stays too.
    pub calls: watch::Receiver<Calls>,
}

/// Scales many targets whose queues are on one broker. Use one for each distinct broker.
#[derive(Debug)]
pub struct Autoscaler<S> {
    source: S,
    questions: Questions,
    registry: Registry,
}

/// Adds targets, also while the autoscaler runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    sampler: Sampler,
    added: Arc<Added>,
    /// Ticks fall on multiples of their interval from here.
    epoch: Instant,
}

type Loop = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct Added {
    loops: Mutex<Vec<Loop>>,
    news: Notify,
    stop: CancellationToken,
}

impl std::fmt::Debug for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Added")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// One target that was added. Cheap to clone; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct TargetHandle {
    nudge: Arc<Notify>,
    reports: watch::Receiver<Option<Report>>,
    stop: CancellationToken,
}

impl TargetHandle {
    /// Makes the target tick now: its replicas have changed, or there is reason to believe that its queue has.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// The last tick's report and its changes; `None` before the first tick is over.
    pub fn reports(&self) -> watch::Receiver<Option<Report>> {
        self.reports.clone()
    }

    /// Ends the scaling of the target after the tick under way. Its replicas stay as they are.
    pub fn remove(&self) {
        self.stop.cancel();
    }
}

impl<S: DepthSource> Autoscaler<S> {
    /// An autoscaler without targets. The source may be connecting still.
    pub fn new(source: S) -> Self {
        telemetry::describe();
        let (sampler, questions) = sampler();
        Self {
            source,
            questions,
            registry: Registry {
                sampler,
                added: Arc::default(),
                epoch: Instant::now(),
            },
        }
    }

    /// Adds a target; see [`Registry::add`].
    pub fn add<T: ScaleTarget>(&self, spec: TargetSpec<T>) -> TargetHandle {
        self.registry.add(spec)
    }

    /// For adding targets while [`run`](Self::run) runs.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Scales until `shutdown`. Drain lets every tick under way end and then closes the source, which takes seconds
    /// at most; force drops them. The replicas stay as they are: stopping them is their owner's affair.
    ///
    /// # Panics
    /// When a target's [`ScaleTarget`] panics.
    pub async fn run(self, shutdown: Shutdown) {
        let Self {
            mut source,
            questions,
            registry,
        } = self;
        // Dropping the answers drops questions only of ticks that were forced to end.
        tokio::select! {
            () = questions.answer_from(&mut source) => {}
            () = registry.added.run(&shutdown) => {}
        }
        tokio::select! {
            () = source.close() => {}
            () = shutdown.forced() => {}
        }
    }
}

impl Registry {
    /// Adds a target. Its first tick comes at once when the autoscaler runs.
    pub fn add<T: ScaleTarget>(&self, spec: TargetSpec<T>) -> TargetHandle {
        let TargetSpec {
            name,
            queue,
            dead_letter,
            policy,
            target,
            calls,
        } = spec;
        let queue = queue.map(|name| Queue {
            name: QueueName::new(name),
            dead_letter,
        });
        let pipeline = Pipeline::new(&name, target, queue, policy, self.sampler.clone());
        let (sender, reports) = watch::channel(None);
        let handle = TargetHandle {
            nudge: Arc::default(),
            reports,
            stop: self.added.stop.child_token(),
        };
        let ticking = Ticking {
            pipeline,
            calls,
            nudge: Arc::clone(&handle.nudge),
            reports: sender,
            stop: handle.stop.clone(),
            epoch: self.epoch,
        };
        self.added
            .loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::pin(ticking.run()));
        self.added.news.notify_one();
        handle
    }
}

impl Added {
    /// Runs the loops of all targets, those that are added meanwhile too.
    async fn run(&self, shutdown: &Shutdown) {
        let mut loops = JoinSet::new();
        loop {
            for added in std::mem::take(&mut *self.loops.lock().unwrap_or_else(PoisonError::into_inner)) {
                loops.spawn(added);
            }
            // All branches are cancel safe.
            tokio::select! {
                () = shutdown.draining() => break,
                () = self.news.notified() => {}
                Some(ended) = loops.join_next() => surface(ended),
            }
        }
        self.stop.cancel();
        tokio::select! {
            () = async { while let Some(ended) = loops.join_next().await { surface(ended) } } => {}
            () = shutdown.forced() => {}
        }
    }
}

/// A panic in one target's loop must not go unnoticed: nobody would scale it any more.
fn surface(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The loop of one target.
struct Ticking<T> {
    pipeline: Pipeline<T>,
    calls: watch::Receiver<Calls>,
    nudge: Arc<Notify>,
    reports: watch::Sender<Option<Report>>,
    stop: CancellationToken,
    epoch: Instant,
}

impl<T: ScaleTarget> Ticking<T> {
    async fn run(mut self) {
        let mut changed = false;
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            changed |= self.calls.has_changed().unwrap_or(false);
            let calls = *self.calls.borrow_and_update();
            let report = self.pipeline.tick(CallNews { calls, changed }).await;
            changed = false;
            let due = next_tick(self.epoch, Instant::now(), interval(&report));
            let is_at_zero = report.is_at_zero();
            self.publish(report);
            // All branches are cancel safe; a change of `calls` that is not waited for is seen by the next tick.
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep_until(due) => {}
                () = self.nudge.notified() => {}
                () = call(&mut self.calls), if is_at_zero => changed = true,
            }
            sleep_until(began + LEAST).await;
        }
    }

    fn publish(&self, report: Report) {
        self.reports.send_if_modified(|last| {
            let is_news = last.as_ref() != Some(&report);
            *last = Some(report);
            is_news
        });
    }
}

/// Waits for a call to come or go; for ever when nobody tells any more. Cancel safe.
async fn call(calls: &mut watch::Receiver<Calls>) {
    if calls.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn interval(report: &Report) -> Duration {
    let is_draining = report.replicas.is_some_and(|counts| counts.draining > 0);
    let is_followed_up = matches!(report.decision, Decision::Resume { .. } | Decision::Drain { .. });
    // A fleet that is not known may be at zero.
    let is_urgent = report.replicas.is_none() || report.is_at_zero() || is_draining || is_followed_up;
    if is_urgent { AT_ZERO } else { RUNNING }
}

/// The first multiple of `interval` from `epoch` after `now`.
fn next_tick(epoch: Instant, now: Instant, interval: Duration) -> Instant {
    let since = now.saturating_duration_since(epoch).as_nanos();
    let into = Duration::from_nanos(u64::try_from(since % interval.as_nanos()).unwrap_or(0));
    now + interval.saturating_sub(into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ticks_of_all_targets_fall_together() {
        let epoch = Instant::now();
        let at = |millis| epoch + Duration::from_millis(millis);
        assert_eq!(next_tick(epoch, at(0), AT_ZERO), at(250));
        assert_eq!(next_tick(epoch, at(249), AT_ZERO), at(250));
        assert_eq!(next_tick(epoch, at(250), AT_ZERO), at(500));
        assert_eq!(next_tick(epoch, at(10), RUNNING), at(1000));
        assert_eq!(next_tick(epoch, at(1999), RUNNING), at(2000));
    }
}
