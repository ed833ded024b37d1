//! Everything the injector tells about itself: one function an event, so that log line and metric never disagree.
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `injector_admission_requests_total` | counter | `operation`, `kind` |
//! | `injector_decisions_total` | counter | `decision`, `reason` |
//! | `injector_admission_duration_seconds` | histogram | `decision` |
//! | `injector_rejections_total` | counter | `reason` |
//! | `injector_certificate_expiry_timestamp_seconds` | gauge | – |
//! | `injector_certificate_reloads_total` | counter | `result` = `ok`, `failed` |
//! | `injector_cluster_changes_total` | counter | `part`, `change` |
//! | `injector_cluster_failures_total` | counter | `part` |
//!
//! Labels come from enums. The log says what was changed or refused, and every change of the certificate; what was
//! left alone is for `debug`. Objects are never logged: they may hold credentials.

#![expect(
    clippy::disallowed_macros,
    reason = "this is the one module that names metrics"
)]

use crate::domain::admission::{Admission, Outcome};
use crate::domain::review::{Kind, Operation};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

const REQUESTS: &str = "injector_admission_requests_total";
const DECISIONS: &str = "injector_decisions_total";
const DURATION: &str = "injector_admission_duration_seconds";
const REJECTIONS: &str = "injector_rejections_total";
const EXPIRY: &str = "injector_certificate_expiry_timestamp_seconds";
const RELOADS: &str = "injector_certificate_reloads_total";
const CHANGES: &str = "injector_cluster_changes_total";
const FAILURES: &str = "injector_cluster_failures_total";

/// Describes every metric to the recorder that is installed.
pub(crate) fn describe() {
    describe_counter!(REQUESTS, "Reviews by what is asked about.");
    describe_counter!(DECISIONS, "Reviews by what was decided.");
    describe_histogram!(DURATION, Unit::Seconds, "From a whole review to its answer.");
    describe_counter!(REJECTIONS, "Requests that were no review, by reason.");
    describe_gauge!(EXPIRY, Unit::Seconds, "When the certificate in use ends.");
    describe_counter!(RELOADS, "Changes of the certificate, by result.");
    describe_counter!(CHANGES, "What this replica has changed in the cluster.");
    describe_counter!(
        FAILURES,
        "Looks at the cluster that failed, by what they were for."
    );
}

/// A review was answered; `subject` is unknown when it had no object.
pub(crate) fn answered(subject: Option<(Operation, Kind)>, uid: &str, admission: &Admission, took: Duration) {
    let (operation, kind) = subject.map_or(("other", "other"), |(operation, kind)| {
        (operation.as_str(), kind.as_str())
    });
    let (decision, reason) = (admission.outcome.as_str(), admission.outcome.reason());
    counter!(REQUESTS, "operation" => operation, "kind" => kind).increment(1);
    counter!(DECISIONS, "decision" => decision, "reason" => reason).increment(1);
    histogram!(DURATION, "decision" => decision).record(took);
    match admission.outcome {
        Outcome::Skip(_) => tracing::debug!(uid, operation, kind, decision, reason, "review answered"),
        Outcome::Patch(..) | Outcome::Deny(..) => {
            tracing::info!(uid, operation, kind, decision, reason, "review answered");
        }
    }
}

/// The body of a request was no review.
pub(crate) fn not_a_review(sentence: &str) {
    rejected("not_a_review");
    tracing::debug!(sentence, "not a review");
}

/// A request was answered without being read as a review.
pub(crate) fn rejected(reason: &'static str) {
    counter!(REJECTIONS, "reason" => reason).increment(1);
}

/// A certificate is in use from now on, until `expiry`, seconds since 1970.
pub(crate) fn certificate_loaded(expiry: i64) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds since 1970 fit for millions of years"
    )]
    gauge!(EXPIRY).set(expiry as f64);
    counter!(RELOADS, "result" => "ok").increment(1);
    tracing::info!(expiry, "certificate in use");
}

/// A new certificate cannot be used; the one before stays in use.
pub(crate) fn certificate_refused(sentence: &str) {
    counter!(RELOADS, "result" => "failed").increment(1);
    tracing::warn!(sentence, "the certificate stays as it is");
}

/// Something in the cluster was changed: a Secret of ours, or what the API server trusts.
pub(crate) fn cluster_changed(part: &'static str, change: &'static str) {
    counter!(CHANGES, "part" => part, "change" => change).increment(1);
    tracing::info!(part, change, "changed in the cluster");
}

/// What a Secret of ours holds cannot be used and is replaced.
pub(crate) fn secret_unusable(secret: &str, sentence: &str) {
    tracing::warn!(secret, sentence, "the Secret cannot be used, it is replaced");
}

/// The cluster could not be looked at, or what is missing in it is not ours to make; `is_new` when that was not so
/// already at the look before.
pub(crate) fn cluster_failed(part: &'static str, sentence: &str, is_new: bool) {
    counter!(FAILURES, "part" => part).increment(1);
    if is_new {
        tracing::warn!(part, sentence, "goes on with what is there");
    }
}

/// The cluster can be looked at again.
pub(crate) fn cluster_recovered(part: &'static str) {
    tracing::info!(part, "the cluster can be looked at again");
}
