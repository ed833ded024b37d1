//! One simulation: what is drawn from its seed, what happens in it, how it ends.

use crate::oracle::{Oracle, Totals};
use crate::ports::Broker;
use crate::worker::{Loopback, Script, Worker};
use crate::world::{Bug, Shared, World, lock};
use amqp::topology::QueuePlan;
use fastrand::Rng;
use lapin::BasicProperties;
use ops::shutdown::Shutdown;
use sidecar::domain::retry;
use sidecar::{App, Config, Drained, Handle, Ports};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

pub const QUEUE: &str = "orders";
pub const DEAD_LETTER: &str = "orders.dead";
/// What is left when the faults are over takes minutes; this is for those who wait for ever.
const PATIENCE: Duration = Duration::from_hours(2);
/// A broker learns of a client that is gone, at the latest.
const AFTERWARDS: Duration = Duration::from_mins(1);

/// How a simulation ended.
#[derive(Debug)]
pub struct Report {
    pub wrongs: Vec<String>,
    pub trace: Vec<String>,
    pub totals: Totals,
    /// Simulated.
    pub took: Duration,
}

#[derive(Debug, Clone)]
pub struct Plan {
    sidecars: usize,
    pub scripts: Vec<Script>,
    latency: Duration,
    /// How long things go wrong.
    trouble: Duration,
    /// The longest pause between two faults; `None` for a quiet life.
    faults: Option<Duration>,
    ending: Ending,
    is_queue_there: bool,
    pub config: Config,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Faults end, everything is handled, then all drain.
    Calm,
    /// A drain in the midst of it.
    Drain,
    /// A drain, and soon after the force.
    Force,
}

fn milliseconds(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..=to))
}

pub fn plan(rng: &mut Rng) -> Plan {
    let min = milliseconds(rng, 50, 1000);
    let timeout = milliseconds(rng, 500, 8000);
    let is_quiet = rng.u8(..) < 40;
    let config = Config {
        report_only: false,
        broker: "amqp://simulated".parse().unwrap(),
        queue: QUEUE.to_owned(),
        dead_letter: DEAD_LETTER.to_owned(),
        worker: sidecar::Worker {
            host: "simulated".to_owned(),
            port: 8080,
        },
        path: "/message".parse().unwrap(),
        concurrency: if rng.u8(..) < 40 { 1 } else { rng.u16(2..=24) },
        prefetch: None,
        timeout,
        max_attempts: rng.u32(1..=4),
        retry: retry::Policy {
            min,
            max: min * rng.u32(1..=8),
        },
        grace: timeout + Duration::from_secs(5),
        admin: None,
        remote: None,
        name: "simulated".to_owned(),
        response_queue: None,
        max_body_bytes: 1024,
        reply_max_bytes: 1024,
        max_defer: Duration::from_mins(1),
        // A real port, which simulated workers do not call.
        callback_port: false,
        remember_completed: if rng.bool() { 100 } else { 0 },
        init_path: None,
    };
    let messages = if rng.u8(..) < 200 {
        rng.usize(1..=20)
    } else {
        rng.usize(20..=60)
    };
    // From all is well to hardly anything is.
    let odd = rng.u8(0..60);
    Plan {
        sidecars: rng.usize(1..=2),
        scripts: (0..messages)
            .map(|_| {
                if rng.u8(0..100) < odd {
                    script(rng)
                } else {
                    Script::Good
                }
            })
            .collect(),
        latency: Duration::from_micros(rng.choice([0, 300, 3000, 40_000]).unwrap()),
        trouble: milliseconds(rng, 100, 30_000),
        faults: (!is_quiet).then(|| milliseconds(rng, 50, 10_000)),
        ending: *[
            Ending::Calm,
            Ending::Calm,
            Ending::Calm,
            Ending::Drain,
            Ending::Force,
        ]
        .get(rng.usize(0..5))
        .unwrap(),
        is_queue_there: rng.bool(),
        config,
    }
}

fn script(rng: &mut Rng) -> Script {
    let times = if rng.u8(..) < 40 { u32::MAX } else { rng.u32(1..=4) };
    match rng.u8(0..13) {
        0..=2 => {
            let statuses = [300, 301, 400, 404, 408, 409, 422, 425, 429, 500, 502, 503, 504];
            Script::Status(rng.choice(statuses).unwrap(), times)
        }
        3 => Script::Throttle(rng.u32(1..=3)),
        4 => Script::Explicit(
            rng.choice(["ack", "retry", "reject", "bananas"]).unwrap(),
            rng.choice([200, 404, 500]).unwrap(),
        ),
        5 => Script::Defer,
        6 => Script::Hang(times),
        7 | 8 => Script::Break(times, rng.bool()),
        9 => Script::Garbage(times),
        10 | 11 => Script::Kill(times),
        _ => Script::Good,
    }
}

/// Runs the simulation of a seed.
pub fn run(seed: u64, bug: Option<Bug>, is_traced: bool) -> Report {
    // What the sidecar draws itself.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(simulate(seed, bug, is_traced))
}

