//! A message as the worker will see it, and the history that it carries from earlier attempts.

use bytes::Bytes;
use std::time::Duration;

/// The content of one delivery, free of AMQP types. Texts are as the publisher wrote them: nothing in here is safe
/// for an HTTP header yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The body, passed on byte for byte.
    pub body: Bytes,
    /// AMQP property `content-type`.
    pub content_type: Option<String>,
    /// AMQP property `content-encoding`.
    pub content_encoding: Option<String>,
    /// AMQP property `message-id`.
    pub message_id: Option<String>,
    /// AMQP property `correlation-id`.
    pub correlation_id: Option<String>,
    /// AMQP property `reply-to`.
    pub reply_to: Option<String>,
    /// AMQP property `type`.
    pub kind: Option<String>,
    /// AMQP property `app-id`.
    pub app_id: Option<String>,
    /// AMQP property `user-id`, which the broker has checked.
    pub user_id: Option<String>,
    /// AMQP property `priority`.
    pub priority: Option<u8>,
    /// AMQP property `expiration`: milliseconds as text.
    pub expiration: Option<String>,
    /// AMQP property `timestamp`: seconds since the Unix epoch.
    pub timestamp: Option<u64>,
    /// Application headers with their values as text, ours and the broker's left out.
    pub headers: Vec<(String, String)>,
    /// The exchange that it was published to.
    pub exchange: String,
    /// The routing key that it was published with.
    pub routing_key: String,
    /// The broker's hint that it was delivered before.
    pub redelivered: bool,
    /// What earlier attempts left behind.
    pub history: History,
}

/// What earlier attempts at a message left in its headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Attempts that count, so far.
    pub attempts: u32,
    /// Time since the Unix epoch at which the first attempt began; `None` before it.
    pub first_seen: Option<Duration>,
    /// How often the worker crashed while it held this message.
    pub crashes: u32,
    /// One line an attempt, oldest first.
    pub journal: Vec<String>,
}

impl History {
    /// The number of the attempt that is about to be made, 1-based.
    pub fn attempt(&self) -> u32 {
        self.attempts.saturating_add(1)
    }

    /// Whether the worker crashed with this message in hand before, so that it must be tried alone.
    pub fn is_suspect(&self) -> bool {
        self.crashes > 0
    }
}
