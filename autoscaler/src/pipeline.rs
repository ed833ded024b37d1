//! Life of a tick: what is known, what is to be done, doing it. Read this first.
//!
//! ```text
//! sample   the queue's depth (source/), then the replicas (target.rs), each within a deadline
//! decide   one decision for one sample (domain/decide.rs)
//! apply    scale up, resume, drain, remove or hold (target.rs), within a deadline
//! ```
//!
//! A tick has one exit, its [`Report`]. What fails is known as not known, never as zero, and is tried again by the
//! next tick. Dropping a tick leaves a target that the next tick finds as it is.

use crate::domain::{
    Calls, Decision, Depth, Memory, Policy, QueueName, QueueSample, Sample, SampleError, decide, sentence,
};
use crate::report::Report;
use crate::source::Sampler;
use crate::target::{Fleet, ScaleTarget, TargetError};
use crate::telemetry::TargetTelemetry;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The longest wait for a depth: a source answers sooner, but another target's batch may be before ours.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(5);
/// The longest wait for a depth while a caller waits for the first replica, which the call alone is reason enough
/// for. A passive declare takes less than a millisecond when all is well.
const WAKE_PATIENCE: Duration = Duration::from_millis(20);
/// The longest that the target may take to tell its replicas.
const OBSERVE_PATIENCE: Duration = Duration::from_secs(2);
/// The longest that the target may take to change its replicas.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);

/// What the activators tell at a tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallNews {
    /// Calls that wait or are being answered.
    pub(crate) calls: Calls,
    /// Whether one came or went since the tick before.
    pub(crate) changed: bool,
}

/// The queue of a target.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: QueueName,
    /// Makes the queue unless it exists, with this one behind it.
    pub(crate) dead_letter: Option<String>,
}

/// One target between its ticks.
pub(crate) struct Pipeline<T> {
    target: T,
    queue: Option<Queue>,
    policy: Policy,
    memory: Memory,
    sampler: Sampler,
    telemetry: TargetTelemetry,
    is_at_zero: bool,
}

impl<T: ScaleTarget> Pipeline<T> {
    pub(crate) fn new(name: &str, target: T, queue: Option<Queue>, policy: Policy, sampler: Sampler) -> Self {
        let (memory, telemetry) = (Memory::new(&policy), TargetTelemetry::new(name));
        Self {
            target,
            queue,
            policy,
            memory,
            sampler,
            telemetry,
            is_at_zero: true,
        }
    }

    /// One tick.
    pub(crate) async fn tick(&mut self, calls: CallNews) -> Report {
        let began = Instant::now();
        let sample = self.sample(calls).await;
        let assessment = decide(&mut self.memory, &self.policy, &sample);
        let applied = self.apply(&assessment.decision).await;

        let sentence = sentence::of(&assessment, &self.policy);
        let report = Report::new(assessment, sentence, applied.err().map(|error| error.reason));
        self.telemetry
            .ticked(&report, &sample.queue, sample.at, began.elapsed());
        self.is_at_zero = report.is_at_zero();
        report
    }

    /// Depth first, then replicas: a message that is delivered in between is counted twice rather than not at all.
    async fn sample(&self, calls: CallNews) -> Sample {
        let queue = match &self.queue {
            None => QueueSample::NoQueue,
            Some(queue) => self
                .depth(queue, calls)
                .await
                .map_or_else(QueueSample::Unknown, QueueSample::Known),
        };
        let fleet = self.observe().await;
        Sample {
            at: Instant::now().into_std(),
            queue,
            calls: calls.calls.count(),
            is_calls_known: calls.calls.is_known(),
            called: calls.changed,
            fleet,
        }
    }

    async fn depth(&self, queue: &Queue, calls: CallNews) -> Result<Depth, SampleError> {
        let is_wake = calls.calls.count() > 0 && self.is_at_zero;
        let patience = if is_wake { WAKE_PATIENCE } else { SAMPLE_PATIENCE };
        self.sampler
            .depth(&queue.name, queue.dead_letter.as_deref(), patience)
            .await
    }

    async fn observe(&self) -> Result<Fleet, TargetError> {
        bounded("tell its replicas", OBSERVE_PATIENCE, self.target.observe()).await
    }

    async fn apply(&self, decision: &Decision) -> Result<(), TargetError> {
        let target = &self.target;
        match decision {
            Decision::ScaleUp { to, .. } => bounded("scale up", APPLY_PATIENCE, target.scale_up(*to)).await,
            Decision::Resume { replicas, .. } => {
                bounded("resume", APPLY_PATIENCE, target.resume(replicas)).await
            }
            Decision::Drain { victims, .. } => bounded("drain", APPLY_PATIENCE, target.drain(victims)).await,
            Decision::Remove { replicas } => bounded("remove", APPLY_PATIENCE, target.remove(replicas)).await,
            Decision::Hold { .. } => Ok(()),
        }
    }
}

/// The target's answer, or that there was none in time.
async fn bounded<A>(
    what: &str,
    patience: Duration,
    answer: impl Future<Output = Result<A, TargetError>>,
) -> Result<A, TargetError> {
    let late = TargetError {
        reason: format!("the target did not {what} within {} s", patience.as_secs()),
    };
    timeout(patience, answer).await.unwrap_or(Err(late))
}
