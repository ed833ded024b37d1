//! One queue with its worker and its sidecar, each a process of its own that can be killed.

use crate::fate::Mix;
use crate::letters::{Letter, take_all};
use crate::oracle::Findings;
use crate::programs;
use crate::publishing::{Pace, publish};
use crate::wire::Wire;
use crate::worker_log::WorkerLog;
use amqp::topology::{QueuePlan, declare_queue};
use contract::settings::default_prefetch;
use rustix::process::Signal;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use testkit::process::Process;
use testkit::{Amqp, Broker, table, text, unique};
use tokio::time::{Instant, sleep};

/// Retries wait for one of these: back-off is between the first and the last, and a lane makes their queues.
const DELAYS: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
];

/// A run in which nothing moves for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(90);
/// RabbitMQ hands on what expired in a retry queue and waits so long for the work queue to confirm it before it does so
/// again: a queue that was not there yet after a restart does not (`dead_letter_worker_publisher_confirm_timeout`).
const DEAD_LETTERED_AGAIN_AFTER: Duration = Duration::from_mins(3);
/// Between looks at what cannot be waited for.
const LOOK: Duration = Duration::from_millis(10);

/// How long a worker that died is away: long enough to be noticed, as it is wherever something else restarts it.
const WORKER_AWAY: Duration = Duration::from_millis(150);

/// Both types of durable queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    /// As applications declare it: durable, nothing else.
    Classic,
    /// As the product makes it.
    Quorum,
}

impl QueueType {
    /// A seed of its own, so that two lanes of a run are not the same.
    pub fn seed(self, of_the_run: u64) -> u64 {
        match self {
            Self::Classic => of_the_run,
            Self::Quorum => of_the_run.wrapping_add(1),
        }
    }

    /// RabbitMQ's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// How a lane is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The type of its queue; dead letters and retries are in quorum queues always.
    pub queue_type: QueueType,
    /// What the worker plays.
    pub mix: Mix,
    /// From which all draws come.
    pub seed: u64,
    /// The sidecar's concurrency.
    pub concurrency: u16,
    /// The worker's time for one message, in seconds.
    pub timeout_seconds: u32,
    /// Attempts, the first one included.
    pub max_attempts: u32,
}

impl Setup {
    /// What the broker may have handed over at once: concurrency and the spare.
    pub fn prefetch(&self) -> usize {
        default_prefetch(self.concurrency).into()
    }
}

/// A queue, its worker and its sidecar.
#[derive(Debug)]
pub struct Lane {
    /// How it was set up.
    pub setup: Setup,
    /// The queue's name.
    pub queue: String,
    /// What the worker writes down.
    pub log: PathBuf,
    /// What is between the sidecar and the broker, if anything.
    pub wire: Option<Wire>,
    broker_url: String,
    worker_port: u16,
    worker: Option<Process>,
    sidecar: Option<Process>,
}

impl Lane {
    /// Makes the queues, on a broker that must be ours. Nothing runs yet.
    pub async fn new(broker: &Broker, setup: Setup) -> Self {
        let queue = unique(&format!("orders-{}", setup.queue_type.as_str()));
        let log = broker.dir().join(format!("{queue}.log"));
        File::create(&log).expect("the broker's directory can be written");
        make_queues(broker, &queue, setup.queue_type).await;
        Self {
            setup,
            queue,
            log,
            wire: None,
            broker_url: broker.url().to_owned(),
            worker_port: programs::lasting_port(),
            worker: None,
            sidecar: None,
        }
    }

    /// The same, with a wire between sidecar and broker.
    pub async fn on_a_wire(broker: &Broker, setup: Setup) -> Self {
        let mut lane = Self::new(broker, setup).await;
        let wire = Wire::start(broker.port()).await;
        lane.broker_url = wire.url(broker.url());
        lane.wire = Some(wire);
        lane
    }

    /// The dead-letter queue.
    pub fn dead_letter_queue(&self) -> String {
        format!("{}.dead", self.queue)
    }

    /// Starts the worker, unless it runs.
    pub fn start_worker(&mut self) {
        if self
            .worker
            .as_ref()
            .is_some_and(|worker| worker.ended().is_none())
        {
            return;
        }
        let mut command = programs::command("test-worker");
        command
            .env("PORT", self.worker_port.to_string())
            .env("WORKER_SEED", self.setup.seed.to_string())
            .env("WORKER_MIX", self.setup.mix.as_str())
            .env("WORKER_LOG", &self.log);
        self.worker = Some(Process::start(command));
    }

