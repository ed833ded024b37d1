//! Everything the sidecar says about itself: one function an event, with its metric and its log line together. Names
//! are written as a dashboard shows them. Without a recorder the metrics cost next to nothing.
#![expect(
    clippy::disallowed_macros,
    reason = "this is the room in which metrics are named"
)]

use crate::domain::lever::Refused;
use crate::domain::outcome::Outcome;
use crate::domain::reply;
use crate::domain::verdict::{Reason, Verdict};
use crate::status::{Fate, State};
use amqp::topology::Risk;
use amqp::version::Server;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use std::sync::OnceLock;
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
const REPLIES: &str = "sidecar_replies_total";
const STALLS: &str = "sidecar_stalls_total";
const CONSUMER_ENDS: &str = "sidecar_consumer_ends_total";
const HOLDING: &str = "sidecar_holding";
const DEFERRALS: &str = "sidecar_deferrals_total";
const LEVER_REFUSALS: &str = "sidecar_lever_refusals_total";
const PREFETCH: &str = "sidecar_prefetch";
const MENDED: &str = "sidecar_mended_total";
const BROKER_INFO: &str = "sidecar_broker_info";

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
    describe_counter!(REPLIES, Unit::Count, "Replies by what became of them.");
    describe_counter!(
        STALLS,
        Unit::Count,
        "Connections given up because messages waited and none was delivered."
    );
    describe_counter!(
        CONSUMER_ENDS,
        Unit::Count,
        "Subscriptions that the broker ended while the connection lived, by cause."
    );
    describe_gauge!(
        HOLDING,
        Unit::Count,
        "1 while something at the broker holds the sidecar up, by reason."
    );
    describe_counter!(
        DEFERRALS,
        Unit::Count,
        "Deferred messages by how the wait for them ended."
    );
    describe_counter!(
        LEVER_REFUSALS,
        Unit::Count,
        "Calls of /drain and /resume that were refused, by reason."
    );
    describe_gauge!(
        PREFETCH,
        Unit::Count,
        "Deliveries that the broker may hand over at once; less than usual while bodies are large."
    );
    describe_counter!(
        MENDED,
        Unit::Count,
        "Frames of messages that were not legible as their publisher wrote them, by what was mended."
    );
    describe_gauge!(
        BROKER_INFO,
        Unit::Count,
        "1 for what the connected broker says that it is, else 0."
    );
    begin_at_zero();
}

/// An alert can only watch what is there before it happens.
fn begin_at_zero() {
    counter!(STALLS).increment(0);
    for cause in ConsumerEnd::ALL {
        counter!(CONSUMER_ENDS, "cause" => cause.as_str()).increment(0);
    }
    for what in Illegible::ALL {
        counter!(MENDED, "what" => what.as_str()).increment(0);
    }
    for reason in HoldReason::ALL {
        gauge!(HOLDING, "reason" => reason.as_str()).increment(0);
    }
}

/// The names of all metrics, for the reference page and its test.
pub const METRICS: [&str; 18] = [
    IN_FLIGHT,
    OUTCOMES,
    VERDICTS,
    SETTLEMENTS,
    DURATION,
    RETRY_DELAY,
    CONNECTED,
    CONNECTION_LOSSES,
    COPY_FAILURES,
    REPLIES,
    STALLS,
    CONSUMER_ENDS,
    HOLDING,
    DEFERRALS,
    LEVER_REFUSALS,
    PREFETCH,
    MENDED,
    BROKER_INFO,
];

/// The metrics of a message that is accepted. To look one up by name and labels costs more than to count with it, so each
/// is looked up once, when it is needed first. Those of other fates are rarer than the copies that they go with.
#[derive(Debug, Default)]
pub struct Meters {
    in_flight: OnceLock<Gauge>,
    duration: OnceLock<Histogram>,
    answered: OnceLock<Counter>,
    succeeded: OnceLock<Counter>,
    accepted: OnceLock<Counter>,
}

impl Meters {
    /// A delivery goes to the worker.
    pub fn begun(&self) {
        self.in_flight.get_or_init(|| gauge!(IN_FLIGHT)).increment(1);
    }

    /// A delivery left the sidecar, whatever its fate.
    pub fn ended(&self) {
        self.in_flight.get_or_init(|| gauge!(IN_FLIGHT)).decrement(1);
    }

