//! What the sidecar needs of a broker, as traits. [`RabbitMq`](super::RabbitMq) is the real one; the simulation in
//! `sidecar/tests/simulation/` has one of its own, on simulated time.
//!
//! A delivery is one poll of a stream and a settlement one call: neither is boxed.

use crate::domain::ack_window::Tag;
use amqp::legible::Count;
use amqp::topology::{Depth, Ensured, QueuePlan};
use amqp::version::Server;
use amqp::{Error, PublishError};
use contract::broker::BrokerUrl;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use lapin::BasicProperties;
use lapin::message::Delivery;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::watch;

/// Opens connections.
pub trait Broker: Debug + Send + Sync {
    /// Opens a connection that the broker's own tools show as `name`. Never retries. Cancel safe.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    fn connect<'a>(
        &'a self,
        broker: &'a BrokerUrl,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, Error>>;
}

/// An open connection; one that is lost stays lost. Dropping it closes it.
pub trait Connection: Debug + Send + Sync {
    /// Whether it can still be used.
    fn is_open(&self) -> bool;

    /// Waits until it is lost and says why. Cancel safe.
    fn lost(&self) -> BoxFuture<'_, String>;

    /// Waits until the broker holds back publishes on it and says why; for ever if it never does. Cancel safe.
    fn until_blocked(&self) -> BoxFuture<'_, String>;

    /// What the broker says that it is.
    fn server(&self) -> Option<&Server>;

    /// What came on it that was not legible and was mended: how much so far, and more as it comes.
    fn mended(&self) -> watch::Receiver<Count>;

    /// Closes gracefully: what was written before is processed by the broker first.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// Makes a queue unless it is there, and looks at the one that is.
    ///
    /// # Errors
    /// When the broker refuses or the connection is lost.
    fn ensure_queue<'a>(&'a self, plan: &'a QueuePlan) -> BoxFuture<'a, Result<Ensured, Error>>;

    /// What waits in a queue, and who consumes it.
    ///
    /// # Errors
    /// When there is none, the broker refuses or the connection is lost.
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Depth, Error>>;

    /// Declares a queue as planned, whether or not it is there.
    ///
    /// # Errors
    /// When it is there with other arguments, the broker refuses or the connection is lost.
    fn declare_queue<'a>(&'a self, plan: &'a QueuePlan) -> BoxFuture<'a, Result<(), Error>>;

    /// Opens a channel whose consumers get no more than `prefetch` deliveries that are not settled.
    ///
    /// # Errors
    /// When the broker refuses or the connection is lost.
    fn channel(&self, prefetch: u16) -> BoxFuture<'_, Result<Arc<dyn Channel>, Error>>;

    /// Opens a publisher with confirms.
    ///
    /// # Errors
    /// When the broker refuses or the connection is lost.
    fn publisher(self: Arc<Self>) -> BoxFuture<'static, Result<Box<dyn Publisher>, Error>>;
}

/// A channel to consume on. What was delivered on it and not settled goes back to its queue when it closes, and it
/// closes with its connection, or when its last handle is dropped.
pub trait Channel: Debug + Send + Sync {
    /// Whether it is not known to be closed. What was delivered on a closed one is delivered again.
    fn is_open(&self) -> bool;

    /// Subscribes to a queue.
    ///
    /// # Errors
    /// When the broker refuses or the connection is lost.
    fn consume<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Consumer, Error>>;

    /// Ends a subscription; its stream then yields what was on its way, and ends.
    ///
    /// # Errors
    /// When the channel is gone.
    fn cancel<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// Writes `basic.ack`; `false` when the channel is known to be gone. In order with [`release`](Self::release).
    fn ack(&self, tag: Tag, multiple: bool) -> bool;

    /// Writes `basic.nack` with requeue; `false` when the channel is known to be gone.
    fn release(&self, tag: Tag) -> bool;

    /// Closes it: what was written before is processed by the broker first. Waits for the broker's answer.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A subscription.
#[expect(missing_debug_implementations, reason = "a stream has nothing to show")]
pub struct Consumer {
    /// The broker's name for it.
    pub tag: String,
    /// Ends without an error when the broker cancels it or the connection is lost, with one when the broker closes the
    /// channel. Cancel safe: a delivery that is not taken stays.
    pub deliveries: BoxStream<'static, Result<Delivery, Error>>,
}

/// Publishes with confirms, on a connection that does not consume.
pub trait Publisher: Debug + Send + Sync {
    /// Publishes to a queue and waits until the broker has the message; time in which the broker takes no publishes does
    /// not count towards any timeout. Dropping the future leaves it open whether it was published.
    ///
    /// # Errors
    /// See [`PublishError`]: for none of them may the original be acknowledged.
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        properties: BasicProperties,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>>;

    /// As [`publish`](Self::publish), to the name that the broker made of a direct reply-to: `Ok` means that the broker
    /// has taken it, and not that somebody is there.
    ///
    /// # Errors
    /// See [`PublishError`].
    fn publish_direct<'a>(
        &'a self,
        reply_to: &'a str,
        properties: BasicProperties,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>>;
}
