//! RabbitMQ as an outbox: connected when the first call needs it, and again when it was lost.

use crate::outbox::{Message, Outbox, OutboxError};
use crate::telemetry;
use amqp::{Connection, PublishError, Publisher};
use contract::broker::BrokerUrl;
use futures_util::future::BoxFuture;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use ops::backoff::Backoff;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// Messages survive a restart of the broker (AMQP 0-9-1, `delivery-mode`).
const PERSISTENT: u8 = 2;
/// Between two tries to connect. Calls that come in between are answered at once with the last cause.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Of the time that a call has, the part that connecting may take; the rest is for the confirm.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes to RabbitMQ with confirms.
pub struct Broker {
    url: BrokerUrl,
    /// Under which RabbitMQ's own tools show the connection.
    name: String,
    link: Mutex<Link>,
}

struct Link {
    open: Option<Arc<Open>>,
    backoff: Backoff,
    /// Why the last try failed, and when the next is due.
    failed: Option<(String, Instant)>,
}

struct Open {
    connection: Arc<Connection>,
    publisher: Publisher,
}

impl Broker {
    /// An outbox that connects when it is first used; `name` is what RabbitMQ's own tools show.
    pub fn new(url: BrokerUrl, name: impl Into<String>) -> Self {
        let link = Link {
            open: None,
            backoff: Backoff::new(RECONNECT.0, RECONNECT.1),
            failed: None,
        };
        Self {
            url,
            name: name.into(),
            link: Mutex::new(link),
        }
    }

    /// Closes the connection, if there is one.
    pub async fn close(&self) {
        if let Some(open) = self.link.lock().await.open.take() {
            open.connection.close().await;
        }
    }

    /// The open connection, or a new one. Calls that come while one connects wait for what comes of it.
    async fn open(&self, deadline: Instant) -> Result<Arc<Open>, String> {
        let Ok(mut link) = timeout_at(deadline, self.link.lock()).await else {
            return Err("the broker cannot be reached: connecting takes too long".to_owned());
        };
        if let Some(open) = link.open.as_ref().filter(|open| open.connection.is_open()) {
            return Ok(Arc::clone(open));
        }
        if link.open.take().is_some() {
            link.lost("the connection was lost");
        }
        if let Some((cause, due)) = &link.failed
            && Instant::now() < *due
        {
            return Err(cause.clone());
        }
        let patience = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let connected = match timeout_at(patience, self.connect()).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_elapsed) => Err("the broker cannot be reached: it did not answer in time".to_owned()),
        };
        match connected {
            Ok(open) => {
                let open = Arc::new(open);
                link.open = Some(Arc::clone(&open));
                link.failed = None;
                link.backoff.reset();
                telemetry::broker_connected();
                Ok(open)
            }
            Err(cause) => {
                link.lost(&cause);
                let due = Instant::now() + link.backoff.next_delay();
                link.failed = Some((cause.clone(), due));
                Err(cause)
            }
        }
    }

    async fn connect(&self) -> Result<Open, amqp::Error> {
        let connection = Arc::new(amqp::connect(&self.url, &self.name).await?);
        let publisher = Publisher::open(Arc::clone(&connection)).await?;
        Ok(Open {
            connection,
            publisher,
        })
    }

    /// Does not use this connection again: it did not answer.
    async fn distrust(&self, open: &Arc<Open>, cause: &str) {
        let mut link = self.link.lock().await;
        if link
            .open
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, open))
        {
            link.open = None;
            link.lost(cause);
        }
    }

    async fn publish_by(&self, queue: &str, message: Message, deadline: Instant) -> Result<(), OutboxError> {
        let open = self.open(deadline).await.map_err(OutboxError::Unavailable)?;
        if let Some(reason) = open.connection.blocked() {
            return Err(OutboxError::Unavailable(format!(
                "the broker takes no messages now: {reason}"
            )));
        }
        let body = message.body.clone();
        let publishing = open
            .publisher
            .publish_once_there(queue, properties(message), &body);
        match timeout_at(deadline, publishing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ (PublishError::Unroutable { .. } | PublishError::Refused { .. }))) => {
                Err(OutboxError::Unavailable(error.to_string()))
            }
            Ok(Err(error @ PublishError::Lost(_))) => Err(OutboxError::Unconfirmed(error.to_string())),
            Ok(Err(PublishError::TimedOut)) | Err(_) => {
                let cause = "the broker did not confirm the message in time";
                self.distrust(&open, cause).await;
                Err(OutboxError::Unconfirmed(cause.to_owned()))
            }
        }
    }
}

impl Link {
    /// Says that the broker is away, unless that was said since it was last there. Connecting may be tried at once.
    fn lost(&mut self, cause: &str) {
        if self.failed.is_none() {
            telemetry::broker_lost(cause);
            self.failed = Some((cause.to_owned(), Instant::now()));
        }
    }
}

impl Outbox for Broker {
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        message: Message,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(self.publish_by(queue, message, deadline))
    }
}

fn properties(message: Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in message.headers {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message.id.into())
        .with_timestamp(message.timestamp)
        .with_headers(headers);
    if let Some(content_type) = message.content_type {
        properties = properties.with_content_type(content_type.into());
    }
    if let Some(content_encoding) = message.content_encoding {
        properties = properties.with_content_encoding(content_encoding.into());
    }
    properties
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