/// A sidecar process.
pub struct Process {
    number: usize,
    pub worker: Arc<Worker>,
    pub handle: Handle,
    pub shutdown: Shutdown,
    pub task: JoinHandle<Drained>,
}

pub async fn start(world: &Shared, plan: &Plan, number: usize, worker: Arc<Worker>) -> Process {
    let broker = Broker {
        world: Arc::clone(world),
        sidecar: number,
    };
    let ports = Ports {
        broker: Arc::new(broker),
        network: Arc::new(Loopback(Arc::clone(&worker))),
    };
    let bound = App::bind_in(plan.config.clone(), ports).await.unwrap();
    let (handle, shutdown) = (bound.handle(), Shutdown::new());
    lock(world).say(|| format!("sidecar {number} starts"));
    Process {
        number,
        worker,
        handle,
        task: tokio::spawn(bound.run(shutdown.clone())),
        shutdown,
    }
}

impl Process {
    /// Waits for its end, and has it counted.
    async fn ended(self, world: &Shared) -> Drained {
        let drained = self.task.await.expect("the sidecar does not panic");
        // Closed connections are closed at the broker, too.
        tokio::time::sleep(AFTERWARDS).await;
        let status = self.handle.status();
        let mut world = lock(world);
        if matches!(drained, Drained::Forced { .. }) {
            world.oracle.forced(self.number);
        }
        let number = self.number;
        world.say(|| format!("sidecar {number} has ended: {drained:?}, {:?}", status.counts));
        world.oracle.ended(number, status.counts, status.in_flight);
        drained
    }

    /// As SIGTERM. What takes longer than the grace period is forced.
    fn drain(&self, world: &Shared, plan: &Plan) {
        self.shutdown.drain();
        let (number, task) = (self.number, self.task.abort_handle());
        let nearly = plan.config.grace.saturating_sub(Duration::from_millis(1));
        lock(world).later(nearly, move |world| {
            if !task.is_finished() {
                world.oracle.forced(number);
            }
        });
    }

    async fn force(self, world: &Shared) {
        lock(world).oracle.forced(self.number);
        self.shutdown.force();
        self.ended(world).await;
    }
}

