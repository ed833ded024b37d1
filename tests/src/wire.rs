//! Stands between a sidecar and the broker: passes everything on frame by frame, keeps count of what matters, and can
//! stop at a given frame, so that a sidecar dies exactly there.
//!
//! What counts is what the broker has seen: a frame that was stopped never reaches it, whatever the sidecar believes.

mod frames;

use frames::{Direction, Frame, Frames, Method};
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Where everything is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before this many acknowledgements have passed (1-based): the worker has answered, the broker does not know.
    Acknowledgement(usize),
    /// After this many copies were published: the broker has confirmed the last of them, the sidecar does not know.
    Published(usize),
    /// After this many confirms: the sidecar knows that its copy is safe, and its acknowledgement is stopped.
    Confirmed(usize),
}

/// What passed so far, over all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that the sidecar opened.
    pub connections: usize,
    /// Messages that the broker handed over.
    pub deliveries: usize,
    /// The most deliveries of one channel that were not settled at a time.
    pub most_unsettled: usize,
    /// `basic.ack` of the sidecar; one may settle several deliveries.
    pub acknowledgements: usize,
    /// `basic.nack` and `basic.reject` of the sidecar.
    pub given_back: usize,
    /// Copies that the sidecar published.
    pub published: usize,
    /// `basic.ack` of the broker; one may confirm several copies.
    pub confirms: usize,
    /// Acknowledgements of deliveries that were not handed over on that channel, or were settled before.
    pub stray: usize,
    /// Channels and connections that the broker closed because of what the sidecar did.
    pub closed_by_broker: usize,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    trap: Option<Point>,
    /// The trap's first half was passed: what is to be stopped comes next.
    armed: bool,
    sprung: bool,
    confirms_held: bool,
    unsettled: HashMap<(usize, u16), BTreeSet<u64>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running wire; dropping it ends it.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    broker: u16,
    shared: Arc<Shared>,
    connections: Arc<tokio::sync::Mutex<JoinSet<()>>>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Relays a port of its own to `broker`, a port of this machine.
    pub async fn start(broker: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a loopback port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let connections = Arc::new(tokio::sync::Mutex::new(JoinSet::new()));
        let accepting = tokio::spawn(accept(
            listener,
            broker,
            Arc::clone(&shared),
            Arc::clone(&connections),
        ));
        Self {
            port,
            broker,
            shared,
            connections,
            accepting,
        }
    }

    /// The broker's address, by way of the wire.
    pub fn url(&self, broker: &str) -> String {
        broker.replace(&format!(":{}/", self.broker), &format!(":{}/", self.port))
    }

    /// What passed so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// How many deliveries were handed over on the connections that are open, and neither acknowledged nor given back.
    pub fn unsettled(&self) -> usize {
        self.shared.state().unsettled.values().map(BTreeSet::len).sum()
    }

    /// Stops everything at `point`, counted from now.
    pub fn stop_at(&self, point: Point) {
        let mut state = self.shared.state();
        state.trap = Some(point);
        state.armed = false;
    }

    /// Waits until the point is reached, at most so long; says whether it was.
    pub async fn stopped(&self, patience: Duration) -> bool {
        let mut changed = self.shared.changed.subscribe();
        let sprung = async {
            while !self.shared.state().sprung {
                // The sender lives as long as we do.
                let _changed = changed.changed().await;
            }
        };
        tokio::time::timeout(patience, sprung).await.is_ok()
    }

    /// Keeps confirms from the sidecar from now on, or lets those through that it kept and all that follow.
    pub fn hold_confirms(&self, hold: bool) {
        self.shared.state().confirms_held = hold;
        self.shared.changed.send_replace(());
    }

    /// Cuts every connection, and forgets the point.
    pub async fn cut(&self) {
        self.connections.lock().await.shutdown().await;
        let mut state = self.shared.state();
        state.trap = None;
        state.armed = false;
        state.sprung = false;
        state.unsettled.clear();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    broker: u16,
    shared: Arc<Shared>,
    connections: Arc<tokio::sync::Mutex<JoinSet<()>>>,
) {
    let mut number = 0;
    while let Ok((sidecar, _)) = listener.accept().await {
        let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).await else {
            continue;
        };
        let _set = (
            sidecar.set_nodelay(true).is_ok(),
            upstream.set_nodelay(true).is_ok(),
        );
        number += 1;
        shared.state().counts.connections += 1;
        let (from_sidecar, to_sidecar) = sidecar.into_split();
        let (from_broker, to_broker) = upstream.into_split();
        let end = |direction, from, to| End {
            connection: number,
            direction,
            from,
            to,
            shared: Arc::clone(&shared),
        };
        let (up, down) = (
            end(Direction::ToBroker, from_sidecar, to_broker),
            end(Direction::ToSidecar, from_broker, to_sidecar),
        );
        connections.lock().await.spawn(async move {
            // When one direction ends the other one is of no use: both sockets are closed.
            tokio::select! {
                () = up.run() => {}
                () = down.run() => {}
            }
        });
    }
}

