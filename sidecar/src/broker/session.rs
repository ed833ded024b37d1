//! One subscription on one channel: from `basic.consume` to the last delivery handed out or given back.

use super::generation::Generation;
use super::port::{Channel, Consumer};
use super::properties::take_apart;
use super::settler::Settler;
use super::stall::until_stalled;
use crate::domain::ack_window::FlushPolicy;
use crate::domain::budget::Budget;
use crate::pipeline::{Content, Delivery, Pipeline};
use crate::telemetry::{self, ConsumerEnd};
use amqp::version::{Server, TimeoutEnds, Version};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;

/// The longest that deliveries on their way may take to surface after a cancel.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known when the broker ends a subscription, which it does without a word. Some versions do so, too, when a
/// message is held for too long (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
fn why_cancelled(server: Option<&Server>) -> &'static str {
    let timeout = server
        .and_then(Server::rabbitmq)
        .map(Version::consumer_timeout_ends);
    match timeout {
        // That would have closed the channel, with a word.
        Some(TimeoutEnds::Channel) => "the consumer was cancelled (was the queue deleted?)",
        Some(TimeoutEnds::Consumer) | None => {
            "the consumer was cancelled (was the queue deleted, or a message held for longer than the broker's consumer \
             timeout?)"
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Intake was stopped: by a drain.
    IntakeStopped,
    /// The worker's port does not answer.
    WorkerDown,
    /// A connection of the generation was lost.
    ConnectionLost(String),
    /// The broker ended consumer or channel: queue deleted, consumer timeout, failover.
    ConsumerEnded(ConsumerEnd, String),
}

/// A subscription that nothing was taken from yet.
pub(super) struct Session {
    channel: Arc<dyn Channel>,
    consumer: Consumer,
    settler: Settler,
    prefetch: u16,
    /// With another prefetch; it takes over when everything of this one is handed out.
    next: Option<Box<Session>>,
}

/// A channel on which everything is said but `basic.consume`.
pub(super) struct Prepared {
    channel: Arc<dyn Channel>,
    prefetch: u16,
}

/// Opens a channel and sets its prefetch.
///
/// # Errors
/// When the broker refuses.
pub(super) async fn prepare(generation: &Generation, prefetch: u16) -> Result<Prepared, amqp::Error> {
    let channel = generation.consuming.channel(prefetch).await?;
    Ok(Prepared { channel, prefetch })
}

impl Prepared {
    /// Subscribes.
    ///
    /// # Errors
    /// When the broker refuses.
    pub(super) async fn subscribe(self, pipeline: &Pipeline) -> Result<Session, amqp::Error> {
        let (config, channel) = (pipeline.config(), self.channel);
        let consumer = channel.consume(&config.queue).await?;
        let settler = Settler::start(
            Arc::clone(&channel),
            self.prefetch,
            FlushPolicy::for_spare(self.prefetch.saturating_sub(config.concurrency)),
            Arc::clone(pipeline.ledger()),
            pipeline.tasks(),
        );
        Ok(Session {
            channel,
            consumer,
            settler,
            prefetch: self.prefetch,
            next: None,
        })
    }
}

impl Session {
    /// Consumes until something ends it. Deliveries in flight go on and settle on the same channel, which closes when
    /// the last of them has.
    pub(super) async fn run(
        mut self,
        pipeline: &Arc<Pipeline>,
        generation: &Generation,
        budget: &mut Budget,
    ) -> End {
        loop {
            telemetry::subscribed(&pipeline.config().queue, self.prefetch);
            let end = self.hand_out(pipeline, generation, budget).await;
            match (end, self.next.take()) {
                (None, Some(next)) => self = *next,
                (None, None) => {
                    let cause = why_cancelled(generation.server()).to_owned();
                    return End::ConsumerEnded(ConsumerEnd::Cancelled, cause);
                }
                (Some(end), next) => {
                    if matches!(end, End::IntakeStopped | End::WorkerDown) {
                        self.give_back().await;
                        if let Some(next) = next {
                            next.give_back().await;
                        }
                    }
                    return end;
                }
            }
        }
    }

    /// `None` when everything of this consumer is handed out, and the next one takes over.
    async fn hand_out(
        &mut self,
        pipeline: &Arc<Pipeline>,
        generation: &Generation,
        budget: &mut Budget,
    ) -> Option<End> {
        let interrupted = async {
            tokio::select! {
                biased;
                () = pipeline.intake_stopped() => End::IntakeStopped,
                cause = generation.lost() => End::ConnectionLost(cause),
                () = pipeline.dispatcher().until_down() => End::WorkerDown,
            }
        };
        // Polled when it was woken, and not twice for every delivery as the future alone would be.
        let mut interrupted = FuturesUnordered::from_iter([interrupted]);
        loop {
            // All branches are cancel safe: a delivery that is not taken stays in the stream.
            let next = tokio::select! {
                biased;
                Some(end) = interrupted.next() => return Some(end),
                next = self.consumer.deliveries.next() => next,
                cause = until_stalled(pipeline, generation, &self.settler) => return Some(End::ConnectionLost(cause)),
            };
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    return Some(End::ConsumerEnded(ConsumerEnd::ChannelClosed, error.to_string()));
                }
                // A cancel by the broker comes without an error, and so does the end of a connection.
                None if !generation.consuming.is_open() => {
                    return Some(End::ConnectionLost(generation.lost().await));
                }
                None => return None,
            };
            pipeline.stalls().delivered();
            let (tag, message, original) = take_apart(delivery);
            let content = Box::new(Content { message, original });
            let is_due = budget.has_changed(content.message.body.len());
            let receipt = self.settler.receipt(tag);
            // Cancel safe: a wait for slots that is given up leaves them to others.
            let slot = tokio::select! {
                biased;
                Some(end) = interrupted.next() => {
                    receipt.hand_back();
                    return Some(end);
                }
                slot = pipeline.slot_for(&content.message) => slot,
            };
            // The broker delivers it again: the worker must not get it twice for nothing.
            if !self.channel.is_open() {
                receipt.hand_back();
                continue;
            }
            let copies = Arc::clone(&generation.copies);
            pipeline.spawn(Delivery {
                content,
                receipt,
                copies,
                slot,
            });
            if is_due && self.next.is_none() {
                self.begin_next(pipeline, generation, budget.window()).await;
            }
        }
    }

    /// Subscribes anew with another prefetch, and only then cancels: a queue that is deleted with its last consumer must
    /// not be without one. What this one has brought is handed out all the same: to give it back would count as a failed
    /// delivery. Not interrupted, because a subscription that is given up half way takes messages that nobody reads.
    async fn begin_next(&mut self, pipeline: &Pipeline, generation: &Generation, prefetch: u16) {
        let subscribing = async { prepare(generation, prefetch).await?.subscribe(pipeline).await };
        // A broker that refuses leaves it as it is.
        if let Ok(next) = subscribing.await {
            self.next = Some(Box::new(next));
            // A channel that cannot cancel is gone, which its stream tells.
            let _cancelled = self.channel.cancel(&self.consumer.tag).await.is_ok();
        }
    }

    /// Ends the subscription and returns what was prefetched and not handed out, so that others can have it at once.
    async fn give_back(mut self) {
        let cancelling = async {
            // A channel that cannot cancel is gone, and the broker has its deliveries back.
            if self.channel.cancel(&self.consumer.tag).await.is_err() {
                return;
            }
            while let Some(Ok(delivery)) = self.consumer.deliveries.next().await {
                self.settler.receipt(delivery.delivery_tag).hand_back();
            }
        };
        // What surfaces later goes back when the channel closes.
        let _in_time = tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await;
    }
}
