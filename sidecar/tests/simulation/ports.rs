//! The sidecar's ports to the broker, on the simulated one. What is written is on its way and may be lost; what is asked
//! is answered, or the connection is lost.

use crate::world::{Bug, Known, Shared, World, lock};
use amqp::legible::Count;
use amqp::topology::{Depth, Ensured, QueuePlan};
use amqp::version::Server;
use amqp::{Error, PublishError};
use contract::broker::BrokerUrl;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use lapin::BasicProperties;
use lapin::message::Delivery;
use sidecar::broker::port;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What lapin and we allow a confirm and a connection.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// RabbitMQ's own name for a consumer begins so.
const CONSUMER: &str = "amq.ctag-";

/// The broker as one sidecar sees it.
pub struct Broker {
    pub world: Shared,
    pub sidecar: usize,
}

/// One connection, held by its handle, its channels and its publisher.
struct Link {
    world: Shared,
    id: u64,
}

struct Connection(Arc<Link>);

/// One channel, held by its handle and its consumer.
struct OpenChannel {
    link: Arc<Link>,
    id: u64,
}

struct Channel(Arc<OpenChannel>);

struct Publisher(Arc<Link>);

/// A consumer's stream; dropping it cancels, as lapin's does.
struct Stream {
    channel: Arc<OpenChannel>,
    deliveries: mpsc::Receiver<Result<Delivery, Error>>,
}

macro_rules! opaque {
    ($($name:ident),+) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        })+
    };
}
opaque!(Broker, Connection, Publisher, Channel);

fn lost(cause: &str) -> Error {
    Error::Unreachable(cause.to_owned())
}

impl port::Broker for Broker {
    fn connect<'a>(
        &'a self,
        _broker: &'a BrokerUrl,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn port::Connection>, Error>> {
        async move {
            let (takes, is_silent) = {
                let mut world = lock(&self.world);
                world.count_call();
                let is_silent = world.is_faulty && world.chance(3);
                (world.draw(1, 20), is_silent)
            };
            if is_silent {
                tokio::time::sleep(CONNECT_TIMEOUT).await;
                return Err(Error::TimedOut {
                    what: "the connection",
                    within: CONNECT_TIMEOUT,
                });
            }
            tokio::time::sleep(takes).await;
            let mut world = lock(&self.world);
            if !world.is_broker_up || (world.is_faulty && world.chance(3)) {
                return Err(lost("connection refused"));
            }
            let link = Link {
                world: Arc::clone(&self.world),
                id: world.open_connection(self.sidecar, name),
            };
            let connection: Arc<dyn port::Connection> = Arc::new(Connection(Arc::new(link)));
            Ok(connection)
        }
        .boxed()
    }
}

impl Link {
    /// Asks the broker, and waits until it has answered or the client knows that it will not.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut World) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel();
        let id = self.id;
        let is_sent = lock(&self.world).up(id, move |world| {
            let result = question(world);
            world.down(id, move |_| {
                // Whoever asked may have given up.
                let _heard = sender.send(result).is_ok();
            });
        });
        if !is_sent {
            return Err(lost("the connection is closed"));
        }
        let cause = tokio::select! {
            biased;
            cause = self.lost() => cause,
            answer = answer => match answer {
                Ok(result) => return result,
                // It was on its way when the connection was cut.
                Err(_cut) => self.lost().await,
            },
        };
        Err(lost(&cause))
    }

    async fn known(&self, wanted: impl FnMut(&Known) -> bool) -> Known {
        let state = Arc::clone(&lock(&self.world).connections[&self.id].state);
        state.until(wanted).await
    }

    async fn lost(&self) -> String {
        match self.known(|known| matches!(known, Known::Lost(_))).await {
            Known::Lost(cause) => cause,
            other => panic!("{other:?}"),
        }
    }

    async fn until_blocked(&self) -> String {
        match self.known(|known| *known != Known::Open).await {
            Known::Blocked(reason) => reason,
            _ => std::future::pending().await,
        }
    }

    async fn unblocked_for(&self, time: Duration) {
        while tokio::time::timeout(time, self.until_blocked()).await.is_ok() {
            self.known(|known| !matches!(known, Known::Blocked(_))).await;
        }
    }

    fn is_open(&self) -> bool {
        self.state_is_open(&lock(&self.world))
    }

    fn state_is_open(&self, world: &World) -> bool {
        !matches!(world.connections[&self.id].state.get(), Known::Lost(_))
    }
}