    /// A delivery was dispatched and judged.
    pub fn judged(&self, outcome: &Outcome, verdict: &Verdict, attempt: u32, took: Duration) {
        match outcome {
            Outcome::Answered(_) => self
                .answered
                .get_or_init(|| outcome_counter(outcome))
                .increment(1),
            other => outcome_counter(other).increment(1),
        }
        match verdict {
            Verdict::Accepted(Reason::Succeeded) => {
                self.succeeded
                    .get_or_init(|| verdict_counter(verdict))
                    .increment(1);
            }
            other => verdict_counter(other).increment(1),
        }
        let duration = self.duration.get_or_init(|| histogram!(DURATION));
        duration.record(took.as_secs_f64());
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
    pub fn settled(&self, fate: Fate) {
        match fate {
            Fate::Accepted => self.accepted.get_or_init(|| fate_counter(fate)).increment(1),
            other => fate_counter(other).increment(1),
        }
    }
}

fn outcome_counter(outcome: &Outcome) -> Counter {
    counter!(OUTCOMES, "outcome" => outcome.as_str())
}

fn verdict_counter(verdict: &Verdict) -> Counter {
    counter!(VERDICTS, "verdict" => verdict.as_str(), "reason" => verdict.reason().as_str())
}

fn fate_counter(fate: Fate) -> Counter {
    counter!(SETTLEMENTS, "fate" => fate.as_str())
}

/// The broker may hand over so many deliveries at once from now on.
pub fn subscribed(queue: &str, prefetch: u16) {
    gauge!(PREFETCH).set(prefetch);
    debug!(queue, prefetch, "subscribed");
}

/// A delivery was judged without its worker.
pub fn recalled(verdict: &Verdict) {
    verdict_counter(verdict).increment(1);
    debug!(
        verdict = verdict.as_str(),
        reason = verdict.reason().as_str(),
        "delivery processed"
    );
}

/// The state changed.
pub fn state_changed(queue: &str, state: State) {
    info!(queue, state = state.as_str(), "state changed");
}

/// The broker is connected.
pub fn connected(broker: &str, server: Option<&Server>, generation: u64) {
    gauge!(CONNECTED).set(1.0);
    set_broker_info(server, 1.0);
    let server = server.map(ToString::to_string);
    let server = server.as_deref().unwrap_or("unknown");
    info!(broker, server, generation, "broker connected");
}

/// Anything but RabbitMQ is one word: what it says of itself is its own affair.
fn set_broker_info(server: Option<&Server>, value: f64) {
    let Some(server) = server else { return };
    let (product, version) = match server.rabbitmq() {
        Some(version) => ("rabbitmq", version.to_string()),
        None => ("other", String::new()),
    };
    gauge!(BROKER_INFO, "product" => product, "version" => version).set(value);
}

/// The broker is not connected any more; one line, whatever the number of tries that follow.
pub fn disconnected(broker: &str, server: Option<&Server>, cause: &str) {
    gauge!(CONNECTED).set(0.0);
    set_broker_info(server, 0.0);
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
pub fn cannot_subscribe(queue: &str, cause: &str) -> Holding {
    warn!(queue, cause, "the queue cannot be consumed; trying until it can");
    Holding::because(HoldReason::CannotSubscribe)
}

/// Something at the broker holds the sidecar up for as long as this lives.
#[derive(Debug)]
#[must_use = "it holds for as long as the value lives"]
pub struct Holding(HoldReason);

#[derive(Debug, Clone, Copy)]
enum HoldReason {
    CannotSubscribe,
    Blocked,
    SingleActiveConsumer,
}

impl HoldReason {
    const ALL: [Self; 3] = [Self::CannotSubscribe, Self::Blocked, Self::SingleActiveConsumer];

    fn as_str(self) -> &'static str {
        match self {
            Self::CannotSubscribe => "cannot_subscribe",
            Self::Blocked => "blocked",
            Self::SingleActiveConsumer => "single_active_consumer",
        }
    }
}

impl Holding {
    fn because(reason: HoldReason) -> Self {
        gauge!(HOLDING, "reason" => reason.as_str()).increment(1);
        Self(reason)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        gauge!(HOLDING, "reason" => self.0.as_str()).decrement(1);
    }
}

/// The broker takes no publishes: copies wait.
pub fn blocked() -> Holding {
    Holding::because(HoldReason::Blocked)
}

/// Messages wait in a queue that feeds one consumer at a time, and this one is not it.
pub fn stands_by(queue: &str) -> Holding {
    info!(
        queue,
        "messages wait for the active consumer of the queue, which is another one (x-single-active-consumer); this one takes over when that goes"
    );
    Holding::because(HoldReason::SingleActiveConsumer)
}

/// Messages wait, there is room, and none comes; the generation is given up.
pub fn stalled(queue: &str, ready: u32) {
    counter!(STALLS).increment(1);
    debug!(queue, ready, "deliveries are stalled");
}

/// What the broker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerEnd {
    /// The subscription: `basic.cancel`.
    Cancelled,
    /// Its channel: `channel.close`.
    ChannelClosed,
}

