//! From a message to the head of the `POST` that the worker gets. Total: whatever a publisher wrote, there is a head, and
//! no text breaks out of its field.

mod head;
#[cfg(test)]
mod tests;

use crate::domain::delivery::Message;
use bytes::Bytes;
use contract::headers::http as names;
use head::Head;
use http::Uri;
use std::time::Duration;

/// Application headers passed on; servers commonly refuse more than 100 in all.
pub(crate) const APPLICATION_HEADERS: usize = 60;
/// Bytes of application headers passed on; servers commonly refuse heads of more than 8 to 64 KiB.
pub(crate) const APPLICATION_HEADER_BYTES: usize = 6 * 1024;
/// Passed under their own names, so that traces go on (W3C Trace Context, W3C Baggage).
pub(crate) const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Room for the head of a usual message.
const HEAD_BYTES: usize = 1024;

/// Where and how messages are posted; the same for every message of a sidecar.
#[derive(Debug, Clone)]
pub struct Target {
    /// The path, `/message`.
    pub path: Uri,
    /// The queue that messages come from.
    pub queue: String,
    /// The last attempt that is allowed.
    pub max_attempts: u32,
    /// How long the worker has.
    pub timeout: Duration,
    /// The value of `Host`.
    pub host: String,
    /// What every head begins with, written once.
    begin: Vec<u8>,
}

impl Target {
    /// A target at `host`, a name or an address with its port.
    pub fn new(path: Uri, host: String, queue: String, max_attempts: u32, timeout: Duration) -> Self {
        let mut begin = Vec::new();
        let mut head = Head::begin(&mut begin, &path, &host);
        head.number(names::MAX_ATTEMPTS, max_attempts.into());
        head.text(names::QUEUE, &queue);
        Self {
            path,
            queue,
            max_attempts,
            timeout,
            host,
            begin,
        }
    }

    /// The head of a `POST` of a JSON document to another path of the worker.
    pub fn json_head(&self, path: &Uri, body: &Bytes) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut head = Head::begin(&mut bytes, path, &self.host);
        head.text("content-type", "application/json");
        head.number("content-length", body.len() as u64);
        head.end();
        bytes
    }
}

/// Where the worker may settle a message later: this, followed by the number.
#[derive(Debug, Clone, Copy)]
pub struct CallbackAddress<'a> {
    /// Visible ASCII.
    pub prefix: &'a str,
    /// Of the delivery.
    pub number: u64,
}

/// Appends the head of the request for one attempt that begins at `now` (since the Unix epoch). `message_id` is the
/// publisher's, or one made up for this message; `callback` is where the worker may settle it later, if it may.
pub fn write_head(
    bytes: &mut Vec<u8>,
    message: &Message,
    message_id: &str,
    target: &Target,
    callback: Option<CallbackAddress<'_>>,
    now: Duration,
) {
    bytes.reserve(HEAD_BYTES + message.body.len().min(HEAD_BYTES));
    bytes.extend_from_slice(&target.begin);
    let mut head = Head::of(bytes);
    head.text(
        "content-type",
        message
            .content_type
            .as_deref()
            .unwrap_or("application/octet-stream"),
    );
    // Said for an empty body too: some servers answer 411 without (RFC 9110 §8.6).
    head.number("content-length", message.body.len() as u64);
    head.text(names::MESSAGE_ID, message_id);
    head.text(names::IDEMPOTENCY_KEY, message_id);
    head.number(names::DELIVERY_ATTEMPT, message.history.attempt().into());
    head.text(names::EXCHANGE, &message.exchange);
    head.text(names::ROUTING_KEY, &message.routing_key);
    head.text(
        names::REDELIVERED,
        if message.redelivered { "true" } else { "false" },
    );
    if let Some(CallbackAddress { prefix, number }) = callback {
        head.text_and_number(names::CALLBACK_URL, prefix, number);
    }
    for (name, text) in [
        ("content-encoding", &message.content_encoding),
        (names::CORRELATION_ID, &message.correlation_id),
        (names::REPLY_TO, &message.reply_to),
        (names::TYPE, &message.kind),
        (names::APP_ID, &message.app_id),
        (names::USER_ID, &message.user_id),
        (names::EXPIRATION, &message.expiration),
    ] {
        if let Some(text) = text {
            head.text(name, text);
        }
    }
    if let Some(priority) = message.priority {
        head.number(names::PRIORITY, priority.into());
    }
    if let Some(timestamp) = message.timestamp {
        head.stamp(names::ENQUEUED_AT, Duration::from_secs(timestamp));
    }
    head.stamp(names::FIRST_SEEN, message.history.first_seen.unwrap_or(now));
    head.stamp(names::DEADLINE, now.saturating_add(target.timeout));
    application_headers(&mut head, &message.headers);
    head.end();
}

/// The publisher's own headers as `x-amqp-<name>`, up to the bounds; how many were left out is said.
fn application_headers(head: &mut Head<'_>, application: &[(String, String)]) {
    let mut bytes = 0;
    let mut dropped: u32 = 0;
    for (position, (name, text)) in application.iter().enumerate() {
        let is_kept = |kept: &&str| name.eq_ignore_ascii_case(kept);
        let kept = TRACE_HEADERS
            .iter()
            .chain([&names::SESSION_ID])
            .copied()
            .find(is_kept);
        let before = head.len();
        match kept {
            Some(kept) => head.text(kept, text),
            None => head.named(names::AMQP_PREFIX, name, text),
        }
        bytes += head.len() - before;
        if position >= APPLICATION_HEADERS || bytes > APPLICATION_HEADER_BYTES {
            dropped += 1;
            head.cut(before);
        }
    }
    if dropped > 0 {
        head.number(names::HEADERS_DROPPED, dropped.into());
    }
}