async fn simulate(seed: u64, bug: Option<Bug>, is_traced: bool) -> Report {
    let mut rng = Rng::with_seed(seed);
    let plan = plan(&mut rng);
    let world = World::new(rng.fork().u64(..), plan.latency, bug, is_traced);
    {
        let mut world = lock(&world);
        world.say(|| format!("{plan:?}"));
        world.is_faulty = plan.faults.is_some();
        world.oracle = Oracle::of(&plan.config);
        if plan.is_queue_there {
            world.declare(&QueuePlan::worker(QUEUE, DEAD_LETTER));
        }
    }
    let mut processes = Vec::new();
    for number in 0..plan.sidecars {
        let listens = rng.bool();
        let worker = Worker::new(
            Arc::clone(&world),
            plan.scripts.clone(),
            plan.config.timeout,
            listens,
        );
        if !listens {
            let (worker, after) = (Arc::clone(&worker), milliseconds(&mut rng, 1, 3000));
            lock(&world).later(after, move |_| worker.listen());
        }
        processes.push(start(&world, &plan, number, worker).await);
    }
    let publishing = tokio::spawn(publish(Arc::clone(&world), plan.clone(), rng.fork()));
    let leaving = trouble(&world, &plan, &mut rng, &mut processes).await;
    let is_calm = plan.ending == Ending::Calm;
    if is_calm {
        calm(&world, &processes);
        let is_done = async {
            loop {
                let is_idle = processes
                    .iter()
                    .all(|process| process.handle.status().in_flight == 0);
                if publishing.is_finished() && is_idle && lock(&world).remaining(DEAD_LETTER).is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, is_done).await.is_err() {
            lock(&world)
                .oracle
                .wrong(format!("not everything is handled within {PATIENCE:?}"));
        }
    } else {
        publishing.abort();
    }
    end(&world, &plan, &mut rng, processes, leaving).await;
    let mut world = lock(&world);
    let remaining = world.remaining(DEAD_LETTER);
    world.oracle.conclude(&remaining, !is_calm);
    if !world.rabbit.channels.is_empty() {
        world.oracle.wrong("a channel is open after the end".to_owned());
    }
    let took = world.now();
    world.say(|| "the end".to_owned());
    Report {
        wrongs: world.oracle.wrongs().to_vec(),
        trace: world.trace(),
        totals: world.oracle.totals,
        took,
    }
}

async fn end(world: &Shared, plan: &Plan, rng: &mut Rng, processes: Vec<Process>, leaving: Vec<Process>) {
    for process in leaving {
        process.ended(world).await;
    }
    for process in processes {
        process.drain(world, plan);
        if plan.ending == Ending::Force {
            tokio::time::sleep(milliseconds(rng, 0, 2000)).await;
            process.force(world).await;
            continue;
        }
        let drained = process.ended(world).await;
        // With a broker that is there, and workers that answer in their time, a drain ends by itself.
        if plan.faults.is_none() && drained != Drained::Completely {
            lock(world)
                .oracle
                .wrong(format!("a drain without faults ends with {drained:?}"));
        }
    }
}

/// Publishes all messages, each until it is confirmed.
async fn publish(world: Shared, plan: Plan, mut rng: Rng) {
    let gap = rng.u64(0..400);
    for _ in 0..plan.scripts.len() {
        if rng.u8(..) < 200 {
            tokio::time::sleep(milliseconds(&mut rng, 0, gap)).await;
        }
        let number = lock(&world).oracle.message();
        loop {
            {
                let mut world = lock(&world);
                let properties = BasicProperties::default().with_delivery_mode(2);
                let properties = if rng.bool() {
                    properties.with_message_id(format!("message-{number}").into())
                } else {
                    properties
                };
                let is_there = world.is_broker_up && !world.alarm.get();
                if is_there && world.store(QUEUE, properties, number.to_string().into_bytes()) {
                    world.oracle.published(number);
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Lets things go wrong for a while.
/// Returns the processes that were replaced and may not have ended.
async fn trouble(world: &Shared, plan: &Plan, rng: &mut Rng, processes: &mut [Process]) -> Vec<Process> {
    let begun = tokio::time::Instant::now();
    let Some(longest) = plan.faults else {
        tokio::time::sleep(plan.trouble).await;
        return Vec::new();
    };
    let (mut next_number, mut leaving) = (processes.len(), Vec::new());
    while begun.elapsed() < plan.trouble {
        let pause = rng.u64(0..=u64::try_from(longest.as_millis()).unwrap());
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let at = rng.usize(0..processes.len());
        if rng.u8(0..20) == 0 {
            let worker = Arc::clone(&processes[at].worker);
            let fresh = start(world, plan, next_number, worker).await;
            next_number += 1;
            let old = std::mem::replace(&mut processes[at], fresh);
            // A pod is replaced: by its end or by a drain, which takes its time beside the new one.
            if rng.bool() {
                lock(world).oracle.forced(old.number);
                old.shutdown.force();
            } else {
                old.drain(world, plan);
            }
            leaving.push(old);
        } else {
            one_fault(world, rng, &processes[at]);
        }
    }
    leaving
}

/// How long until an end of a cut connection knows: at once, soon, or by its heartbeat.
fn notice(rng: &mut Rng) -> Duration {
    match rng.u8(0..10) {
        0..=4 => Duration::ZERO,
        5..=7 => milliseconds(rng, 0, 200),
        _ => milliseconds(rng, 0, 20_000),
    }
}

fn one_fault(shared: &Shared, rng: &mut Rng, process: &Process) {
    let mut world = lock(shared);
    let world = &mut *world;
    let connections = world.carrying();
    let channels: Vec<u64> = world.rabbit.channels.keys().copied().collect();
    match rng.u8(0..20) {
        0..=4 => {
            if let Some(connection) = rng.choice(connections) {
                world.cut(connection, notice(rng), notice(rng), "the network is gone");
            }
        }
        5 => {
            for connection in connections {
                world.cut(connection, notice(rng), notice(rng), "the network is gone");
            }
        }
        6 | 7 => restart_broker(world, rng),
        8 | 9 => {
            if let Some(channel) = rng.choice(channels) {
                world.cancel_by_broker(channel);
            }
        }
        10 | 11 => {
            if let Some(channel) = rng.choice(channels) {
                world.close_by_broker(
                    channel,
                    "PRECONDITION_FAILED - delivery acknowledgement timed out",
                );
            }
        }
        12 => {
            world.set_alarm(true);
            world.later(milliseconds(rng, 1, 50_000), |world| world.set_alarm(false));
        }
        13 | 14 => process.worker.die(world, milliseconds(rng, 1, 5000)),
        15 => process.worker.break_connections(world),
        16 | 17 => {
            world.say(|| "intake is stopped".to_owned());
            process.handle.drain();
            let handle = process.handle.clone();
            world.later(milliseconds(rng, 0, 4000), move |world| {
                world.say(|| "intake is resumed".to_owned());
                handle.resume();
            });
        }
        _ => {
            let names: Vec<String> = world.rabbit.queues.keys().cloned().collect();
            if let Some(name) = rng.choice(names) {
                world.delete_if_empty(&name);
            }
        }
    }
}

fn restart_broker(world: &mut World, rng: &mut Rng) {
    world.say(|| "the broker goes down".to_owned());
    for connection in world.carrying() {
        world.cut(
            connection,
            Duration::ZERO,
            notice(rng),
            "CONNECTION_FORCED - shutdown",
        );
    }
    world.is_broker_up = false;
    world.later(milliseconds(rng, 100, 15_000), |world| {
        world.say(|| "the broker is up".to_owned());
        world.is_broker_up = true;
        world.expire_all();
    });
}

/// From now on nothing goes wrong but what messages do.
fn calm(world: &Shared, processes: &[Process]) {
    let mut world = lock(world);
    world.say(|| "calm".to_owned());
    world.is_faulty = false;
    world.is_broker_up = true;
    world.set_alarm(false);
    world.expire_all();
    for process in processes {
        process.handle.resume();
        process.worker.listen();
    }
}
