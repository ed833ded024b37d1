//! A broker in memory that has one queue: it hands out what it was made with, no more at once than prefetch, and takes
//! acknowledgements. What RabbitMQ would close the channel for ends the program.

use amqp::legible::Count;
use amqp::topology::{Depth, Ensured, QueuePlan};
use amqp::version::Server;
use amqp::{Error, PublishError};
use contract::broker::BrokerUrl;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use sidecar::broker::port;
use std::collections::VecDeque;
use std::future::{pending, ready};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::sync::{Notify, watch};

/// The last byte of every body; no other byte of a request is the same.
pub(crate) const LAST_BYTE: u8 = 0xff;
const BODY_BYTES: usize = 1024;
/// As those of the bench's workloads.
const HEADERS: [&str; 3] = ["x-bench-0", "x-bench-1", "x-bench-2"];

/// What the sidecar is given for a broker.
#[derive(Debug)]
pub(crate) struct Broker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    all_acknowledged: Notify,
}

#[derive(Debug)]
struct Queue {
    /// How many messages wait: each is made when it is handed out, as lapin does it.
    ready: u32,
    unacknowledged: usize,
    acknowledgements: u32,
    channels: Vec<Window>,
}

/// What one channel has taken.
#[derive(Debug)]
struct Window {
    prefetch: usize,
    unacknowledged: usize,
    /// Whether each tag from `base` on is out still.
    out: VecDeque<bool>,
    base: u64,
    is_cancelled: bool,
    consumer: Option<Waker>,
}

#[derive(Debug)]
struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Channel {
    shared: Arc<Shared>,
    number: usize,
}

#[derive(Debug)]
struct Publisher;

impl Broker {
    /// A broker whose queue holds so many messages.
    pub(crate) fn with(messages: u32) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue {
                ready: messages,
                unacknowledged: 0,
                acknowledgements: 0,
                channels: Vec::new(),
            }),
            all_acknowledged: Notify::new(),
        }))
    }

    pub(crate) async fn until_all_acknowledged(&self) {
        self.0.all_acknowledged.notified().await;
    }

    /// How many were written, each for one message or for several.
    pub(crate) fn acknowledgements(&self) -> u32 {
        self.0.queue().acknowledgements
    }
}

/// What lapin makes of a message that a careful publisher has sent.
fn delivery(tag: u64, number: u32) -> Delivery {
    let mut body = vec![b'x'; BODY_BYTES];
    body[BODY_BYTES - 1] = LAST_BYTE;
    let mut headers = FieldTable::default();
    for name in HEADERS {
        headers.insert(name.into(), AMQPValue::LongString("sixteen bytes...".into()));
    }
    let id = format!("0b54f8f2-4a3c-4c53-9d0e-{number:012}");
    let mut delivery = Delivery::mock(tag, "".into(), "orders".into(), false, body);
    delivery.properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(id.into())
        .with_headers(headers);
    delivery
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("invariant: no holder panics")
    }
}

impl Queue {
    fn next(&mut self, channel: usize, context: &Context<'_>) -> Poll<Option<Delivery>> {
        let window = &mut self.channels[channel];
        if window.is_cancelled {
            return Poll::Ready(None);
        }
        if window.unacknowledged < window.prefetch && self.ready > 0 {
            let delivery = delivery(window.base + window.out.len() as u64, self.ready);
            self.ready -= 1;
            window.out.push_back(true);
            window.unacknowledged += 1;
            self.unacknowledged += 1;
            return Poll::Ready(Some(delivery));
        }
        window.consumer = Some(context.waker().clone());
        Poll::Pending
    }

    fn acknowledge(&mut self, channel: usize, tag: u64, multiple: bool) {
        let window = &mut self.channels[channel];
        let settled = window.acknowledge(tag, multiple);
        window.unacknowledged -= settled;
        self.unacknowledged -= settled;
        self.acknowledgements += 1;
        if let Some(consumer) = window.consumer.take() {
            consumer.wake();
        }
    }
}

