//! One subscription on one channel: from `basic.consume` to the last delivery handed out or given back.

use super::generation::Generation;
use super::properties::take_apart;
use super::settler::Settler;
use crate::config::Config;
use crate::pipeline::{Delivery, Pipeline};
use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use std::sync::Arc;
use std::time::Duration;

/// The longest that deliveries on their way may take to surface after a cancel.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known when the broker ends a subscription without a word. Since 4.3 it does so, too, when a message is held
/// for too long (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
const CANCELLED: &str = "the consumer was cancelled (was the queue deleted, or a message held for longer than the \
                         broker's consumer timeout?)";

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
    ConsumerEnded(String),
}

/// A subscription that nothing was taken from yet.
pub(super) struct Session {
    channel: Channel,
    consumer: Consumer,
    settler: Settler,
}

/// A channel on which everything is said but `basic.consume`.
pub(super) struct Prepared {
    channel: Channel,
}

/// Opens a channel and sets its prefetch.
///
/// # Errors
/// When the broker refuses.
pub(super) async fn prepare(config: &Config, generation: &Generation) -> Result<Prepared, amqp::Error> {
    let channel = generation.consuming.create_channel().await?;
    // Per consumer, not per channel: RabbitMQ 4.3 refuses the global form. The spare beyond concurrency covers
    // acknowledgements that wait to be written together.
    channel
        .basic_qos(config.prefetch(), BasicQosOptions { global: false })
        .await
        .map_err(amqp::Error::from)?;
    Ok(Prepared { channel })
}

impl Prepared {
    /// Subscribes.
    ///
    /// # Errors
    /// When the broker refuses.
    pub(super) async fn subscribe(self, pipeline: &Pipeline) -> Result<Session, amqp::Error> {
        let (config, channel) = (pipeline.config(), self.channel);
        let consumer = channel
            .basic_consume(
                config.queue.as_str().into(),
                // The broker makes up a name.
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(amqp::Error::from)?;
        let settler = Settler::start(
            channel.clone(),
            config.prefetch(),
            Arc::clone(pipeline.ledger()),
            pipeline.tasks(),
        );
        Ok(Session {
            channel,
            consumer,
            settler,
        })
    }
}

impl Session {
    /// Consumes until something ends it. Deliveries in flight go on and settle on the same channel, which closes when
    /// the last of them has.
    pub(super) async fn run(mut self, pipeline: &Arc<Pipeline>, generation: &Generation) -> End {
        let end = hand_out(pipeline, generation, &mut self.consumer, &self.settler).await;
        if matches!(end, End::IntakeStopped | End::WorkerDown) {
            give_back(&self.channel, &mut self.consumer, &self.settler).await;
        }
        end
    }
}

async fn hand_out(
    pipeline: &Arc<Pipeline>,
    generation: &Generation,
    consumer: &mut Consumer,
    settler: &Settler,
) -> End {
    let interrupted = async {
        tokio::select! {
            biased;
            () = pipeline.intake_stopped() => End::IntakeStopped,
            cause = generation.lost() => End::ConnectionLost(cause),
            () = pipeline.dispatcher().until_down() => End::WorkerDown,
        }
    };
    tokio::pin!(interrupted);
    loop {
        // Both branches are cancel safe: a delivery that is not taken stays in the stream.
        let next = tokio::select! {
            biased;
            end = &mut interrupted => return end,
            next = consumer.next() => next,
        };
        let delivery = match next {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return End::ConsumerEnded(amqp::Error::from(error).to_string()),
            // A cancel by the broker comes without an error, and so does the end of a connection.
            None if generation.consuming.is_open() => {
                return End::ConsumerEnded(CANCELLED.to_owned());
            }
            None => return End::ConnectionLost(generation.lost().await),
        };
        let (tag, message, original) = take_apart(delivery);
        let receipt = settler.receipt(tag);
        // Cancel safe: a wait for slots that is given up leaves them to others.
        let slot = tokio::select! {
            biased;
            end = &mut interrupted => {
                receipt.hand_back();
                return end;
            }
            slot = pipeline.slot_for(&message) => slot,
        };
        let copies = Arc::clone(&generation.copies);
        pipeline.spawn(Delivery {
            message,
            original,
            receipt,
            copies,
            slot,
        });
    }
}

/// Ends the subscription and returns what was prefetched and not handed out, so that others can have it at once.
async fn give_back(channel: &Channel, consumer: &mut Consumer, settler: &Settler) {
    let cancelling = async {
        let tag = consumer.tag();
        // A channel that cannot cancel is gone, and the broker has its deliveries back.
        if channel
            .basic_cancel(tag, BasicCancelOptions::default())
            .await
            .is_err()
        {
            return;
        }
        while let Some(Ok(delivery)) = consumer.next().await {
            settler.receipt(delivery.delivery_tag).hand_back();
        }
    };
    // What surfaces later goes back when the channel closes.
    let _in_time = tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await;
}
