//! A test's own view of the broker: declares queues, publishes with a confirm, looks at what is in them.

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How many messages [`Amqp::publish_many`] has on the way before it waits for the oldest confirm.
const UNCONFIRMED: usize = 500;
/// For how long the broker may refuse a message.
const REFUSALS: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A connection to a broker with one channel for publishing.
///
/// Every method panics with a sentence when the broker refuses or is gone: tests that are about that use
/// [`Amqp::channel`].
pub struct Amqp {
    connection: Connection,
    publishing: Channel,
}

impl Amqp {
    /// Connects to `url`, an `amqp://` address with everything percent-encoded.
    pub async fn connect(url: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name("testkit".into());
        let connection = Connection::connect(url, properties).await;
        let connection =
            connection.unwrap_or_else(|error| panic!("the test cannot connect to its broker: {error}"));
        let publishing = connection
            .create_channel()
            .await
            .expect("the broker gives a channel");
        publishing
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("the broker confirms publishes");
        Self {
            connection,
            publishing,
        }
    }

    /// Whether the connection still stands.
    pub fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    /// A new channel, for what this client has no method for.
    pub async fn channel(&self) -> Channel {
        self.connection
            .create_channel()
            .await
            .expect("the broker gives a channel")
    }

    /// Declares a durable queue with `arguments`, such as `table([("x-queue-type", text("quorum"))])`.
    pub async fn declare(&self, queue: &str, arguments: FieldTable) {
        let channel = self.channel().await;
        let declared = channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
            .await;
        declared.unwrap_or_else(|error| panic!("queue {queue} cannot be declared: {error}"));
        close(&channel).await;
    }

    /// Declares a durable quorum queue.
    pub async fn declare_quorum(&self, queue: &str) {
        self.declare(queue, table([("x-queue-type", text("quorum"))]))
            .await;
    }

    /// Publishes one persistent message to `queue` through the default exchange and waits for its confirm.
    pub async fn publish(&self, queue: &str, body: impl AsRef<[u8]>, properties: BasicProperties) {
        self.publish_many(queue, [(body, properties)]).await;
    }

    /// Publishes messages in order, some hundreds at a time on their way, and returns when all are confirmed. One that the
    /// broker refuses comes after the others: a quorum queue that is being made refuses until it has a leader.
    ///
    /// Panics when one cannot be routed, because the queue must exist, and when one is refused for long.
    pub async fn publish_many<B: AsRef<[u8]>>(
        &self,
        queue: &str,
        messages: impl IntoIterator<Item = (B, BasicProperties)>,
    ) {
        let begun = Instant::now();
        let mut refused = self.publish_in_order(queue, messages).await;
        while !refused.is_empty() {
            assert!(
                begun.elapsed() < REFUSALS,
                "queue {queue} does not take messages: it refused {}",
                refused.len()
            );
            sleep(BETWEEN_TRIES).await;
            refused = self.publish_in_order(queue, refused).await;
        }
    }

    /// Returns the messages that the broker refused.
    async fn publish_in_order<B: AsRef<[u8]>>(
        &self,
        queue: &str,
        messages: impl IntoIterator<Item = (B, BasicProperties)>,
    ) -> Vec<(B, BasicProperties)> {
        let mut refused = Vec::new();
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut unconfirmed = VecDeque::with_capacity(UNCONFIRMED);
        for (body, properties) in messages {
            let properties = match properties.delivery_mode() {
                Some(_) => properties,
                None => properties.with_delivery_mode(PERSISTENT),
            };
            if unconfirmed.len() == UNCONFIRMED
                && let Some((confirm, message)) = unconfirmed.pop_front()
                && !is_taken(queue, confirm).await
            {
                refused.push(message);
            }
            let sent = self.publishing.basic_publish(
                "".into(),
                queue.into(),
                options,
                body.as_ref(),
                properties.clone(),
            );
            let confirm = sent.await.expect("the message is sent");
            unconfirmed.push_back((confirm, (body, properties)));
        }
        for (confirm, message) in unconfirmed {
            if !is_taken(queue, confirm).await {
                refused.push(message);
            }
        }
        refused
    }

    /// Takes the oldest message out of `queue`, acknowledged; `None` when no message is ready.
    pub async fn get(&self, queue: &str) -> Option<Message> {
        let channel = self.channel().await;
        let message = get(&channel, queue).await;
        close(&channel).await;
        message
    }

    /// Takes every ready message out of `queue`, oldest first.
    pub async fn get_all(&self, queue: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        self.take_all(queue, |message| messages.push(message)).await;
        messages
    }

