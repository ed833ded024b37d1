//! Everything the sidecar says about itself: one function an event, with its metric and its log line together. Names
//! are written as a dashboard shows them. Without a recorder the metrics cost next to nothing.
#![expect(
    clippy::disallowed_macros,
    reason = "this is the room in which metrics are named"
)]

use crate::domain::lever::Refused;
use crate::domain::outcome::Outcome;
use crate::domain::verdict::Verdict;
use crate::status::{Fate, State};
use amqp::topology::Risk;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;
use tracing::{debug, info, warn};

const IN_FLIGHT: &str = "sidecar_deliveries_in_flight";
const OUTCOMES: &str = "sidecar_dispatch_outcomes_total";
const VERDICTS: &str = "sidecar_verdicts_total";
const SETTLEMENTS: &str = "sidecar_settlements_total";
const DURATION: &str = "messaging_process_duration_seconds";
const RETRY_DELAY: &str = "sidecar_retry_delay_seconds";
const CONNECTED: &str = "sidecar_broker_connected";
const CONNECTION_LOSSES: &str = "sidecar_broker_connection_losses_total";
const COPY_FAILURES: &str = "sidecar_copy_failures_total";
const LEVER_REFUSALS: &str = "sidecar_lever_refusals_total";

/// Tells the recorder what every metric means.
pub fn describe() {
    describe_gauge!(
        IN_FLIGHT,
        Unit::Count,
        "Deliveries between dispatch and settlement."
    );
    describe_counter!(
        OUTCOMES,
        Unit::Count,
        "POSTs to the worker by how they ended on the wire."
    );
    describe_counter!(
        VERDICTS,
        Unit::Count,
        "Processed deliveries by verdict and reason."
    );
    describe_counter!(SETTLEMENTS, Unit::Count, "Messages by fate; each exactly once.");
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time from dispatch to the end of the worker's answer."
    );
    describe_histogram!(
        RETRY_DELAY,
        Unit::Seconds,
        "Chosen delays before another attempt."
    );
    describe_gauge!(CONNECTED, Unit::Count, "1 while the broker is connected, else 0.");
    describe_counter!(CONNECTION_LOSSES, Unit::Count, "Broker connections lost.");
    describe_counter!(
        COPY_FAILURES,
        Unit::Count,
        "Retry and dead-letter copies that the broker did not confirm; each is tried again."
    );
    describe_counter!(
        LEVER_REFUSALS,
        Unit::Count,
        "Calls of /drain and /resume that were refused, by reason."
    );
}

/// The names of all metrics, for the reference page and its test.
pub const METRICS: [&str; 10] = [
    IN_FLIGHT,
    OUTCOMES,
    VERDICTS,
    SETTLEMENTS,
    DURATION,
    RETRY_DELAY,
    CONNECTED,
    CONNECTION_LOSSES,
    COPY_FAILURES,
    LEVER_REFUSALS,
];

/// A delivery goes to the worker.
pub fn begun() {
    gauge!(IN_FLIGHT).increment(1);
}

/// A delivery left the sidecar, whatever its fate.
pub fn ended() {
    gauge!(IN_FLIGHT).decrement(1);
}

/// A delivery was dispatched and judged.
pub fn judged(outcome: &Outcome, verdict: &Verdict, attempt: u32, took: Duration) {
    counter!(OUTCOMES, "outcome" => outcome.as_str()).increment(1);
    counter!(VERDICTS, "verdict" => verdict.as_str(), "reason" => verdict.reason().as_str()).increment(1);
    histogram!(DURATION).record(took.as_secs_f64());
    if let Verdict::Retry { delay, .. } = verdict {
        histogram!(RETRY_DELAY).record(delay.as_secs_f64());
    }
    debug!(
        verdict = verdict.as_str(),
        reason = verdict.reason().as_str(),
        attempt,
        duration_seconds = took.as_secs_f64(),
        "delivery processed"
    );
}

/// A message met its fate.
pub fn settled(fate: Fate) {
    counter!(SETTLEMENTS, "fate" => fate.as_str()).increment(1);
}

/// The state changed.
pub fn state_changed(queue: &str, state: State) {
    info!(queue, state = state.as_str(), "state changed");
}

/// The broker is connected.
pub fn connected(broker: &str, generation: u64) {
    gauge!(CONNECTED).set(1.0);
    info!(broker, generation, "broker connected");
}

/// The broker is not connected any more; one line, whatever the number of tries that follow.
pub fn disconnected(broker: &str, cause: &str) {
    gauge!(CONNECTED).set(0.0);
    counter!(CONNECTION_LOSSES).increment(1);
    warn!(
        broker,
        cause, "broker connection lost; connecting again until it succeeds"
    );
}

/// The broker cannot be connected; said when the cause changes.
pub fn cannot_connect(broker: &str, cause: &str) {
    warn!(broker, cause, "broker cannot be used; trying until it can");
}

/// The broker refuses the subscription; said when the cause changes.
pub fn cannot_subscribe(queue: &str, cause: &str) {
    warn!(queue, cause, "the queue cannot be consumed; trying until it can");
}

/// Consuming ended without our doing while the connection lives.
pub fn consumer_ended(queue: &str, cause: &str) {
    warn!(queue, cause, "the broker ended the consumer; subscribing again");
}

/// The worker stopped answering.
pub fn worker_gone(queue: &str) {
    warn!(
        queue,
        "the worker's port does not answer; intake is paused until it does"
    );
}

/// A queue of ours was made.
pub fn queue_made(queue: &str) {
    info!(queue, "queue declared: durable, quorum");
}

/// A queue that existed can lose messages.
pub fn queue_at_risk(queue: &str, risk: &Risk) {
    warn!(
        queue,
        risk = risk.as_str(),
        "queue {queue} is used as it is, but {risk}"
    );
}

/// A copy was not confirmed for the first time since one was.
pub fn copies_failing(queue: &str, cause: &str) {
    warn!(
        queue,
        cause,
        "a retry or dead-letter copy is not confirmed; its original stays unacknowledged and the copy is tried again"
    );
}

/// A copy was not confirmed.
pub fn copy_failed(kind: &'static str) {
    counter!(COPY_FAILURES, "error" => kind).increment(1);
}

/// Copies are confirmed again.
pub fn copies_confirmed_again(queue: &str) {
    info!(queue, "copies are confirmed again");
}

/// Somebody who may not do so asked to drain or to resume. Anybody can ask at any rate: it is counted, and logged for
/// those who look for it only.
pub fn lever_refused(path: &str, reason: Refused) {
    counter!(LEVER_REFUSALS, "reason" => reason.as_str()).increment(1);
    debug!(path, reason = reason.as_str(), "a lever of intake was refused");
}

/// The sidecar has no queue.
pub fn only_reports() {
    info!("no queue: no message is taken, and what is known of the worker is reported");
}