    /// Kills the worker and starts it again.
    pub async fn kill_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.signal(Signal::KILL);
            worker.wait().await;
        }
        self.start_worker();
    }

    /// Whether the worker's process has ended by itself.
    fn worker_ended(&self) -> bool {
        self.worker
            .as_ref()
            .is_some_and(|worker| worker.ended().is_some())
    }

    /// Starts the sidecar.
    pub fn start_sidecar(&mut self) {
        let mut command = programs::command("sidecar");
        command.args(["--queue", &self.queue, "--broker", &self.broker_url]);
        command.args(["--target", &format!("http://127.0.0.1:{}", self.worker_port)]);
        command.args(["--concurrency", &self.setup.concurrency.to_string()]);
        command.args(["--timeout", &format!("{}s", self.setup.timeout_seconds)]);
        command.args(["--max-attempts", &self.setup.max_attempts.to_string()]);
        command.args(["--retry-backoff", "100ms..500ms"]);
        command.args(["--admin", "127.0.0.1:0"]);
        self.sidecar = Some(Process::start(command));
    }

    /// The sidecar, which must have been started.
    pub fn sidecar(&self) -> &Process {
        self.sidecar.as_ref().expect("a sidecar was started")
    }

    /// Kills the sidecar. What it had open on the wire is closed, and nothing that was held back goes on.
    pub async fn kill_sidecar(&mut self) {
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.signal(Signal::KILL);
            sidecar.wait().await;
        }
        if let Some(wire) = &self.wire {
            wire.cut().await;
        }
    }

    /// Ends the sidecar as Kubernetes does, by SIGTERM.
    pub async fn end_sidecar(&mut self) -> ExitStatus {
        let sidecar = self.sidecar.take().expect("a sidecar was started");
        sidecar.signal(Signal::TERM);
        sidecar.wait().await
    }

    /// Stops intake and waits until nothing is in flight; takes messages again.
    ///
    /// Panics when the sidecar does not answer as documented.
    pub async fn drain_and_resume(&self) {
        let admin = self.until_sidecar_listens().await;
        for (path, status) in [("/drain?wait", 200), ("/resume", 200)] {
            let url = format!("http://{admin}{path}");
            let answer = testkit::http::post(&url, &[], "").await;
            let answer = answer.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
    }

    /// What the sidecar says of itself, as JSON; a sentence when it says nothing.
    pub async fn status(&self) -> String {
        let admin = self.until_sidecar_listens().await;
        match testkit::http::get(&format!("http://{admin}/status")).await {
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        }
    }

    /// Waits until the sidecar handles signals and its admin port is open, and gives that port's address.
    pub async fn until_sidecar_listens(&self) -> String {
        let line = self.sidecar().wait_for_line("admin port open").await;
        let address = line.split(' ').find_map(|word| word.strip_prefix("address="));
        address.expect("the line names the address").to_owned()
    }

    /// Publishes messages of these numbers at once, and returns when all are confirmed.
    pub async fn publish(&self, broker: &Broker, numbers: Range<usize>) {
        let (url, queue) = (broker.url().to_owned(), self.queue.clone());
        publish(url, queue, self.setup, numbers, Pace::AT_ONCE, Arc::default()).await;
    }

    /// What is in its queues but dead letters, deliveries that are not settled included: a line for each that holds any,
    /// with how many are ready and how many are with a consumer.
    pub async fn leftovers(&self, broker: &Broker) -> Vec<String> {
        let fields = ["name", "messages", "messages_ready", "messages_unacknowledged"];
        let list = [&["list_queues", "-q", "--no-table-headers"][..], &fields].concat();
        let listed = broker.ctl(&list).await.unwrap_or_else(|error| panic!("{error}"));
        let dead = self.dead_letter_queue();
        let holds = |line: &&str| {
            line.split_once('\t').is_some_and(|(name, counts)| {
                name.starts_with(&self.queue) && name != dead && !counts.starts_with("0\t")
            })
        };
        listed.lines().filter(holds).map(str::to_owned).collect()
    }

    /// Waits until all of the first `count` messages have ended, by the worker's log and the dead-letter queue, and
    /// nothing but dead letters is left.
    ///
    /// Panics when nothing moves for long, or the sidecar ends.
    pub async fn until_settled(&mut self, broker: &Broker, log: &mut WorkerLog, count: usize) {
        self.until_ended(broker, log, count).await;
        // Copies of messages that ended already may still be on their way through a retry queue. What the broker says of
        // a quorum queue is of a moment ago: it has to say so twice.
        let (mut empty, mut is_late, begun) = (0, false, Instant::now());
        while empty < 2 {
            let left = self.leftovers(broker).await;
            empty = if left.is_empty() { empty + 1 } else { 0 };
            if begun.elapsed() > STUCK_AFTER && !is_late {
                is_late = true;
                testkit::say(&format!(
                    "left after {STUCK_AFTER:?}: {left:#?}, {}",
                    self.status().await
                ));
            }
            assert!(
                begun.elapsed() < STUCK_AFTER + DEAD_LETTERED_AGAIN_AFTER,
                "still left: {left:#?}, {}",
                self.status().await
            );
        }
        if is_late {
            testkit::say(&format!("nothing is left after {:?}", begun.elapsed()));
        }
    }

    /// Waits until so many messages have ended; a worker that died is started again.
    ///
    /// Panics as [`until_settled`](Self::until_settled).
    pub async fn until_ended(&mut self, broker: &Broker, log: &mut WorkerLog, count: usize) {
        let dead = self.dead_letter_queue();
        let mut client: Option<Amqp> = None;
        let mut progress = (0, Instant::now());
        loop {
            if self.worker_ended() {
                sleep(WORKER_AWAY).await;
                self.start_worker();
            }
            log.read().expect("the worker's log can be read");
            // The broker closes our connection with the others.
            let amqp = match client.take().filter(Amqp::is_open) {
                Some(open) => open,
                None => broker.amqp().await,
            };
            let letters = amqp.depth(&dead).await.map_or(0, |(ready, _)| ready as usize);
            client = Some(amqp);
            let ended = log.accepted + letters;
            if ended >= count {
                return;
            }
            // A message that goes on failing moves, too.
            if log.total + letters > progress.0 {
                progress = (log.total + letters, Instant::now());
            }
            self.assert_running();
            assert!(
                progress.1.elapsed() < STUCK_AFTER,
                "stuck at {ended} of {count}; the sidecar says {:#?}",
                self.last_words()
            );
            sleep(LOOK).await;
        }
    }

    /// Takes its dead letters.
    pub async fn letters(&self, broker: &Broker) -> Vec<Letter> {
        let amqp = broker.amqp().await;
        take_all(&amqp, &self.dead_letter_queue(), self.setup.seed).await
    }

    /// Ends the sidecar, which has to drain, and judges what became of the first `published` messages.
    pub async fn findings(&mut self, broker: &Broker, log: &mut WorkerLog, published: usize) -> Findings {
        let status = self.end_sidecar().await;
        assert!(status.success(), "the sidecar did not drain: {status}");
        log.read().expect("the worker's log can be read");
        Findings::of(self.setup, published, log, &self.letters(broker).await)
    }

    /// Panics with the sidecar's output when it has ended by itself.
    pub fn assert_running(&self) {
        let sidecar = self.sidecar();
        assert!(
            sidecar.ended().is_none(),
            "the sidecar ended: {:#?}",
            self.last_words()
        );
    }

    /// The latest lines that the sidecar wrote.
    pub fn last_words(&self) -> Vec<String> {
        let lines = self.sidecar.as_ref().map(Process::lines).unwrap_or_default();
        lines[lines.len().saturating_sub(20)..].to_vec()
    }
}