impl Drop for Link {
    /// The last of connection and channels closes it.
    fn drop(&mut self) {
        let id = self.id;
        // While a panic unwinds the world may be locked for ever.
        if let Ok(mut world) = self.world.lock() {
            world.up(id, move |world| {
                world.connection_gone(id, "the last handle");
                world.client_lost(id, "closed");
            });
        }
    }
}

impl port::Connection for Connection {
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    fn lost(&self) -> BoxFuture<'_, String> {
        self.0.lost().boxed()
    }

    fn until_blocked(&self) -> BoxFuture<'_, String> {
        self.0.until_blocked().boxed()
    }

    fn server(&self) -> Option<&Server> {
        None
    }

    /// Nothing here is on a wire.
    fn mended(&self) -> watch::Receiver<Count> {
        watch::channel(Count::default()).1
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (link, id) = (&self.0, self.0.id);
        async move {
            let closing = link.ask(move |world| {
                world.connection_gone(id, "the sidecar");
                Ok(())
            });
            let _closed = tokio::time::timeout(Duration::from_secs(3), closing).await;
            lock(&link.world).client_lost(id, "closed");
        }
        .boxed()
    }

    fn ensure_queue<'a>(&'a self, plan: &'a QueuePlan) -> BoxFuture<'a, Result<Ensured, Error>> {
        let plan = plan.clone();
        async move {
            let created = self.0.ask(move |world| Ok(world.declare(&plan))).await?;
            Ok(Ensured {
                created,
                risks: Vec::new(),
                is_single_active: false,
            })
        }
        .boxed()
    }

    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Depth, Error>> {
        let name = queue.to_owned();
        async move { self.0.ask(move |world| world.depth(&name)).await }.boxed()
    }

    fn declare_queue<'a>(&'a self, plan: &'a QueuePlan) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.ensure_queue(plan).await?;
            Ok(())
        }
        .boxed()
    }

    fn channel(&self, prefetch: u16) -> BoxFuture<'_, Result<Arc<dyn port::Channel>, Error>> {
        let connection = self.0.id;
        async move {
            let opening = self
                .0
                .ask(move |world| Ok(world.open_channel(connection, prefetch)));
            let open = OpenChannel {
                link: Arc::clone(&self.0),
                id: opening.await?,
            };
            let channel: Arc<dyn port::Channel> = Arc::new(Channel(Arc::new(open)));
            Ok(channel)
        }
        .boxed()
    }

    fn publisher(self: Arc<Self>) -> BoxFuture<'static, Result<Box<dyn port::Publisher>, Error>> {
        async move {
            self.0.ask(|_| Ok(())).await?;
            let publisher: Box<dyn port::Publisher> = Box::new(Publisher(Arc::clone(&self.0)));
            Ok(publisher)
        }
        .boxed()
    }
}

impl OpenChannel {
    /// Writes; `false` when the client knows that it goes nowhere.
    fn write(&self, op: impl FnOnce(&mut World, u64) + Send + 'static) -> bool {
        let mut world = lock(&self.link.world);
        let id = self.id;
        let is_dead = world.dead_channels.contains(&id);
        if world.bug == Some(Bug::SettleAcrossGenerations) && (is_dead || !self.link.state_is_open(&world)) {
            // The newest channel that consumes.
            let channels = &world.rabbit.channels;
            let newest = channels.iter().rfind(|(_, channel)| channel.consumes.is_some());
            if let Some((newest, _)) = newest {
                let newest = *newest;
                op(&mut world, newest);
                return true;
            }
        }
        !is_dead && world.up(self.link.id, move |world| op(world, id))
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        let id = self.id;
        if let Ok(mut world) = self.link.world.lock() {
            world.up(self.link.id, move |world| {
                world.channel_gone(id, "the last handle");
            });
        }
    }
}

impl port::Channel for Channel {
    fn is_open(&self) -> bool {
        let world = lock(&self.0.link.world);
        self.0.link.state_is_open(&world) && !world.dead_channels.contains(&self.0.id)
    }