/// One direction of one connection.
struct End {
    connection: usize,
    direction: Direction,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    shared: Arc<Shared>,
}

impl End {
    async fn run(mut self) {
        let mut frames = Frames::new(self.direction);
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = self.from.read(&mut buffer).await {
            frames.push(&buffer[..read]);
            let mut passing = frames.take_header();
            while let Some(frame) = frames.next() {
                if !self.lets_pass(&frame) {
                    // What came before it goes its way.
                    if self.to.write_all(&passing).await.is_err() {
                        return;
                    }
                    passing.clear();
                    self.released(&frame).await;
                }
                passing.extend_from_slice(&frame.bytes);
            }
            if self.to.write_all(&passing).await.is_err() {
                return;
            }
        }
    }

    /// Whether the frame may pass now; it is counted if so.
    fn lets_pass(&self, frame: &Frame) -> bool {
        let mut state = self.shared.state();
        let is_confirm = self.direction == Direction::ToSidecar && matches!(frame.method, Method::Ack { .. });
        if state.sprung || (is_confirm && state.confirms_held) {
            return false;
        }
        if state.stops(self.direction, frame) {
            state.sprung = true;
            drop(state);
            self.shared.changed.send_replace(());
            return false;
        }
        state.count(self.connection, self.direction, frame);
        true
    }

    /// Waits until a frame that was stopped may pass: never when the point was reached.
    async fn released(&self, frame: &Frame) {
        let mut changed = self.shared.changed.subscribe();
        while !self.lets_pass(frame) {
            // The sender lives as long as we do.
            let _changed = changed.changed().await;
        }
    }
}

impl State {
    /// Whether this frame is where everything is to stop.
    fn stops(&mut self, direction: Direction, frame: &Frame) -> bool {
        let is_ack = matches!(frame.method, Method::Ack { .. });
        let (acknowledges, confirms) = match direction {
            Direction::ToBroker => (is_ack, false),
            Direction::ToSidecar => (false, is_ack),
        };
        let publishes = direction == Direction::ToBroker && frame.method == Method::Publish;
        let counted = |left: &mut usize| {
            *left = left.saturating_sub(1);
            *left == 0
        };
        match &mut self.trap {
            None => false,
            Some(Point::Acknowledgement(left)) => acknowledges && counted(left),
            Some(Point::Published(_)) if self.armed => confirms,
            Some(Point::Published(left)) => {
                self.armed = publishes && counted(left);
                false
            }
            Some(Point::Confirmed(_)) if self.armed => acknowledges,
            Some(Point::Confirmed(left)) => {
                self.armed = confirms && counted(left);
                false
            }
        }
    }

    fn count(&mut self, connection: usize, direction: Direction, frame: &Frame) {
        let counts = &mut self.counts;
        let unsettled = self.unsettled.entry((connection, frame.channel)).or_default();
        match (direction, frame.method) {
            (Direction::ToSidecar, Method::Deliver { tag }) => {
                counts.deliveries += 1;
                unsettled.insert(tag);
                counts.most_unsettled = counts.most_unsettled.max(unsettled.len());
            }
            (Direction::ToSidecar, Method::Ack { .. }) => counts.confirms += 1,
            (Direction::ToSidecar, Method::CloseForCause) => counts.closed_by_broker += 1,
            (Direction::ToBroker, Method::Publish) => counts.published += 1,
            (Direction::ToBroker, Method::Ack { tag, multiple } | Method::GiveBack { tag, multiple }) => {
                if matches!(frame.method, Method::Ack { .. }) {
                    counts.acknowledgements += 1;
                } else {
                    counts.given_back += 1;
                }
                counts.stray += usize::from(!unsettled.remove(&tag));
                if multiple {
                    *unsettled = unsettled.split_off(&tag);
                }
            }
            _ => {}
        }
    }
}
