//! Publishing that is not over before the broker has said that it has the message.

use crate::{Connection, Error};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a confirm may take. A broker under a memory alarm takes no publishes at all; then the caller must hear of
/// it rather than wait for ever.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// For how long a queue that does not exist is waited for.
const QUEUE_COMES_WITHIN: Duration = Duration::from_secs(3);
/// For how long a queue that refuses is asked again. A quorum queue is known by its name a moment before it has a leader,
/// and refuses what comes in between; a full queue's refusal should be heard soon.
const QUEUE_TAKES_WITHIN: Duration = Duration::from_millis(500);
/// Between two tries.
const QUEUE_EVERY: Duration = Duration::from_millis(100);

/// Why a message is not known to be with the broker. After [`PublishError::Lost`] and [`PublishError::TimedOut`] it
/// may be there all the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// No queue took it (`basic.return`).
    #[error("no queue takes messages for routing key {routing_key:?} on exchange {exchange:?}: {reason}")]
    Unroutable {
        /// The exchange it was published to.
        exchange: String,
        /// With this routing key.
        routing_key: String,
        /// What the broker said.
        reason: String,
    },
    /// The broker or a queue refused it (`basic.nack`): for example a queue at its length limit.
    #[error(
        "the broker refused the message for routing key {routing_key:?} (is the queue at its length limit?)"
    )]
    Refused {
        /// With this routing key.
        routing_key: String,
    },
    /// Channel or connection went away before the confirm.
    #[error("{0}")]
    Lost(#[from] Error),
    /// No confirm came in time.
    #[error("the broker did not confirm within {} s", CONFIRM_TIMEOUT.as_secs())]
    TimedOut,
}

impl PublishError {
    /// A bounded word for labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unroutable { .. } => "unroutable",
            Self::Refused { .. } => "refused",
            Self::Lost(_) => "lost",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Publishes on a connection of its own, `mandatory` and with publisher confirms.
///
/// A connection that publishes should not consume: under an alarm RabbitMQ stops reading from publishing
/// connections, and acknowledgements would wait with them
/// (<https://www.rabbitmq.com/docs/alarms>).
#[derive(Debug)]
pub struct Publisher {
    connection: Arc<Connection>,
    /// Replaced when the broker closes it for a fault of one message; the connection survives that.
    channel: Mutex<Channel>,
}

impl Publisher {
    /// A publisher on `connection`.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn open(connection: Arc<Connection>) -> Result<Self, Error> {
        let channel = confirming_channel(&connection).await?;
        Ok(Self {
            connection,
            channel: Mutex::new(channel),
        })
    }

    /// Whether the connection can still be used.
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// Publishes and waits for the confirm. `Ok` means that the broker has the message, for a durable queue on disk.
    /// Dropping this future leaves it open whether the message was published.
    ///
    /// # Errors
    /// See [`PublishError`]: for none of them may the original be acknowledged.
    ///
    /// Source: <https://www.rabbitmq.com/docs/confirms#when-publishes-are-confirmed>.
    pub async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let publishing = self.publish_unbounded(exchange, routing_key, properties, body);
        tokio::time::timeout(CONFIRM_TIMEOUT, publishing)
            .await
            .unwrap_or(Err(PublishError::TimedOut))
    }

    /// As [`publish`](Self::publish) to a queue that may not be made yet: somebody who annotates a workload may publish
    /// at once. It is waited for when it does not exist, for 3 s, and asked again when it refuses, for half a second.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub async fn publish_once_there(
        &self,
        queue: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let begun = Instant::now();
        loop {
            let published = self.publish("", queue, properties.clone(), body).await;
            let patience = match published {
                Err(PublishError::Unroutable { .. }) => QUEUE_COMES_WITHIN,
                Err(PublishError::Refused { .. }) => QUEUE_TAKES_WITHIN,
                _ => return published,
            };
            if begun.elapsed() >= patience {
                return published;
            }
            tokio::time::sleep(QUEUE_EVERY).await;
        }
    }

    /// As [`publish`](Self::publish), but time in which the broker takes no publishes (a memory or disk alarm) does not
    /// count: what was handed over before it is sent after it, and must not be published a second time by then.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub async fn publish_through_alarms(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let publishing = self.publish_unbounded(exchange, routing_key, properties, body);
        self.through_alarms(publishing).await
    }

    /// As [`publish_through_alarms`](Self::publish_through_alarms), to the name that the broker made of a direct
    /// reply-to. It stands for a consumer and for no queue, so that with `mandatory` a broker returns the message though
    /// the consumer has it: `Ok` means that the broker has taken it, and not that somebody is there
    /// (<https://www.rabbitmq.com/docs/direct-reply-to#limitations>).
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish), but never [`PublishError::Unroutable`].
    pub async fn publish_direct(
        &self,
        reply_to: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let publishing = self.publish_with(BasicPublishOptions::default(), "", reply_to, properties, body);
        self.through_alarms(publishing).await
    }

    async fn through_alarms(
        &self,
        publishing: impl Future<Output = Result<(), PublishError>>,
    ) -> Result<(), PublishError> {
        // Dropping either is fine: the one that ends first decides.
        tokio::select! {
            biased;
            published = publishing => published,
            () = self.connection.unblocked_for(CONFIRM_TIMEOUT) => Err(PublishError::TimedOut),
        }
    }

    async fn publish_unbounded(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        self.publish_with(options, exchange, routing_key, properties, body)
            .await
    }

    async fn publish_with(
        &self,
        options: BasicPublishOptions,
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let confirm = self
            .channel()
            .await?
            .basic_publish(exchange.into(), routing_key.into(), options, body, properties)
            .await
            .map_err(Error::from)?
            .await
            .map_err(Error::from)?;
        match confirm {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                Err(PublishError::Unroutable {
                    exchange: exchange.to_owned(),
                    routing_key: routing_key.to_owned(),
                    reason: returned.reply_text.to_string(),
                })
            }
            Confirmation::Nack(None) => Err(PublishError::Refused {
                routing_key: routing_key.to_owned(),
            }),
            Confirmation::NotRequested => Err(PublishError::Lost(Error::Protocol(
                "publisher confirms are not enabled".to_owned(),
            ))),
        }
    }

    async fn channel(&self) -> Result<Channel, Error> {
        let mut channel = self.channel.lock().await;
        if !channel.status().connected() {
            *channel = confirming_channel(&self.connection).await?;
        }
        Ok(channel.clone())
    }
}

async fn confirming_channel(connection: &Connection) -> Result<Channel, Error> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}