impl ConsumerEnd {
    const ALL: [Self; 2] = [Self::Cancelled, Self::ChannelClosed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::ChannelClosed => "channel_closed",
        }
    }
}

/// Consuming ended without our doing while the connection lives.
pub fn consumer_ended(queue: &str, end: ConsumerEnd, cause: &str) {
    counter!(CONSUMER_ENDS, "cause" => end.as_str()).increment(1);
    warn!(queue, cause, "the broker ended the consumer; subscribing again");
}

/// What of a message no client can read as its publisher wrote it.
#[derive(Debug, Clone, Copy)]
pub enum Illegible {
    /// The name of a header, a property or a routing key is not UTF-8.
    Text,
    /// Lists or tables in one another, without an end.
    Nesting,
}

impl Illegible {
    const ALL: [Self; 2] = [Self::Text, Self::Nesting];

    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Nesting => "nesting",
        }
    }
}

/// So many frames were mended. Anybody who publishes can send them at any rate: said once a connection.
pub fn mended(queue: &str, what: Illegible, frames: u64, is_first: bool) {
    counter!(MENDED, "what" => what.as_str()).increment(frames);
    if !is_first {
        return;
    }
    match what {
        Illegible::Text => warn!(
            queue,
            "a message has a header name, a property or a routing key that is not UTF-8: those bytes are shown as ?"
        ),
        Illegible::Nesting => warn!(
            queue,
            depth = amqp::legible::DEEPEST,
            "a message has lists or tables that are nested too deep: what is deeper is shown as bytes"
        ),
    }
}

/// The worker stopped answering.
pub fn worker_gone(queue: &str) {
    warn!(
        queue,
        "the worker's port does not answer; intake is paused until it does"
    );
}

/// The worker is not ready for its first message; said when the reason changes.
pub fn not_introduced(path: &str, cause: &str) {
    warn!(
        path,
        cause,
        "the worker is not ready at its init path; it gets no message, and is called again until it is"
    );
}

/// The worker does not know the path at which it was to be introduced.
pub fn introduction_unsupported(path: &str) {
    warn!(
        path,
        "the worker does not know its init path; it gets messages all the same"
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

/// The wait for a deferred message ended so.
pub fn deferral_ended(end: &'static str) {
    counter!(DEFERRALS, "end" => end).increment(1);
}

/// Callbacks have no port: a worker that defers has its messages dead-lettered.
pub fn no_callbacks(cause: &str) {
    warn!(
        cause,
        "the port for callbacks cannot be opened; messages cannot be deferred"
    );
}

/// What became of a reply; the word is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyEnd {
    /// The broker has it; one to a consumer without a queue was handed to the broker.
    Confirmed,
    /// Nobody has the caller's queue any more.
    NoQueue,
    /// The caller's queue took nothing for too long.
    Refused,
    /// The connection was lost before the confirm; the message comes again.
    Lost,
}

impl ReplyEnd {
    /// Every end, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Confirmed, Self::NoQueue, Self::Refused, Self::Lost];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::NoQueue => "no_queue",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

/// A reply met its end. Callers come and go at any rate: those who are gone are counted, and logged for those who look
/// for it only.
pub fn replied(kind: reply::Kind, end: ReplyEnd) {
    counter!(REPLIES, "kind" => kind.as_str(), "result" => end.as_str()).increment(1);
    if end != ReplyEnd::Confirmed {
        debug!(
            kind = kind.as_str(),
            result = end.as_str(),
            "a reply was not delivered"
        );
    }
}

/// A reply was not confirmed for the first time since one was.
pub fn replies_failing(queue: &str, cause: &str) {
    warn!(
        queue,
        cause, "a reply is not confirmed; its message stays unacknowledged and the reply is tried again"
    );
}

/// Replies are confirmed again.
pub fn replies_confirmed_again(queue: &str) {
    info!(queue, "replies are confirmed again");
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