    /// As [`get_all`](Self::get_all), one message at a time, for queues that are large.
    pub async fn take_all(&self, queue: &str, mut take: impl FnMut(Message)) {
        let channel = self.channel().await;
        while let Some(message) = get(&channel, queue).await {
            take(message);
        }
        close(&channel).await;
    }

    /// `(ready messages, consumers)` of `queue`, or `None` when there is no such queue.
    ///
    /// A quorum queue's count follows what happened after some milliseconds: compare inside
    /// [`wait::until`](crate::wait::until).
    pub async fn depth(&self, queue: &str) -> Option<(u32, u32)> {
        // The broker closes the channel on which a missing queue is asked for.
        let channel = self.channel().await;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .ok()?;
        close(&channel).await;
        Some((declared.message_count(), declared.consumer_count()))
    }

    /// Removes every ready message from `queue` and returns how many there were.
    pub async fn purge(&self, queue: &str) -> u32 {
        let channel = self.channel().await;
        let purged = channel
            .queue_purge(queue.into(), QueuePurgeOptions::default())
            .await;
        close(&channel).await;
        purged.unwrap_or_else(|error| panic!("queue {queue} cannot be purged: {error}"))
    }

    /// Deletes `queue`, with what is in it; nothing happens when there is none.
    pub async fn delete(&self, queue: &str) {
        let deleted = self.try_delete(queue).await;
        deleted.unwrap_or_else(|error| panic!("queue {queue} cannot be deleted: {error}"));
    }

    /// The same, for a broker that may be too busy to.
    ///
    /// # Errors
    /// Those of the broker; the connection may be lost with them.
    pub async fn try_delete(&self, queue: &str) -> lapin::Result<()> {
        let channel = self.channel().await;
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await?;
        close(&channel).await;
        Ok(())
    }

    /// Closes the connection; dropping the client does so too, without waiting.
    pub async fn close(self) {
        // The broker may have gone before, which is as good.
        let _closed = self.connection.close(200, "the test is done".into()).await;
    }
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp")
            .field("status", self.connection.status())
            .finish_non_exhaustive()
    }
}

/// AMQP 0-9-1 `delivery-mode` of a message that survives a restart.
const PERSISTENT: u8 = 2;

/// `false` when the broker refused it (`basic.nack`).
async fn is_taken(queue: &str, confirm: impl Future<Output = lapin::Result<Confirmation>>) -> bool {
    match confirm.await.expect("the broker confirms") {
        Confirmation::Ack(None) => true,
        Confirmation::Nack(None) => false,
        other => panic!("queue {queue} did not take a message: {other:?}"),
    }
}

async fn get(channel: &Channel, queue: &str) -> Option<Message> {
    let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
    let got = got.unwrap_or_else(|error| panic!("queue {queue} cannot be read: {error}"))?;
    channel
        .basic_ack(got.delivery.delivery_tag, BasicAckOptions::default())
        .await
        .expect("the broker takes an ack");
    Some(Message::from(got.delivery))
}

/// An idle channel is closed, so that long tests do not collect thousands.
async fn close(channel: &Channel) {
    // A channel that the broker closed already is closed.
    let _closed = channel.close(200, "done".into()).await;
}

/// A message as the broker hands it out.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// Properties with the application's headers.
    pub properties: BasicProperties,
    /// The exchange to which it was published; empty for the default exchange.
    pub exchange: String,
    /// The routing key with which it was published.
    pub routing_key: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
}

impl Message {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }

    /// The value of a header that is a text.
    pub fn header_text(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(value) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
            AMQPValue::ShortString(value) => Some(value.as_str().to_owned()),
            _ => None,
        }
    }

    /// The value of a header that is a whole number of any width.
    pub fn header_number(&self, name: &str) -> Option<i64> {
        match *self.header(name)? {
            AMQPValue::ShortShortInt(value) => Some(value.into()),
            AMQPValue::ShortShortUInt(value) => Some(value.into()),
            AMQPValue::ShortInt(value) => Some(value.into()),
            AMQPValue::ShortUInt(value) => Some(value.into()),
            AMQPValue::LongInt(value) => Some(value.into()),
            AMQPValue::LongUInt(value) => Some(value.into()),
            AMQPValue::LongLongInt(value) => Some(value),
            _ => None,
        }
    }
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        Self {
            body: delivery.data,
            properties: delivery.properties,
            exchange: delivery.exchange.as_str().to_owned(),
            routing_key: delivery.routing_key.as_str().to_owned(),
            redelivered: delivery.redelivered,
        }
    }
}

/// An AMQP table of the given entries, for queue arguments and headers.
pub fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

/// A text as an AMQP value.
pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