    fn consume<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<port::Consumer, Error>> {
        let (channel, queue) = (&self.0, queue.to_owned());
        async move {
            let (id, connection) = (channel.id, channel.link.id);
            // More than prefetch ever is.
            let (sender, deliveries) = mpsc::channel(4096);
            if let Some(conn) = lock(&channel.link.world).connections.get_mut(&connection)
                && !matches!(conn.state.get(), Known::Lost(_))
            {
                conn.streams.insert(id, sender);
            }
            channel.link.ask(move |world| world.consume(id, &queue)).await?;
            let stream = Stream {
                channel: Arc::clone(channel),
                deliveries,
            };
            let deliveries = futures_util::stream::unfold(stream, async |mut stream| {
                let next = stream.deliveries.recv().await?;
                Some((next, stream))
            });
            Ok(port::Consumer {
                tag: format!("{CONSUMER}{id}"),
                deliveries: deliveries.boxed(),
            })
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let (channel, id) = (&self.0, self.0.id);
        assert_eq!(consumer, format!("{CONSUMER}{id}"));
        async move {
            let connection = channel.link.id;
            if lock(&channel.link.world).dead_channels.contains(&id) {
                return Err(lost("the channel is closed"));
            }
            let cancelling = channel.link.ask(move |world| {
                world.cancel(id);
                Ok(())
            });
            cancelling.await?;
            // What was on its way came before the answer.
            if let Some(conn) = lock(&channel.link.world).connections.get_mut(&connection) {
                conn.streams.remove(&id);
            }
            Ok(())
        }
        .boxed()
    }

    fn ack(&self, tag: u64, multiple: bool) -> bool {
        let (bug, is_hit) = {
            let mut world = lock(&self.0.link.world);
            (world.bug, world.bug.is_some() && world.chance(5))
        };
        match bug {
            Some(Bug::AckForgotten) if is_hit => return true,
            Some(Bug::AckTwice) if is_hit => {
                self.0.write(move |world, id| world.ack(id, tag, multiple));
            }
            _ => {}
        }
        let multiple = multiple || bug == Some(Bug::AckIsAlwaysMultiple);
        self.0.write(move |world, id| world.ack(id, tag, multiple))
    }

    fn release(&self, tag: u64) -> bool {
        if lock(&self.0.link.world).bug == Some(Bug::ReleaseForgotten) {
            return true;
        }
        self.0.write(move |world, id| world.release(id, tag))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let id = self.0.id;
        async move {
            let closing = self.0.link.ask(move |world| {
                world.channel_gone(id, "the sidecar");
                Ok(())
            });
            // A channel that is gone stays gone.
            let _closed = closing.await;
        }
        .boxed()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (id, connection) = (self.channel.id, self.channel.link.id);
        if let Ok(mut world) = self.channel.link.world.lock() {
            let is_running = world
                .connections
                .get_mut(&connection)
                .is_some_and(|conn| conn.streams.remove(&id).is_some());
            if is_running {
                world.up(connection, move |world| world.cancel(id));
            }
        }
    }
}

impl port::Publisher for Publisher {
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        properties: BasicProperties,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        async move {
            tokio::select! {
                biased;
                published = self.publish_unbounded(queue, properties, body) => published,
                () = self.0.unblocked_for(CONFIRM_TIMEOUT) => Err(PublishError::TimedOut),
            }
        }
        .boxed()
    }

    fn publish_direct<'a>(
        &'a self,
        _reply_to: &'a str,
        _properties: BasicProperties,
        _body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        unreachable!("nobody asks for a reply here")
    }
}

impl Publisher {
    async fn publish_unbounded(
        &self,
        queue: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let (sender, confirm) = oneshot::channel();
        let (link, name, body) = (self.0.id, queue.to_owned(), body.to_vec());
        {
            let mut world = lock(&self.0.world);
            if let Some(conn) = world.connections.get_mut(&link) {
                conn.has_published = true;
            }
            if world.alarm.get() {
                world.tell_alarm(link);
            }
            world.up(link, move |world| {
                world.publish(link, &name, properties, body, sender);
            });
            if world.bug == Some(Bug::AckBeforeConfirm) {
                return Ok(());
            }
        }
        let answer = tokio::select! {
            biased;
            cause = self.0.lost() => return Err(PublishError::Lost(lost(&cause))),
            answer = confirm => answer,
        };
        match answer {
            Ok(answer) => answer,
            Err(_cut) => Err(PublishError::Lost(lost(&self.0.lost().await))),
        }
    }
}
