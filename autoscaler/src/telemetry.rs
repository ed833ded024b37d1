//! Everything that the autoscaler logs and counts, one function an event. Names and labels are listed here only.
#![expect(clippy::disallowed_macros, reason = "metrics are named in telemetry.rs")]

use crate::domain::{Counts, Decision, Depth, HoldReason, QueueName, QueueSample, SampleError};
use crate::report::Report;
use amqp::topology::Ensured;
use contract::broker::BrokerUrl;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

const QUEUE_MESSAGES: &str = "autoscaler_queue_messages";
const SAMPLE_DURATION: &str = "autoscaler_sample_duration_seconds";
const SAMPLE_AGE: &str = "autoscaler_sample_age_seconds";
const DECISIONS: &str = "autoscaler_decisions_total";
const REPLICAS: &str = "autoscaler_replicas";
const SCALE_CHANGES: &str = "autoscaler_scale_changes_total";
const RECONCILE_DURATION: &str = "autoscaler_reconcile_duration_seconds";
// Those on a cluster only, `kubernetes/telemetry.rs`.
pub(crate) const LEADER: &str = "autoscaler_leader";
pub(crate) const TARGETS: &str = "autoscaler_targets";
pub(crate) const API_ERRORS: &str = "autoscaler_api_errors_total";

/// Describes every metric. Repeating it changes nothing.
pub(crate) fn describe() {
    describe_gauge!(
        QUEUE_MESSAGES,
        Unit::Count,
        "Messages of a target: ready, and in flight (unacked)."
    );
    describe_histogram!(SAMPLE_DURATION, Unit::Seconds, "How long a batch of depths took.");
    describe_gauge!(
        SAMPLE_AGE,
        Unit::Seconds,
        "Time since a target's queue depth was last known."
    );
    describe_counter!(DECISIONS, Unit::Count, "Ticks by decision and reason.");
    describe_gauge!(
        REPLICAS,
        Unit::Count,
        "Replicas of a target: desired, current (with starting ones), ready."
    );
    describe_counter!(
        SCALE_CHANGES,
        Unit::Count,
        "Decisions that were applied, by direction and result."
    );
    describe_histogram!(
        RECONCILE_DURATION,
        Unit::Seconds,
        "How long a tick took, sample to apply."
    );
}

pub(crate) fn broker_connected(broker: &BrokerUrl) {
    info!(%broker, "connected to the broker");
}

pub(crate) fn broker_lost(broker: &BrokerUrl, cause: &str) {
    warn!(%broker, cause, "lost the broker, holding every target");
}

pub(crate) fn broker_unreachable(broker: &BrokerUrl, error: &amqp::Error) {
    warn!(%broker, %error, "cannot connect to the broker, holding every target and trying again");
}

pub(crate) fn queue_ensured(queue: &str, ensured: &Ensured) {
    if ensured.created {
        info!(messaging.destination.name = queue, "made the queue");
    }
    for risk in &ensured.risks {
        warn!(
            messaging.destination.name = queue,
            risk = risk.as_str(),
            "messages can be lost in this queue: {risk}"
        );
    }
}

pub(crate) fn queue_not_ensured(queue: &QueueName, why: &str) {
    warn!(messaging.destination.name = %queue, error = why, "cannot make sure that the queue exists");
}

pub(crate) fn sampled(source: &'static str, results: &[Result<Depth, SampleError>], took: Duration) {
    // A batch with one missing queue is a good batch; one without any answer is not.
    let result = match results.iter().find(|result| result.is_ok()).or(results.first()) {
        Some(Err(error)) => error.kind(),
        Some(Ok(_)) | None => "ok",
    };
    histogram!(SAMPLE_DURATION, "source" => source, "result" => result).record(took.as_secs_f64());
}

/// The log and the metrics of one target.
#[derive(Debug)]
pub(crate) struct TargetTelemetry {
    target: String,
    last: Option<Report>,
    last_known: Option<Instant>,
}

