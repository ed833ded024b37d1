//! What a worker's answer becomes for whoever waits for it, and what somebody is told who waits in vain.

use crate::domain::answer::{Answer, Content};
use crate::domain::delivery::Message;
use crate::domain::journal;
use crate::domain::settlement::{ANSWER_BYTES, Value};
use crate::domain::verdict::{Reason, Verdict};
use bytes::Bytes;
use contract::headers;
use serde_json::json;

/// What the broker makes of a direct reply-to: a name that stands for one consumer and not for a queue
/// (<https://www.rabbitmq.com/docs/direct-reply-to>).
const DIRECT: &str = "amq.rabbitmq.reply-to.";
/// What a reply's message id has behind the message's.
const ID_SUFFIX: &str = ".reply";
/// The longest property, in bytes (AMQP 0-9-1, `shortstr`).
const PROPERTY_BYTES: usize = 255;

/// Where a reply goes: the name of a queue, or what stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The `reply-to` of the message. Whoever wrote it waits, or waits no more.
    Caller(String),
    /// The setting `response-queue`: ours to keep.
    Queue(String),
}

impl Address {
    /// Where the answer to `message` goes, if anybody wants it. The message's own wish comes first.
    pub fn of(message: &Message, response_queue: Option<&str>) -> Option<Self> {
        let caller = message.reply_to.as_ref().filter(|name| !name.is_empty());
        caller
            .map(|name| Self::Caller(name.clone()))
            .or_else(|| response_queue.map(|name| Self::Queue(name.to_owned())))
    }

    /// The routing key on the default exchange.
    pub fn name(&self) -> &str {
        match self {
            Self::Caller(name) | Self::Queue(name) => name,
        }
    }

    /// Whether it stands for a consumer that is connected now, and for nothing that could keep a message.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Caller(name) if name.starts_with(DIRECT))
    }
}

/// A message to be published for one that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Where it goes.
    pub to: Address,
    /// What it carries: an answer, or the reason why there is none.
    pub kind: Kind,
    /// AMQP `correlation-id`: the message's, or its id.
    pub correlation_id: String,
    /// AMQP `message-id`: the same for every reply to one message, so that a repetition can be told.
    pub message_id: String,
    /// AMQP `content-type`.
    pub content_type: Option<String>,
    /// AMQP `content-encoding`.
    pub content_encoding: Option<String>,
    /// The worker's own headers, bounded.
    pub headers: Vec<(String, String)>,
    /// Ours.
    pub set: Vec<(&'static str, Value)>,
    /// The body.
    pub body: Bytes,
}

/// What a reply carries; the word is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The worker's answer.
    Answer,
    /// Why there is none.
    Error,
}

impl Kind {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Error => "error",
        }
    }
}

/// The message that is replied to.
#[derive(Debug, Clone, Copy)]
pub struct Replied<'a> {
    /// Itself.
    pub message: &'a Message,
    /// Its id, or the one made up for it.
    pub message_id: &'a str,
    /// Where it came from.
    pub queue: &'a str,
}

/// The worker's answer as a reply.
pub fn of_answer(
    to: Address,
    replied: Replied<'_>,
    answer: &Answer,
    content: &Content,
    reason: Reason,
) -> Reply {
    let mut set = about(replied, Verdict::ACCEPTED, reason);
    set.push((headers::STATUS, Value::Number(i64::from(answer.status.as_u16()))));
    if content.headers_dropped > 0 {
        set.push((
            headers::HEADERS_DROPPED,
            Value::Number(i64::from(content.headers_dropped)),
        ));
    }
    Reply {
        content_type: property(content.content_type.as_ref()),
        content_encoding: property(content.content_encoding.as_ref()),
        headers: content.headers.clone(),
        body: content.body.clone().unwrap_or_default(),
        ..bare(to, Kind::Answer, replied, set)
    }
}

/// What a caller is told whose message was given up, so that it does not wait for ever; `answer` is the last one.
pub fn of_dead_letter(
    to: Address,
    replied: Replied<'_>,
    answer: Option<&Answer>,
    reason: Reason,
    cause: Reason,
) -> Reply {
    let mut set = about(replied, Verdict::DEAD_LETTER, reason);
    let status = answer.map(|answer| answer.status.as_u16());
    if let Some(status) = status {
        set.push((headers::STATUS, Value::Number(i64::from(status))));
    }
    let document = json!({
        "message_id": replied.message_id,
        "reason": reason.as_str(),
        "cause": cause.as_str(),
        "attempts": replied.message.history.attempt(),
        "status": status,
        "answer": answer.map(|answer| journal::text(&answer.excerpt, ANSWER_BYTES)),
    });
    Reply {
        content_type: Some("application/json".to_owned()),
        body: Bytes::from(document.to_string()),
        ..bare(to, Kind::Error, replied, set)
    }
}

fn about(replied: Replied<'_>, verdict: &str, reason: Reason) -> Vec<(&'static str, Value)> {
    vec![
        (headers::VERDICT, Value::Text(verdict.to_owned())),
        (headers::REASON, Value::Text(reason.as_str().to_owned())),
        (headers::QUEUE, Value::Text(replied.queue.to_owned())),
    ]
}

fn bare(to: Address, kind: Kind, replied: Replied<'_>, set: Vec<(&'static str, Value)>) -> Reply {
    let correlation_id = replied.message.correlation_id.as_deref();
    Reply {
        to,
        kind,
        correlation_id: correlation_id.unwrap_or(replied.message_id).to_owned(),
        message_id: reply_id(replied.message_id),
        content_type: None,
        content_encoding: None,
        headers: Vec::new(),
        set,
        body: Bytes::new(),
    }
}

/// Another id than the message's own: where the replies of one worker are the messages of the next, both may remember
/// what they have done by it.
fn reply_id(message_id: &str) -> String {
    if message_id.len() + ID_SUFFIX.len() > PROPERTY_BYTES {
        return message_id.to_owned();
    }
    format!("{message_id}{ID_SUFFIX}")
}

/// A property, unless AMQP has no room for it.
fn property(text: Option<&String>) -> Option<String> {
    text.filter(|text| text.len() <= PROPERTY_BYTES).cloned()
}

#[cfg(test)]
mod tests;
