//! Everything that the autoscaler on a cluster logs and counts beside its ticks, one function an event.
#![expect(clippy::disallowed_macros, reason = "metrics are named in telemetry.rs")]

use super::events::Reason;
use super::workload::Key;
use crate::telemetry::{API_ERRORS, LEADER, TARGETS};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use tracing::{debug, info, warn};

/// What was asked of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Scale,
    Annotate,
    Pods,
    Event,
    Lease,
    Key,
    Conflicts,
}

impl Request {
    fn as_str(self) -> &'static str {
        match self {
            Self::Scale => "scale",
            Self::Annotate => "annotate",
            Self::Pods => "pods",
            Self::Event => "event",
            Self::Lease => "lease",
            Self::Key => "key",
            Self::Conflicts => "conflicts",
        }
    }
}

pub(super) fn describe() {
    describe_gauge!(
        LEADER,
        Unit::Count,
        "1 while this autoscaler is the one that acts."
    );
    describe_gauge!(TARGETS, Unit::Count, "Workloads that this autoscaler scales now.");
    describe_counter!(
        API_ERRORS,
        Unit::Count,
        "Requests that the API server refused or did not answer, by what was asked and why."
    );
    gauge!(LEADER).set(0.0);
    gauge!(TARGETS).set(0.0);
}

pub(super) fn api_error(request: Request, error: &kube::Error) {
    let reason = match error {
        kube::Error::Api(status) => match status.code {
            401 | 403 => "forbidden",
            404 => "not_found",
            409 => "conflict",
            422 => "invalid",
            429 => "too_many_requests",
            _ => "refused",
        },
        _ => "unreachable",
    };
    counter!(API_ERRORS, "request" => request.as_str(), "reason" => reason).increment(1);
    debug!(request = request.as_str(), reason, %error, "the API server did not do it");
}

pub(super) fn leading(identity: &str) {
    gauge!(LEADER).set(1.0);
    info!(identity, "leading: this autoscaler acts");
}

pub(super) fn led_no_more(identity: &str, why: &str) {
    gauge!(LEADER).set(0.0);
    warn!(identity, why, "leading no more: this autoscaler stands by");
}

pub(super) fn released(identity: &str) {
    gauge!(LEADER).set(0.0);
    info!(identity, "the Lease was given back");
}

pub(super) fn follows(leader: &str) {
    info!(leader, "standing by");
}

pub(super) fn targets(count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    gauge!(TARGETS).set(f64::from(count));
}

pub(super) fn target_added(key: &Key) {
    info!(target = %key, "scaling");
}

pub(super) fn target_removed(key: &Key) {
    info!(target = %key, "scaling no more");
}

pub(super) fn event(key: &Key, reason: Reason, note: &str) {
    if reason.is_warning() {
        warn!(target = %key, reason = reason.as_str(), "{note}");
    } else {
        debug!(target = %key, reason = reason.as_str(), "{note}");
    }
}

pub(super) fn views_missing(kinds: &str, trouble: Option<&str>) {
    warn!(
        kinds,
        trouble, "still waiting for the API server to list what there is"
    );
}

pub(super) fn key_missing(why: &str) {
    warn!(error = why, "pods cannot be told to drain");
}

pub(super) fn key_read() {
    info!("the key for draining was read");
}

pub(super) fn activators_silent(sentence: &str) {
    warn!(
        error = sentence,
        "not all calls are known: the last replica of each workload stays"
    );
}

pub(super) fn activators_told() {
    info!("all calls are known");
}

pub(super) fn trying_again(what: &str, key: &Key, error: &str) {
    warn!(target = %key, error, "cannot {what}, trying again");
}