/// All queues that the lane can ever use, so that none is young when the broker is killed: a node that dies right
/// after it made a quorum queue comes back with the queue empty.
async fn make_queues(broker: &Broker, queue: &str, queue_type: QueueType) {
    let address = broker.url().parse().expect("testkit gives an address");
    let connection = amqp::connect(&address, "lane").await.expect("the broker runs");
    let dead = format!("{queue}.dead");
    let mut plans: Vec<_> = DELAYS
        .into_iter()
        .map(|delay| QueuePlan::retry(queue, delay))
        .collect();
    plans.push(QueuePlan::dead_letter(&dead));
    match queue_type {
        QueueType::Classic => {
            let client = Amqp::connect(broker.url()).await;
            client
                .declare(queue, table([("x-queue-type", text("classic"))]))
                .await;
        }
        QueueType::Quorum => plans.push(QueuePlan::worker(queue, dead)),
    }
    for plan in &plans {
        declare_queue(&connection, plan)
            .await
            .expect("the queue can be made");
    }
    connection.close().await;
}

/// Has the broker write down which quorum queues it has, which it otherwise does with a delay.
pub async fn remember_queues(broker: &Broker) {
    let write = ["eval", "dets:sync(ra_directory_reverse)."];
    let said = broker.ctl(&write).await.expect("the broker runs");
    assert_eq!(said.trim(), "ok");
}
