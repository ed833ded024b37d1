//! Conservation: whatever is killed, every message that the broker confirmed ends in exactly one way.
//!
//! 100,000 messages of 0 B to 1 MiB, answers drawn from every row of the contract, while the sidecar is killed, its
//! connections are closed by the broker and the worker is killed, twenty times each. The seed is printed;
//! `KUBEDAEMON_SEED=…` replays a run, `KUBEDAEMON_MESSAGES=…` makes it smaller.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads its seed from the environment, and panics where it can only fail"
)]

use rustix::process::Signal;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use suite::fate::{Fate, body_bytes, hash, hash_bytes, row};
use suite::{programs, report};
use testkit::process::Process;
use testkit::{Amqp, Broker, unique};

const MESSAGES: usize = 100_000;
/// Of each kind of fault.
const FAULTS: usize = 20;
const CONCURRENCY: usize = 64;
/// Concurrency and its spare: what the broker may hand over at once.
const PREFETCH: usize = 96;
/// A run that settles nothing for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillSidecar,
    CloseConnections,
    KillWorker,
}

/// Everything that runs, and what it takes to start it again.
struct Scene {
    broker: Broker,
    amqp: Amqp,
    queue: String,
    seed: u64,
    worker_port: u16,
    log: PathBuf,
    worker: Option<Process>,
    sidecar: Option<Process>,
}

#[tokio::test]
async fn every_message_ends_in_exactly_one_way_whatever_is_killed() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let seed = number("KUBEDAEMON_SEED").unwrap_or_else(|| fastrand::u64(..));
    let messages = number("KUBEDAEMON_MESSAGES").map_or(MESSAGES, |count| usize::try_from(count).unwrap());
    report::line(&format!(
        "conservation: seed {seed}, replay with KUBEDAEMON_SEED={seed}"
    ));

    let mut scene = Scene::new(seed).await;
    let ids: Vec<String> = (0..messages).map(|number| format!("m{number:06}")).collect();
    scene.publish(&ids).await;
    scene.start_worker();
    scene.start_sidecar();

    let mut log = WorkerLog::open(&scene.log);
    let faults = shuffled_faults(seed);
    for (position, fault) in faults.iter().enumerate() {
        // Evenly over the run; the last ones hit its tail.
        let settled_before = messages * position / faults.len();
        scene.until_settled(&mut log, settled_before).await;
        scene.inflict(*fault).await;
    }
    scene.until_settled(&mut log, messages).await;
    scene.until_nothing_is_left().await;
    let status = scene.drain().await;
    assert!(status.success(), "the sidecar did not drain: {status}");
    log.read();
    Verdict::of(&scene, &ids, &log).await.check(messages);
}

