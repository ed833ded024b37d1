//! The worker's HTTP answer, and the parts of it that say what to do with the message.

mod content;

use crate::domain::fields::{Fields, text};
use crate::domain::settlement::ANSWER_BYTES;
use bytes::Bytes;
use contract::headers;
use http::StatusCode;
use std::time::Duration;

/// Retry-After is believed up to here, so that a slip of the worker cannot park a message for years.
pub const RETRY_AFTER_CAP: Duration = Duration::from_hours(1);

/// What of an answer is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// What the worker said explicitly, if anything.
    pub explicit: Option<Explicit>,
    /// How long the worker asks to be left alone, capped at [`RETRY_AFTER_CAP`].
    pub retry_after: Option<Duration>,
    /// For how long the worker wants to work on and settle later (202 with `X-Defer`). As long as it may, when it did not
    /// say so in seconds: to take it for a yes would lose the message.
    pub deferred: Option<Duration>,
    /// The first bytes of the body, for people who look at a dead letter.
    pub excerpt: Bytes,
    /// What a reply is made of; `None` when nobody wants one.
    pub content: Option<Box<Content>>,
}

/// The part of an answer that is for whoever waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`; the body is not decoded.
    pub content_encoding: Option<String>,
    /// `x-amqp-<name>` and those of traces, without the prefix; bounded.
    pub headers: Vec<(String, String)>,
    /// How many of them were left out.
    pub headers_dropped: u32,
    /// The whole body; `None` when it is longer than a reply may be.
    pub body: Option<Bytes>,
}

/// The body of an answer as far as it was read.
#[derive(Debug, Clone)]
pub struct Body {
    /// Its first bytes.
    pub bytes: Bytes,
    /// Whether these are all.
    pub is_whole: bool,
}

/// How much of an answer is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Bytes of the body for people.
    pub excerpt: usize,
    /// Bytes that a reply may have; `None` when nobody wants one.
    pub reply: Option<usize>,
}

impl Wanted {
    /// What is always wanted, and so much for a reply.
    pub fn of(reply: Option<usize>) -> Self {
        Self {
            excerpt: ANSWER_BYTES,
            reply,
        }
    }
}

/// A verdict that the worker spelled out; it outranks the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explicit {
    /// Done.
    Ack,
    /// Try again later.
    Retry,
    /// Never try again.
    Reject,
    /// A word that is none of these.
    Unknown,
}

impl Answer {
    /// Reads an answer; `now` is since the Unix epoch.
    pub fn read(status: StatusCode, fields: Fields<'_>, body: &Body, wanted: Wanted, now: Duration) -> Self {
        let bytes = &body.bytes;
        Self {
            status,
            explicit: explicit(fields, bytes),
            retry_after: retry_after(fields, now),
            deferred: deferred(status, fields),
            excerpt: bytes.slice(..bytes.len().min(wanted.excerpt)),
            content: wanted
                .reply
                .map(|most| Box::new(content::read(fields, body, most))),
        }
    }
}

/// The header outranks the body; the body counts only under its own media type, so that no ordinary JSON answer can
/// be taken for a verdict.
fn explicit(fields: Fields<'_>, body: &[u8]) -> Option<Explicit> {
    if let Some(word) = fields.get(headers::http::VERDICT) {
        return Some(text(word).map_or(Explicit::Unknown, verdict_word));
    }
    if !is_verdict_document(fields) {
        return None;
    }
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = document.get("status").and_then(serde_json::Value::as_str);
    Some(word.map_or(Explicit::Unknown, verdict_word))
}

/// Whether the body is meant for us and for nobody else.
fn is_verdict_document(fields: Fields<'_>) -> bool {
    let media_type = fields.text("content-type").unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(headers::VERDICT_MEDIA_TYPE)
}

/// Our words, and Dapr's for those who are used to them.
fn verdict_word(word: &str) -> Explicit {
    match word.trim().to_ascii_lowercase().as_str() {
        "ack" | "success" => Explicit::Ack,
        "retry" => Explicit::Retry,
        "reject" | "err" | "drop" => Explicit::Reject,
        _ => Explicit::Unknown,
    }
}

fn deferred(status: StatusCode, fields: Fields<'_>) -> Option<Duration> {
    let value = fields.get(headers::http::DEFER)?;
    let seconds = text(value).and_then(|text| text.trim().parse().ok());
    (status == StatusCode::ACCEPTED).then(|| seconds.map_or(Duration::MAX, Duration::from_secs))
}

/// Seconds or a date (RFC 9110 §10.2.3). What cannot be read counts as absent; a date in the past as zero.
fn retry_after(fields: Fields<'_>, now: Duration) -> Option<Duration> {
    let value = fields.text("retry-after")?.trim();
    let delay = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too long for 64 bits is beyond any cap.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        at.duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(now)
    };
    Some(delay.min(RETRY_AFTER_CAP))
}

#[cfg(test)]
mod tests;