impl Window {
    /// How many messages it settles.
    fn acknowledge(&mut self, tag: u64, multiple: bool) -> usize {
        let position = tag
            .checked_sub(self.base)
            .and_then(|position| usize::try_from(position).ok());
        let position = position.filter(|position| self.out.get(*position) == Some(&true));
        let position = position.expect("invariant: a tag that is acknowledged is out");
        if !multiple {
            self.out[position] = false;
            return 1;
        }
        self.base = tag + 1;
        self.out.drain(..=position).filter(|is_out| *is_out).count()
    }
}

impl port::Broker for Broker {
    fn connect<'a>(
        &'a self,
        _broker: &'a BrokerUrl,
        _name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn port::Connection>, Error>> {
        let connection: Arc<dyn port::Connection> = Arc::new(Connection(Arc::clone(&self.0)));
        ready(Ok(connection)).boxed()
    }
}

impl port::Connection for Connection {
    fn is_open(&self) -> bool {
        true
    }

    fn lost(&self) -> BoxFuture<'_, String> {
        pending().boxed()
    }

    fn until_blocked(&self) -> BoxFuture<'_, String> {
        pending().boxed()
    }

    fn server(&self) -> Option<&Server> {
        None
    }

    /// Nothing here is on a wire.
    fn mended(&self) -> watch::Receiver<Count> {
        watch::channel(Count::default()).1
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn ensure_queue<'a>(&'a self, _plan: &'a QueuePlan) -> BoxFuture<'a, Result<Ensured, Error>> {
        let ensured = Ensured {
            created: false,
            risks: Vec::new(),
            is_single_active: false,
        };
        ready(Ok(ensured)).boxed()
    }

    fn depth<'a>(&'a self, _queue: &'a str) -> BoxFuture<'a, Result<Depth, Error>> {
        let depth = Depth {
            ready: self.0.queue().ready,
            consumers: 1,
        };
        ready(Ok(depth)).boxed()
    }

    fn declare_queue<'a>(&'a self, _plan: &'a QueuePlan) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(())).boxed()
    }

    fn channel(&self, prefetch: u16) -> BoxFuture<'_, Result<Arc<dyn port::Channel>, Error>> {
        let mut queue = self.0.queue();
        let number = queue.channels.len();
        queue.channels.push(Window {
            prefetch: prefetch.into(),
            unacknowledged: 0,
            out: VecDeque::new(),
            base: 1,
            is_cancelled: false,
            consumer: None,
        });
        let shared = Arc::clone(&self.0);
        let channel: Arc<dyn port::Channel> = Arc::new(Channel { shared, number });
        ready(Ok(channel)).boxed()
    }

    fn publisher(self: Arc<Self>) -> BoxFuture<'static, Result<Box<dyn port::Publisher>, Error>> {
        let publisher: Box<dyn port::Publisher> = Box::new(Publisher);
        ready(Ok(publisher)).boxed()
    }
}

impl port::Channel for Channel {
    fn is_open(&self) -> bool {
        true
    }

    fn consume<'a>(&'a self, _queue: &'a str) -> BoxFuture<'a, Result<port::Consumer, Error>> {
        let (shared, number) = (Arc::clone(&self.shared), self.number);
        let deliveries = stream::poll_fn(move |context| {
            let next = shared.queue().next(number, context);
            next.map(|next| next.map(Ok))
        });
        let consumer = port::Consumer {
            tag: "the only one of its channel".to_owned(),
            deliveries: deliveries.boxed(),
        };
        ready(Ok(consumer)).boxed()
    }

    fn cancel<'a>(&'a self, _consumer: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        self.shared.queue().channels[self.number].is_cancelled = true;
        ready(Ok(())).boxed()
    }

    fn ack(&self, tag: u64, multiple: bool) -> bool {
        let mut queue = self.shared.queue();
        queue.acknowledge(self.number, tag, multiple);
        if queue.unacknowledged == 0 && queue.ready == 0 {
            self.shared.all_acknowledged.notify_one();
        }
        true
    }

    fn release(&self, tag: u64) -> bool {
        panic!("nothing is given back here, and {tag} was");
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

impl port::Publisher for Publisher {
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        _properties: BasicProperties,
        _body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        panic!("nothing is copied here, and something was to {queue}");
    }

    fn publish_direct<'a>(
        &'a self,
        reply_to: &'a str,
        _properties: BasicProperties,
        _body: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        panic!("nobody asks for a reply here, and {reply_to} got one");
    }
}
