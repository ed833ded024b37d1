//! Replies: published, confirmed, and only then reported; or given up, when nobody is there to have them.

use super::copies::{Copies, NotConfirmed};
use super::port::{Connection, Publisher};
use super::properties::of_reply;
use crate::domain::reply::{Address, Reply};
use crate::telemetry::{self, ReplyEnd};
use amqp::PublishError;
use amqp::topology::QueuePlan;
use ops::backoff::Backoff;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Between tries of one reply while its connection lives.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often a caller's queue may refuse a reply before the caller counts as gone: for about half a minute. One caller
/// whose queue is full must not stop the worker for all others.
const CALLER_TRIES: u32 = 12;

/// Publishes replies on one generation's publishing connection, on a channel of its own: what a broker holds against a
/// reply does not touch copies.
#[derive(Debug)]
pub(super) struct Replies {
    connection: Arc<dyn Connection>,
    publisher: Box<dyn Publisher>,
    queue: String,
    failing: AtomicBool,
}

impl Replies {
    pub(super) async fn open(connection: Arc<dyn Connection>, queue: &str) -> Result<Self, amqp::Error> {
        Ok(Self {
            publisher: Arc::clone(&connection).publisher().await?,
            connection,
            queue: queue.to_owned(),
            failing: AtomicBool::new(false),
        })
    }

    async fn send(&self, reply: &Reply) -> Result<ReplyEnd, NotConfirmed> {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut tries = 0;
        loop {
            tries += 1;
            let Err(error) = self.try_send(reply).await else {
                if self.failing.swap(false, Relaxed) {
                    telemetry::replies_confirmed_again(&self.queue);
                }
                return Ok(ReplyEnd::Confirmed);
            };
            if !self.connection.is_open() {
                return Err(NotConfirmed);
            }
            if let Address::Caller(_) = reply.to {
                match error {
                    PublishError::Unroutable { .. } => return Ok(ReplyEnd::NoQueue),
                    _ if tries >= CALLER_TRIES => return Ok(ReplyEnd::Refused),
                    _ => {}
                }
            }
            if !self.failing.swap(true, Relaxed) {
                telemetry::replies_failing(&self.queue, &error.to_string());
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn try_send(&self, reply: &Reply) -> Result<(), PublishError> {
        let (name, properties) = (reply.to.name(), of_reply(reply));
        if reply.to.is_direct() {
            return self.publisher.publish_direct(name, properties, &reply.body).await;
        }
        let published = self.publisher.publish(name, properties, &reply.body).await;
        if let (Err(PublishError::Unroutable { .. }), Address::Queue(name)) = (&published, &reply.to) {
            // Somebody deleted it; the next try finds it again.
            self.connection.ensure_queue(&QueuePlan::response(name)).await?;
        }
        published
    }
}

impl Copies {
    /// Publishes a reply and waits until the broker has confirmed it. To the response queue it is tried until then. A
    /// caller who is gone, or whose queue takes nothing for half a minute, gets none: `Ok` all the same, because nothing
    /// that we can do would bring it about.
    ///
    /// # Errors
    /// When the connection is lost; the broker then delivers the original again.
    pub async fn reply(&self, reply: &Reply) -> Result<(), NotConfirmed> {
        let sent = self.replies.send(reply).await;
        telemetry::replied(reply.kind, sent.unwrap_or(ReplyEnd::Lost));
        sent.map(|_end| ())
    }
}
