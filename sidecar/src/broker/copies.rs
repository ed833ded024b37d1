//! Retry and dead-letter copies: published, confirmed, and only then reported.

use super::port::{Connection, Publisher};
use super::properties::{Original, of_copy};
use super::replies::Replies;
use crate::domain::settlement::{Copy, Destination};
use crate::telemetry;
use amqp::PublishError;
use amqp::topology::{QueuePlan, RETRY_QUEUE_SPARE};
use lapin::BasicProperties;
use ops::backoff::Backoff;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How old a declare of a retry queue may be when something is published to it. The queue expires
/// [`RETRY_QUEUE_SPARE`] after its delay, so what is published in this time is given back long before.
const DECLARE_AGAIN_AFTER: Duration = Duration::from_mins(1);
const _: () = assert!(DECLARE_AGAIN_AFTER.as_secs() * 10 < RETRY_QUEUE_SPARE.as_secs());

/// Between tries of one copy while its connection lives.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Publishes copies on one generation's publishing connection.
#[derive(Debug)]
pub struct Copies {
    connection: Arc<dyn Connection>,
    publisher: Box<dyn Publisher>,
    pub(super) replies: Replies,
    queue: String,
    dead_letter: String,
    declared: Mutex<HashMap<Duration, Instant>>,
    failing: AtomicBool,
}

/// The connection went away before the copy was confirmed: the original must not be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotConfirmed;

impl Copies {
    pub(super) async fn open(
        connection: Arc<dyn Connection>,
        queue: &str,
        dead_letter: &str,
    ) -> Result<Self, amqp::Error> {
        let (publisher, replies) = tokio::try_join!(
            Arc::clone(&connection).publisher(),
            Replies::open(Arc::clone(&connection), queue)
        )?;
        Ok(Self {
            replies,
            connection,
            publisher,
            queue: queue.to_owned(),
            dead_letter: dead_letter.to_owned(),
            declared: Mutex::default(),
            failing: AtomicBool::new(false),
        })
    }

    /// Publishes a copy until the broker has confirmed it. While it refuses (a full queue, an alarm) the original
    /// stays where it is, which slows intake down: nothing is dropped and nothing loops through the worker.
    ///
    /// # Errors
    /// When the connection is lost; the broker then delivers the original again.
    pub async fn publish(
        &self,
        original: &Original,
        copy: &Copy,
        message_id: &str,
    ) -> Result<(), NotConfirmed> {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let properties = of_copy(original, copy, message_id);
            let publishing = self.try_publish(copy.to, properties, &original.body);
            match self.say_when_blocked(publishing).await {
                Ok(()) => {
                    if self.failing.swap(false, Relaxed) {
                        telemetry::copies_confirmed_again(&self.queue);
                    }
                    return Ok(());
                }
                Err(error) => {
                    telemetry::copy_failed(error.kind());
                    if !self.connection.is_open() {
                        return Err(NotConfirmed);
                    }
                    self.say_failing(&error.to_string());
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Sees one try through, however long the broker takes no publishes.
    async fn say_when_blocked<T>(&self, publishing: impl Future<Output = T>) -> T {
        tokio::pin!(publishing);
        let reason = tokio::select! {
            biased;
            published = &mut publishing => return published,
            reason = self.connection.until_blocked() => reason,
        };
        let _holding = telemetry::blocked();
        self.say_failing(&format!("the broker takes no publishes: {reason}"));
        publishing.await
    }

    /// Once until copies are confirmed again.
    fn say_failing(&self, cause: &str) {
        if !self.failing.swap(true, Relaxed) {
            telemetry::copies_failing(&self.queue, cause);
        }
    }

    async fn try_publish(
        &self,
        to: Destination,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let name = match to {
            Destination::DeadLetter => self.dead_letter.clone(),
            Destination::Retry(delay) => self.retry_queue(delay).await?,
        };
        let published = self.publisher.publish(&name, properties, body).await;
        if let Err(PublishError::Unroutable { .. }) = published {
            // Somebody deleted the queue; the next try finds it again.
            match to {
                Destination::DeadLetter => {
                    self.connection
                        .ensure_queue(&QueuePlan::dead_letter(name))
                        .await?;
                }
                Destination::Retry(delay) => {
                    self.declared.lock().await.remove(&delay);
                }
            }
        }
        published
    }

    /// The name of the retry queue for this delay, which is there and does not expire soon.
    async fn retry_queue(&self, delay: Duration) -> Result<String, amqp::Error> {
        let plan = QueuePlan::retry(&self.queue, delay);
        let mut declared = self.declared.lock().await;
        let is_fresh = declared
            .get(&delay)
            .is_some_and(|at| at.elapsed() < DECLARE_AGAIN_AFTER);
        if !is_fresh {
            self.connection.declare_queue(&plan).await?;
            declared.insert(delay, Instant::now());
        }
        Ok(plan.name().to_owned())
    }
}