fn shuffled_faults(seed: u64) -> Vec<Fault> {
    let kinds = [Fault::KillSidecar, Fault::CloseConnections, Fault::KillWorker];
    let mut faults: Vec<Fault> = kinds.into_iter().flat_map(|fault| [fault; FAULTS]).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut faults);
    faults
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let broker = Broker::start().await;
        let amqp = broker.amqp().await;
        let log = broker.dir().join("worker.log");
        File::create(&log).unwrap();
        Self {
            amqp,
            broker,
            queue: unique("orders"),
            seed,
            worker_port: programs::free_port(),
            log,
            worker: None,
            sidecar: None,
        }
    }

    async fn publish(&self, ids: &[String]) {
        self.amqp.declare_quorum(&self.queue).await;
        let mut random = fastrand::Rng::with_seed(self.seed);
        let messages = ids.iter().map(|id| {
            let mut body = vec![0; body_bytes(self.seed, id)];
            random.fill(&mut body);
            let checksum = testkit::text(&hash_bytes(self.seed, &body).to_string());
            let properties = lapin::BasicProperties::default()
                .with_message_id(id.as_str().into())
                .with_headers(testkit::table([("checksum", checksum)]));
            (body, properties)
        });
        self.amqp.publish_many(&self.queue, messages).await;
    }

    fn start_worker(&mut self) {
        let mut command = programs::command("test-worker");
        command.env("PORT", self.worker_port.to_string());
        command
            .env("WORKER_SEED", self.seed.to_string())
            .env("WORKER_LOG", &self.log);
        self.worker = Some(Process::start(command));
    }

    fn start_sidecar(&mut self) {
        let mut command: Command = programs::command("sidecar");
        command.args(["--queue", &self.queue, "--broker", self.broker.url()]);
        command.args(["--target", &format!("http://127.0.0.1:{}", self.worker_port)]);
        command.args([
            "--concurrency",
            &CONCURRENCY.to_string(),
            "--timeout",
            "2s",
            "--max-attempts",
            "5",
        ]);
        command.args(["--retry-backoff", "100ms..500ms", "--admin", "off"]);
        self.sidecar = Some(Process::start(command));
    }

    async fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::KillSidecar => {
                let sidecar = self.sidecar.take().expect("a sidecar runs");
                sidecar.signal(Signal::KILL);
                sidecar.wait().await;
                self.start_sidecar();
            }
            Fault::CloseConnections => self.broker.close_all_connections().await,
            Fault::KillWorker => {
                let worker = self.worker.take().expect("a worker runs");
                worker.signal(Signal::KILL);
                worker.wait().await;
                self.start_worker();
            }
        }
    }

    /// Waits until so many messages have ended, by the worker's log and the dead-letter queue.
    async fn until_settled(&mut self, log: &mut WorkerLog, count: usize) {
        let mut progress = (0, tokio::time::Instant::now());
        loop {
            log.read();
            let ended = log.accepted.len() + self.dead_letters().await;
            if ended >= count {
                return;
            }
            if ended > progress.0 {
                progress = (ended, tokio::time::Instant::now());
            }
            let sidecar = self.sidecar.as_ref().expect("a sidecar runs");
            assert!(
                sidecar.ended().is_none(),
                "the sidecar ended: {:?}",
                sidecar.lines()
            );
            assert!(
                progress.1.elapsed() < STUCK_AFTER,
                "stuck at {ended} of {count}; the sidecar says {:#?}",
                sidecar.lines().iter().rev().take(20).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn dead_letters(&mut self) -> usize {
        let dead = format!("{}.dead", self.queue);
        self.client()
            .await
            .depth(&dead)
            .await
            .map_or(0, |(ready, _)| ready as usize)
    }

    /// The broker closes our connection with the others.
    async fn client(&mut self) -> &Amqp {
        if !self.amqp.is_open() {
            self.amqp = self.broker.amqp().await;
        }
        &self.amqp
    }

    /// Copies of messages that ended already may still be on their way through a retry queue.
    async fn until_nothing_is_left(&mut self) {
        let dead = format!("{}.dead", self.queue);
        testkit::wait::until(
            "every queue but the dead-letter queue is empty",
            STUCK_AFTER,
            || async {
                let listed = self
                    .broker
                    .ctl(&["list_queues", "-q", "--no-table-headers", "name", "messages"])
                    .await
                    .unwrap();
                listed
                    .lines()
                    .filter_map(|line| line.split_once('\t'))
                    .all(|(name, messages)| messages == "0" || *name == dead)
            },
        )
        .await;
    }

    async fn drain(&mut self) -> std::process::ExitStatus {
        let sidecar = self.sidecar.take().expect("a sidecar runs");
        sidecar.signal(Signal::TERM);
        sidecar.wait().await
    }
}

/// What the worker wrote so far.
struct WorkerLog {
    reader: BufReader<File>,
    /// How often each id was answered with a yes.
    accepted: HashMap<String, usize>,
    corrupt: Vec<String>,
    calls: usize,
}

impl WorkerLog {
    fn open(path: &Path) -> Self {
        let reader = BufReader::new(File::open(path).unwrap());
        Self {
            reader,
            accepted: HashMap::new(),
            corrupt: Vec::new(),
            calls: 0,
        }
    }

    fn read(&mut self) {
        let mut line = String::new();
        while self.reader.read_line(&mut line).unwrap() > 0 {
            if !line.ends_with('\n') {
                // Half a line: the rest comes later.
                let back = i64::try_from(line.len()).unwrap();
                self.reader.seek(SeekFrom::Current(-back)).unwrap();
                return;
            }
            let mut words = line.split_whitespace();
            let (id, _attempt, word) = (words.next().unwrap(), words.next(), words.next().unwrap());
            self.calls += 1;
            match word {
                "200" | "204" => *self.accepted.entry(id.to_owned()).or_default() += 1,
                "corrupt" => self.corrupt.push(id.to_owned()),
                _ => {}
            }
            line.clear();
        }
    }
}

/// What became of everything.
struct Verdict {
    lost: Vec<String>,
    /// Ended in both ways without an explanation.
    contradictory: Vec<String>,
    /// Ended otherwise than the worker's answers say.
    unexpected: Vec<String>,
    corrupt: Vec<String>,
    accepted: usize,
    dead: usize,
    duplicates: usize,
    calls: usize,
    seed: u64,
}

impl Verdict {
    async fn of(scene: &Scene, ids: &[String], log: &WorkerLog) -> Self {
        let letters = scene
            .broker
            .amqp()
            .await
            .get_all(&format!("{}.dead", scene.queue))
            .await;
        let mut dead: HashMap<String, Vec<String>> = HashMap::new();
        for letter in &letters {
            let id = letter
                .properties
                .message_id()
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            dead.entry(id)
                .or_default()
                .push(letter.header_text("x-kubedaemon-reason").unwrap_or_default());
        }
        let mut verdict = Self {
            lost: Vec::new(),
            contradictory: Vec::new(),
            unexpected: Vec::new(),
            corrupt: log.corrupt.clone(),
            accepted: log.accepted.len(),
            dead: dead.len(),
            duplicates: log.accepted.values().map(|times| times - 1).sum::<usize>()
                + dead.values().map(|copies| copies.len() - 1).sum::<usize>(),
            calls: log.calls,
            seed: scene.seed,
        };
        for id in ids {
            let reasons = dead.get(id);
            // A worker that dies with a message in hand may take it along: that is its reason then.
            let is_crash =
                reasons.is_some_and(|reasons| reasons.iter().all(|reason| reason == "crashed_worker"));
            match (log.accepted.contains_key(id), reasons.is_some()) {
                (false, false) => verdict.lost.push(id.clone()),
                (true, true) if !is_crash => verdict.contradictory.push(id.clone()),
                (true, true) => {}
                (accepted, _) => {
                    let fate = if accepted {
                        Fate::Accepted
                    } else {
                        Fate::DeadLettered
                    };
                    if fate != row(scene.seed, id).fate() && !is_crash {
                        verdict.unexpected.push(id.clone());
                    }
                }
            }
        }
        verdict
    }

    fn check(&self, published: usize) {
        let bound = 3 * FAULTS * PREFETCH;
        report::line(&format!(
            "conservation: published={published} accepted={} dead={} lost={} duplicates={} (bound {bound}) calls={} faults={} seed={}",
            self.accepted,
            self.dead,
            self.lost.len(),
            self.duplicates,
            self.calls,
            3 * FAULTS,
            self.seed,
        ));
        let none: &[String] = &[];
        assert_eq!(self.lost, none, "lost");
        assert_eq!(self.corrupt, none, "bodies changed");
        assert_eq!(self.contradictory, none, "both accepted and dead-lettered");
        assert_eq!(self.unexpected, none, "ended otherwise than the worker said");
        assert!(
            self.duplicates <= bound,
            "{} duplicates are more than {bound}",
            self.duplicates
        );
    }
}

#[test]
fn rows_and_sizes_are_spread_as_meant() {
    let ids: Vec<String> = (0..10_000).map(|number| format!("m{number:06}")).collect();
    let dead = ids
        .iter()
        .filter(|id| row(7, id).fate() == Fate::DeadLettered)
        .count();
    assert!(
        (600..1000).contains(&dead),
        "{dead} of 10,000 are to be dead-lettered"
    );
    let sizes: Vec<usize> = ids.iter().map(|id| body_bytes(7, id)).collect();
    assert!(sizes.contains(&0) && sizes.contains(&(1024 * 1024)));
    assert_ne!(hash(1, "a"), hash(2, "a"));
}
