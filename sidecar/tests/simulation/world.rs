//! The simulated world: one lock, one random source, one clock, and connections that carry things late, in order, and
//! lose what is on its way when they are cut.

use crate::oracle::Oracle;
use crate::rabbit::Rabbit;
use crate::watched::Watched;
use amqp::Error;
use fastrand::Rng;
use lapin::message::Delivery;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub type Shared = Arc<Mutex<World>>;
type Op = Box<dyn FnOnce(&mut World) + Send>;

/// More than is ever on its way at once.
const PIPE: usize = 4096;
/// So much at one instant is a loop that time cannot end.
const MOST_AT_ONE_INSTANT: u32 = 20_000;

/// A mistake that the sidecar could make, made for it at its ports, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A copy counts as confirmed when it is written.
    AckBeforeConfirm,
    /// What is settled after its channel was lost is written on the next one, tag for tag.
    SettleAcrossGenerations,
    /// Every acknowledgement covers everything below it.
    AckIsAlwaysMultiple,
    /// Some acknowledgements are written twice.
    AckTwice,
    /// Some acknowledgements are counted and not written.
    AckForgotten,
    /// What is given back is not written.
    ReleaseForgotten,
}

/// What a client knows of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    Open,
    Blocked(String),
    Lost(String),
}

pub struct Conn {
    pub sidecar: usize,
    pub state: Arc<Watched<Known>>,
    /// Consumers' streams at the client, by channel.
    pub streams: BTreeMap<u64, mpsc::Sender<Result<Delivery, Error>>>,
    pub has_published: bool,
    /// Faults of this sidecar before the connection was opened.
    pub faults_before: u32,
    pub name: String,
    up: Option<Pipe>,
    down: Option<Pipe>,
}

struct Pipe {
    sender: mpsc::Sender<(Instant, Op)>,
    last: Instant,
    task: AbortHandle,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct World {
    me: Weak<Mutex<World>>,
    begun: Instant,
    pub rng: Rng,
    pub bug: Option<Bug>,
    pub rabbit: Rabbit,
    pub oracle: Oracle,
    pub connections: BTreeMap<u64, Conn>,
    /// Channels that their clients know to be closed by the broker.
    pub dead_channels: BTreeSet<u64>,
    pub is_broker_up: bool,
    pub alarm: Arc<Watched<bool>>,
    /// Whether the broker and the network misbehave.
    pub is_faulty: bool,
    /// The longest way, one way.
    pub latency: Duration,
    next_id: u64,
    lines: Option<Vec<String>>,
    instant: (Duration, u32),
}

pub fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().expect("nobody panics while holding the world")
}

impl World {
    pub fn new(seed: u64, latency: Duration, bug: Option<Bug>, is_traced: bool) -> Shared {
        Arc::new_cyclic(|me| {
            Mutex::new(Self {
                me: me.clone(),
                begun: Instant::now(),
                rng: Rng::with_seed(seed),
                bug,
                rabbit: Rabbit::default(),
                oracle: Oracle::default(),
                connections: BTreeMap::new(),
                dead_channels: BTreeSet::new(),
                is_broker_up: true,
                alarm: Watched::new(false),
                is_faulty: true,
                latency,
                next_id: 0,
                lines: is_traced.then(Vec::new),
                instant: (Duration::ZERO, 0),
            })
        })
    }

