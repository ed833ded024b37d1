//! A bad network between a client and a broker: a TCP proxy that knows AMQP frames well enough to harm single ones.
//!
//! A [`Fault`] holds for every connection from the moment at which it is set until [`Toxic::heal`]. What a fault has
//! broken stays broken: a connection of which bytes were swallowed never works again.

mod frame;
mod link;

pub use frame::{method, text};

use crate::served::Served;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

/// What a connection is used for, as far as its frames have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Any connection.
    Any,
    /// One that has subscribed.
    Consuming,
    /// One that asked for publisher confirms.
    Publishing,
}

/// What is wrong with the network, or with the broker as the client sees it.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing.
    None,
    /// Everything comes later, both ways: by the first, and up to the second on top. Order is kept.
    Latency(Duration, Duration),
    /// One byte a write, both ways.
    OneByteWrites,
    /// Writes of random lengths that respect no frame, both ways.
    Resplit,
    /// So many bytes a second each way.
    Bandwidth(u32),
    /// The bytes of these ways vanish, and so does their end: the connection is half open.
    BlackHole(&'static [Way]),
    /// Nothing is read from these ways, so that they fill up; what waits is delivered after [`Toxic::heal`].
    Stall(&'static [Way]),
    /// Every connection is reset; new ones are fine.
    Reset,
    /// New connections are closed at once.
    Refuse,
    /// New connections are accepted, and nothing comes; they are closed by [`Toxic::heal`].
    Silent,
    /// Heartbeat frames of these ways vanish; everything else passes.
    NoHeartbeats(&'static [Way]),
    /// Frames down with this class and method vanish, with the content that follows.
    Swallow(u16, u16),
    /// Frames down with this class and method come later.
    Delay(u16, u16, Duration),
    /// The next frame down with this class and method is harmed, once a connection.
    Harm(u16, u16, Harm),
    /// Bytes that the broker never sent come down once, between two frames, on each connection with this role.
    Inject(Role, Inject),
    /// `connection.blocked` with this reason on each connection that publishes, of which nothing is read until
    /// [`Toxic::heal`] and `connection.unblocked`.
    Blocked(&'static str),
    /// Bytes pass one frame at a time with a pause before each while a connection is opened.
    SlowHandshake(Duration),
    /// Bytes pass in writes of this many with a pause before each, without a look at what they are: for TLS.
    SlowBytes(usize, Duration),
}

/// What is done to one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Half of it arrives, and then the end of the connection (FIN).
    EndInside,
    /// Its last byte, which must be 0xCE, is another.
    WrongEnd,
    /// Its type is none that there is.
    WrongType,
    /// It says that it is this long, and so many bytes follow.
    Length(u32),
}

/// What is put between two frames.
#[derive(Debug, Clone)]
pub enum Inject {
    /// `channel.close` with this code, on the channel that subscribed; the broker is told the same by the client's
    /// side, so that both forget the channel.
    ChannelClose(u16, &'static str),
    /// `connection.close` with this code.
    ConnectionClose(u16, &'static str),
    /// `basic.cancel` of the consumer.
    Cancel,
    /// These bytes of a method frame, on the channel that subscribed (`true`) or on channel 0.
    Method(bool, u16, u16, Bytes),
}

pub(crate) struct Shared {
    upstream: SocketAddr,
    /// Grows with every change, so that a fault that is set twice harms twice.
    fault: watch::Sender<(u64, Fault)>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    connections: Vec<Instant>,
    open: usize,
    harmed: usize,
    bytes: [u64; 2],
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy, on a thread of its own until it is dropped.
pub struct Toxic {
    shared: Arc<Shared>,
    served: Served,
}

impl Toxic {
    /// A proxy in front of a port of this machine; nothing is wrong yet. Whatever it draws follows from `seed`.
    pub fn before(port: u16, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from(([127, 0, 0, 1], port)),
            fault: watch::Sender::new((0, Fault::None)),
            record: Mutex::default(),
        });
        let in_thread = Arc::clone(&shared);
        let served = Served::start("toxic", move |listener| async move {
            // Draws are made on this thread only.
            fastrand::seed(seed);
            accept(&listener, &in_thread).await;
        });
        Self { shared, served }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.served.address().port()
    }

    /// From now on this is wrong.
    pub fn set(&self, fault: Fault) {
        self.shared
            .fault
            .send_modify(|(number, current)| (*number, *current) = (*number + 1, fault));
    }

    /// Nothing is wrong any more, but for what is broken already.
    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// When each connection was accepted, oldest first.
    pub fn connections(&self) -> Vec<Instant> {
        self.shared.record().connections.clone()
    }

    /// How many connections a fault has harmed so far: a frame, an injection, a reset, a black hole.
    pub fn harmed(&self) -> usize {
        self.shared.record().harmed
    }

    /// How many connections there are now.
    pub fn open(&self) -> usize {
        self.shared.record().open
    }

    /// Bytes that passed so far, up and down.
    pub fn bytes(&self) -> [u64; 2] {
        self.shared.record().bytes
    }
}

impl fmt::Debug for Toxic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toxic")
            .field("address", &self.served.address())
            .finish_non_exhaustive()
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _peer) = accepted.expect("the listener accepts");
                let mut record = shared.record();
                record.connections.push(Instant::now());
                record.open += 1;
                drop(record);
                let shared = Arc::clone(shared);
                links.spawn(async move {
                    // It ends by an error whenever one of the sides does.
                    let _ended = link::run(client, &shared).await;
                    shared.record().open -= 1;
                });
            }
            Some(_ended) = links.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests;