impl TargetTelemetry {
    pub(crate) fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            last: None,
            last_known: None,
        }
    }

    /// Counts every tick and logs what is new in it.
    pub(crate) fn ticked(&mut self, report: &Report, queue: &QueueSample, at: Instant, took: Duration) {
        self.measure(report, queue, at, took);
        if self
            .last
            .as_ref()
            .is_none_or(|last| last.decision != report.decision)
        {
            self.log_decision(report);
        }
        if let Some(trouble) = &report.trouble
            && self
                .last
                .as_ref()
                .is_none_or(|last| last.trouble.as_ref() != Some(trouble))
        {
            let decision = report.decision.as_str();
            warn!(
                target = self.target,
                decision,
                error = trouble,
                "cannot apply the decision, trying again"
            );
        }
        self.last = Some(report.clone());
    }

    fn log_decision(&self, report: &Report) {
        let Report {
            decision,
            sentence,
            desired,
            ready,
            ..
        } = report;
        let counts = report.replicas.unwrap_or_default();
        let (current, unacked) = (counts.active(), counts.in_flight);
        let (target, reason) = (&self.target, decision.reason());
        let decision_word = decision.as_str();
        match decision {
            Decision::Hold {
                reason: HoldReason::SampleUnknown | HoldReason::FleetUnknown | HoldReason::CallsUnknown,
            } => {
                warn!(target, decision = decision_word, reason, current, "{sentence}");
            }
            Decision::Hold { .. } => {
                debug!(
                    target,
                    decision = decision_word,
                    reason,
                    desired,
                    current,
                    sample.ready = ready,
                    sample.unacked = unacked,
                    "{sentence}"
                );
            }
            Decision::ScaleUp { .. }
            | Decision::Resume { .. }
            | Decision::Drain { .. }
            | Decision::Remove { .. } => {
                info!(
                    target,
                    decision = decision_word,
                    reason,
                    desired,
                    current,
                    sample.ready = ready,
                    sample.unacked = unacked,
                    "{sentence}"
                );
            }
        }
    }

    fn measure(&mut self, report: &Report, queue: &QueueSample, at: Instant, took: Duration) {
        let target = || self.target.clone();
        let decision = &report.decision;
        counter!(DECISIONS, "decision" => decision.as_str(), "reason" => decision.reason()).increment(1);
        gauge!(REPLICAS, "target" => target(), "kind" => "desired").set(f64::from(report.desired));
        if let Some(Counts {
            starting,
            ready,
            draining,
            in_flight,
        }) = report.replicas
        {
            let current = starting + ready + draining;
            gauge!(REPLICAS, "target" => target(), "kind" => "current").set(f64::from(current));
            gauge!(REPLICAS, "target" => target(), "kind" => "ready").set(f64::from(ready));
            gauge!(QUEUE_MESSAGES, "target" => target(), "state" => "unacked").set(approximate(in_flight));
        }
        if let Some(ready) = report.ready {
            gauge!(QUEUE_MESSAGES, "target" => target(), "state" => "ready").set(approximate(ready));
        }
        match queue {
            QueueSample::NoQueue => {}
            QueueSample::Known(_) => self.last_known = Some(at),
            // Age counts from the first tick when nothing was ever known.
            QueueSample::Unknown(_) => self.last_known = self.last_known.or(Some(at)),
        }
        if let Some(known) = self.last_known {
            let age = at.saturating_duration_since(known);
            gauge!(SAMPLE_AGE, "target" => self.target.clone()).set(age.as_secs_f64());
        }
        let result = if report.trouble.is_some() { "failed" } else { "ok" };
        histogram!(RECONCILE_DURATION, "result" => result).record(took.as_secs_f64());
        let direction = match decision {
            Decision::ScaleUp { .. } | Decision::Resume { .. } => "up",
            Decision::Drain { .. } | Decision::Remove { .. } => "down",
            Decision::Hold { .. } => return,
        };
        counter!(SCALE_CHANGES, "direction" => direction, "result" => result).increment(1);
    }
}

/// A gauge is a float; above 2^53 messages it rounds.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn approximate(count: u64) -> f64 {
    count as f64
}