    /// Simulated time since the beginning.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// One line of the trace.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let at = self.begun.elapsed();
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {}", at.as_secs_f64(), what()));
        }
    }

    pub fn trace(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }

    /// Whether something happens that has this chance in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    pub fn draw(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.rng.u64(from * 1000..=to * 1000))
    }

    /// Does something later.
    pub fn later(&self, after: Duration, op: impl FnOnce(&mut World) + Send + 'static) {
        let me = self.me.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(world) = me.upgrade() {
                op(&mut lock(&world));
            }
        });
    }

    /// Counts something that the sidecar did.
    pub fn count_call(&mut self) {
        let at = self.begun.elapsed();
        self.oracle.call(at);
        if self.instant.0 == at {
            self.instant.1 += 1;
            assert!(
                self.instant.1 < MOST_AT_ONE_INSTANT,
                "a loop in which no time passes, at {at:?}"
            );
        } else {
            self.instant = (at, 0);
        }
    }

    pub fn open_connection(&mut self, sidecar: usize, name: &str) -> u64 {
        let id = self.id();
        self.say(|| format!("connection {id} is open: {name}"));
        let conn = Conn {
            sidecar,
            name: name.to_owned(),
            state: Watched::new(Known::Open),
            streams: BTreeMap::new(),
            has_published: false,
            faults_before: self.oracle.faults(sidecar),
            up: Some(self.pipe(id, true)),
            down: Some(self.pipe(id, false)),
        };
        self.connections.insert(id, conn);
        id
    }

    fn pipe(&self, connection: u64, is_up: bool) -> Pipe {
        let (sender, receiver) = mpsc::channel(PIPE);
        let task = tokio::spawn(carry(self.me.clone(), connection, is_up, receiver));
        Pipe {
            sender,
            last: Instant::now(),
            task: task.abort_handle(),
        }
    }

    /// Sends to the broker. `false` when the client knows that the connection is lost.
    pub fn up(&mut self, connection: u64, op: impl FnOnce(&mut World) + Send + 'static) -> bool {
        self.count_call();
        let latency = self.way();
        let conn = self.connections.get_mut(&connection).expect("it was opened");
        if matches!(conn.state.get(), Known::Lost(_)) {
            return false;
        }
        // Without a pipe the connection is cut, and nobody knows: it goes nowhere.
        if let Some(pipe) = &mut conn.up {
            pipe.send(latency, Box::new(op));
        }
        true
    }

    /// Sends to the client.
    pub fn down(&mut self, connection: u64, op: impl FnOnce(&mut World) + Send + 'static) {
        let latency = self.way();
        if let Some(conn) = self.connections.get_mut(&connection)
            && let Some(pipe) = &mut conn.down
        {
            pipe.send(latency, Box::new(op));
        }
    }

    fn way(&mut self) -> Duration {
        let most = u64::try_from(self.latency.as_micros()).unwrap();
        Duration::from_micros(self.rng.u64(0..=most))
    }

    /// The network between the two ends is gone, with all that was on its way; each end learns of it at its own time.
    pub fn cut(&mut self, connection: u64, broker_after: Duration, client_after: Duration, cause: &str) {
        let Some(conn) = self.connections.get_mut(&connection) else {
            return;
        };
        if conn.up.is_none() {
            return;
        }
        (conn.up, conn.down) = (None, None);
        let sidecar = conn.sidecar;
        self.oracle.fault(sidecar);
        self.say(|| {
            format!("connection {connection} is cut; the broker knows after {broker_after:?}, the client after {client_after:?}")
        });
        let cause = cause.to_owned();
        self.later(broker_after, move |world| {
            world.connection_gone(connection, "a fault");
        });
        self.later(client_after, move |world| world.client_lost(connection, &cause));
    }

    /// The client knows that the connection is gone.
    pub fn client_lost(&mut self, connection: u64, cause: &str) {
        if let Some(conn) = self.connections.get_mut(&connection) {
            (conn.up, conn.down) = (None, None);
            conn.streams.clear();
            conn.state.set(Known::Lost(cause.to_owned()));
            self.say(|| format!("connection {connection} is known to be lost: {cause}"));
        }
    }

    pub fn carrying(&self) -> Vec<u64> {
        let carrying = self.connections.iter().filter(|(_, conn)| conn.up.is_some());
        carrying.map(|(id, _)| *id).collect()
    }

    /// The broker has a memory alarm, or none any more: it does not read from connections that publish.
    pub fn set_alarm(&mut self, is_on: bool) {
        self.say(|| format!("alarm: {is_on}"));
        self.alarm.set(is_on);
        for id in self.carrying() {
            if self.connections[&id].has_published {
                self.tell_alarm(id);
            }
        }
    }

    pub fn tell_alarm(&mut self, connection: u64) {
        let known = if self.alarm.get() {
            Known::Blocked("low on memory".to_owned())
        } else {
            Known::Open
        };
        self.down(connection, move |world| {
            if let Some(conn) = world.connections.get(&connection)
                && !matches!(conn.state.get(), Known::Lost(_))
            {
                conn.state.set(known);
            }
        });
    }
}

impl Pipe {
    /// Nothing overtakes.
    fn send(&mut self, latency: Duration, op: Op) {
        self.last = self.last.max(Instant::now() + latency);
        // Closed when the simulation is over.
        let sent = self.sender.try_send((self.last, op));
        assert!(
            !matches!(sent, Err(mpsc::error::TrySendError::Full(_))),
            "more is on its way than a pipe holds"
        );
    }
}

async fn carry(
    world: Weak<Mutex<World>>,
    connection: u64,
    is_up: bool,
    mut ops: mpsc::Receiver<(Instant, Op)>,
) {
    while let Some((at, op)) = ops.recv().await {
        tokio::time::sleep_until(at).await;
        let alarm = {
            let Some(world) = world.upgrade() else { return };
            let world = lock(&world);
            let publishes = world
                .connections
                .get(&connection)
                .is_some_and(|conn| conn.has_published);
            (is_up && publishes).then(|| Arc::clone(&world.alarm))
        };
        if let Some(alarm) = alarm {
            alarm.until(|is_on| !is_on).await;
        }
        let Some(world) = world.upgrade() else { return };
        op(&mut lock(&world));
    }
}
