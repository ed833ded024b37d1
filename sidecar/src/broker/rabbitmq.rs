//! The real broker: lapin, behind the ports.

use super::port::{Broker, Channel, Connection, Consumer, Publisher};
use crate::domain::ack_window::Tag;
use amqp::legible::Count;
use amqp::topology::{Depth, Ensured, QueuePlan};
use amqp::version::Server;
use amqp::{Error, Frames, PublishError};
use contract::broker::BrokerUrl;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use std::sync::Arc;
use tokio::sync::watch;

/// Any RabbitMQ that can be reached over TCP.
#[derive(Debug, Clone, Default)]
pub struct RabbitMq {
    frames: Frames,
}

impl Broker for RabbitMq {
    fn connect<'a>(
        &'a self,
        broker: &'a BrokerUrl,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, Error>> {
        async move {
            let connection: Arc<dyn Connection> =
                Arc::new(amqp::connect_with(broker, name, &self.frames).await?);
            Ok(connection)
        }
        .boxed()
    }
}

impl Connection for amqp::Connection {
    fn is_open(&self) -> bool {
        self.is_open()
    }

    fn lost(&self) -> BoxFuture<'_, String> {
        self.lost().boxed()
    }

    fn until_blocked(&self) -> BoxFuture<'_, String> {
        self.until_blocked().boxed()
    }

    fn server(&self) -> Option<&Server> {
        self.server()
    }

    fn mended(&self) -> watch::Receiver<Count> {
        self.mended()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.close().boxed()
    }

    fn ensure_queue<'a>(&'a self, plan: &'a QueuePlan) -> BoxFuture<'a, Result<Ensured, Error>> {
        amqp::topology::ensure_queue(self, plan).boxed()
    }

    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Depth, Error>> {
        amqp::topology::depth(self, queue).boxed()
    }

    fn declare_queue<'a>(&'a self, plan: &'a QueuePlan) -> BoxFuture<'a, Result<(), Error>> {
        amqp::topology::declare_queue(self, plan).boxed()
    }

    fn channel(&self, prefetch: u16) -> BoxFuture<'_, Result<Arc<dyn Channel>, Error>> {
        async move {
            let channel = self.create_channel().await?;
            // Per consumer, not per channel: RabbitMQ 4.3 refuses the global form.
            channel
                .basic_qos(prefetch, BasicQosOptions { global: false })
                .await?;
            let channel: Arc<dyn Channel> = Arc::new(channel);
            Ok(channel)
        }
        .boxed()
    }

    fn publisher(self: Arc<Self>) -> BoxFuture<'static, Result<Box<dyn Publisher>, Error>> {
        async move {
            let publisher: Box<dyn Publisher> = Box::new(amqp::Publisher::open(self).await?);
            Ok(publisher)
        }
        .boxed()
    }
}

impl Channel for lapin::Channel {
    fn is_open(&self) -> bool {
        self.status().connected()
    }

    fn consume<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Consumer, Error>> {
        async move {
            let consumer = self
                .basic_consume(
                    queue.into(),
                    // The broker makes up a name.
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok(Consumer {
                tag: consumer.tag().to_string(),
                deliveries: consumer.map(|next| next.map_err(Error::from)).boxed(),
            })
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.basic_cancel(consumer.into(), BasicCancelOptions::default())
                .await?;
            Ok(())
        }
        .boxed()
    }

    /// Hands one frame to lapin. The first poll enqueues it; what follows only tells that it was written.
    fn ack(&self, tag: Tag, multiple: bool) -> bool {
        let result = self.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
        !matches!(result, Some(Err(_)))
    }

    fn release(&self, tag: Tag) -> bool {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        let result = self.basic_nack(tag, options).now_or_never();
        !matches!(result, Some(Err(_)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            // A channel that is gone stays gone.
            let _closed = self.close(200, "OK".into()).await;
        }
        .boxed()
    }
}

impl Publisher for amqp::Publisher {
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        properties: BasicProperties,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        self.publish_through_alarms("", queue, properties, body).boxed()
    }

    fn publish_direct<'a>(
        &'a self,
        reply_to: &'a str,
        properties: BasicProperties,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        self.publish_direct(reply_to, properties, body).boxed()
    }
}
