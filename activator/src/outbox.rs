//! Where asynchronous calls go: a queue whose broker says that it has them.

mod broker;

pub use broker::Broker;

use crate::targets::TargetName;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt;
use tokio::time::Instant;

/// An asynchronous call on its way to a queue.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The call's id, at most 255 bytes; becomes the message's id, by which a worker can tell a repetition.
    pub id: String,
    /// The caller's `Content-Type`, at most 255 bytes.
    pub content_type: Option<String>,
    /// The caller's `Content-Encoding`, at most 255 bytes.
    pub content_encoding: Option<String>,
    /// The caller's other headers that are meant for the receiver; names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When the call came, seconds since the Unix epoch.
    pub timestamp: u64,
    /// The body as it came.
    pub body: Bytes,
}

/// Why a message is not known to be in its queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// It was not handed over, or was refused: it is in no queue.
    #[error("{0}")]
    Unavailable(String),
    /// It was handed over and not confirmed: it may be in the queue all the same.
    #[error("{0}")]
    Unconfirmed(String),
}

/// Publishes messages durably.
pub trait Outbox: Send + Sync + 'static {
    /// Publishes to `queue` and waits until the broker has confirmed it, at most until `deadline`.
    ///
    /// Dropping the future leaves it open whether the message was published.
    ///
    /// # Errors
    ///
    /// [`OutboxError`]; for neither may the caller be told that the call was taken.
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        message: Message,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<(), OutboxError>>;

    /// As [`publish`](Self::publish), for an outbox of several brokers: the queue is that of `target`.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    fn publish_for<'a>(
        &'a self,
        _target: &'a TargetName,
        queue: &'a str,
        message: Message,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<(), OutboxError>> {
        self.publish(queue, message, deadline)
    }
}

/// Bodies and header values are callers' secrets.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
