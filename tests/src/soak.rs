//! The soak: one lane for each type of queue, published to at an even pace, while faults befall lanes and broker; the
//! sidecars' memory is watched.

mod options;
mod report;

use crate::fate::Mix;
use crate::faults::{Fault, shuffled};
use crate::lane::{Lane, QueueType, Setup, remember_queues};
use crate::memory::Samples;
use crate::oracle::Findings;
use crate::publishing::{Pace, Progress, publish};
use crate::worker_log::WorkerLog;
pub use options::Options;
pub use report::Report;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use testkit::{Broker, say};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// What is done in 90 s; in half an hour the broker is killed or restarted 40 times.
const ROUND: [(Fault, usize); 8] = [
    (Fault::KillSidecar, 4),
    (Fault::PauseSidecar, 1),
    (Fault::EndSidecar, 1),
    (Fault::DrainAndResume, 2),
    (Fault::KillWorker, 2),
    (Fault::CloseConnections, 1),
    (Fault::RestartBroker, 1),
    (Fault::KillBroker, 1),
];
const ROUND_SECONDS: u64 = 90;
/// Published and not settled, of one lane, at most.
const BACKLOG: usize = 10_000;
/// How often logs are read and memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a line is said.
const SAY: u32 = 15;
/// A run that settles nothing for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_mins(2);

/// A lane and what is known of it.
#[derive(Debug)]
struct Watched {
    lane: Lane,
    log: WorkerLog,
    messages: usize,
    progress: Arc<Progress>,
    publisher: JoinHandle<()>,
    /// Of the sidecar that runs.
    memory: Samples,
    /// Of the one before that lived longest.
    longest: Samples,
    /// POSTs when the sidecar that runs was started.
    seen_at_start: usize,
    /// POSTs at the latest two looks, the older one first.
    seen: [usize; 2],
    duplicates_bound: usize,
}

/// A running soak.
#[derive(Debug)]
pub struct Soak {
    options: Options,
    broker: Broker,
    lanes: Vec<Watched>,
    inflicted: BTreeMap<Fault, usize>,
    begun: Instant,
}

impl Soak {
    /// Starts a broker, and workers, sidecars and publishers.
    pub async fn start(options: Options) -> Self {
        say(&format!("soak: seed {}, {options:?}", options.seed));
        let broker = Broker::start().await;
        let share = options.messages.div_ceil(options.queue_types.len());
        let mut lanes = Vec::new();
        for queue_type in &options.queue_types {
            lanes.push(Self::lane(&broker, *queue_type, &options).await);
        }
        remember_queues(&broker).await;
        let lanes = lanes
            .into_iter()
            .map(|lane| watched(&broker, lane, share, options.duration))
            .collect();
        Self {
            options,
            broker,
            lanes,
            inflicted: BTreeMap::new(),
            begun: Instant::now(),
        }
    }

    async fn lane(broker: &Broker, queue_type: QueueType, options: &Options) -> Lane {
        let setup = Setup {
            queue_type,
            mix: Mix::Everything,
            seed: queue_type.seed(options.seed),
            concurrency: 64,
            timeout_seconds: 5,
            max_attempts: 5,
        };
        let mut lane = Lane::new(broker, setup).await;
        lane.start_worker();
        lane.start_sidecar();
        lane
    }

    /// Sees it through.
    pub async fn run(mut self) -> Report {
        let rounds = if self.options.faults {
            (self.options.duration.as_secs() / ROUND_SECONDS).max(1)
        } else {
            0
        };
        let times = usize::try_from(rounds).unwrap_or(1);
        let faults = shuffled(
            self.options.seed,
            &ROUND.map(|(fault, each)| (fault, each * times)),
        );
        let every = self.options.duration / u32::try_from(faults.len()).unwrap_or(u32::MAX).max(1);
        let mut random = fastrand::Rng::with_seed(self.options.seed);
        let mut looks = 0;
        for (number, fault) in (0..).zip(&faults) {
            let due = self.begun + every * number + every / 2;
            while Instant::now() < due {
                self.look(&mut looks).await;
            }
            let first_half = number as usize * 2 < faults.len();
            self.inflict(*fault, first_half, &mut random).await;
        }
        self.until_settled(&mut looks).await;
        self.judge().await
    }

    async fn look(&mut self, looks: &mut u32) {
        sleep(LOOK).await;
        *looks += 1;
        for watched in &mut self.lanes {
            watched.look();
        }
        if looks.is_multiple_of(SAY) {
            say(&self.line());
        }
    }

    fn line(&self) -> String {
        let sum = |of: fn(&Watched) -> usize| self.lanes.iter().map(of).sum::<usize>();
        format!(
            "soak: {} s, {} confirmed, {} accepted, {} faults, memory {:?} KiB",
            self.begun.elapsed().as_secs(),
            sum(|watched| watched.progress.confirmed.load(Relaxed)),
            sum(|watched| watched.log.accepted),
            self.inflicted.values().sum::<usize>(),
            self.lanes
                .iter()
                .map(|watched| watched.lane.sidecar().memory_kib("VmRSS").unwrap_or(0))
                .collect::<Vec<_>>(),
        )
    }

    /// One of two sidecars lives for half of the time, so that its memory can be watched; processes that end take the
    /// other one.
    async fn inflict(&mut self, fault: Fault, first_half: bool, random: &mut fastrand::Rng) {
        *self.inflicted.entry(fault).or_default() += 1;
        if fault.is_of_the_broker() {
            for watched in &mut self.lanes {
                watched.duplicates_bound += fault.duplicates(&watched.lane);
                if fault.forgets_acknowledgements(watched.lane.setup.queue_type) {
                    watched.duplicates_bound += watched.lately();
                }
            }
            fault.inflict_on_broker(&self.broker).await;
            return;
        }
        let count = self.lanes.len();
        let chosen = if fault.ends_the_sidecar() && count > 1 {
            usize::from(first_half)
        } else {
            random.usize(..count)
        };
        let watched = &mut self.lanes[chosen];
        watched.duplicates_bound += fault.duplicates(&watched.lane);
        fault.inflict(&mut watched.lane).await;
        if fault.ends_the_sidecar() {
            watched.another_sidecar();
        }
    }

    /// Waits until everything is confirmed and no queue but those of dead letters has anything.
    async fn until_settled(&mut self, looks: &mut u32) {
        let mut progress = (0, Instant::now());
        let mut empty = 0;
        while empty < 3 {
            self.look(looks).await;
            let done = self.lanes.iter().map(|watched| watched.log.total).sum();
            if done > progress.0 {
                progress = (done, Instant::now());
            }
            assert!(
                progress.1.elapsed() < STUCK_AFTER,
                "stuck: {}; the sidecars say {:#?}",
                self.line(),
                self.lanes
                    .iter()
                    .map(|watched| watched.lane.last_words())
                    .collect::<Vec<_>>()
            );
            let published = self.lanes.iter().all(|watched| watched.publisher.is_finished());
            let is_empty = published && self.nothing_is_left().await;
            empty = if is_empty { empty + 1 } else { 0 };
        }
    }

    async fn nothing_is_left(&self) -> bool {
        for watched in &self.lanes {
            if !watched.lane.leftovers(&self.broker).await.is_empty() {
                return false;
            }
        }
        true
    }

    async fn judge(mut self) -> Report {
        let (major, minor, patch) = self.broker.version();
        let mut report = Report {
            broker: format!("RabbitMQ {major}.{minor}.{patch}"),
            seed: self.options.seed,
            took: self.begun.elapsed(),
            faults: self.inflicted,
            lanes: Vec::new(),
        };
        for watched in &mut self.lanes {
            let status = watched.lane.end_sidecar().await;
            assert!(status.success(), "the sidecar did not drain: {status}");
            watched.log.read().expect("the worker's log can be read");
            watched.another_sidecar();
            let setup = watched.lane.setup;
            let letters = watched.lane.letters(&self.broker).await;
            let sent_again = watched.progress.sent_again.load(Relaxed);
            report.lanes.push(report::Row {
                queue_type: setup.queue_type,
                findings: Findings::of(setup, watched.messages, &watched.log, &letters),
                sent_again,
                duplicates_bound: watched.duplicates_bound + sent_again,
                memory: watched.longest.slope(watched.messages / 20),
            });
        }
        report
    }
}

impl Watched {
    fn another_sidecar(&mut self) {
        let ended = std::mem::take(&mut self.memory);
        if ended.span() > self.longest.span() {
            self.longest = ended;
        }
        self.seen_at_start = self.log.total;
    }

    /// POSTs of the last two seconds or so. Messages are published all the time, and with each confirm the broker
    /// writes down what was acknowledged before: it has not forgotten more than this.
    fn lately(&mut self) -> usize {
        self.log.read().expect("the worker's log can be read");
        self.log.total - self.seen[0]
    }

    fn look(&mut self) {
        self.lane.assert_running();
        self.log.read().expect("the worker's log can be read");
        self.seen = [self.seen[1], self.log.total];
        // Of a hundred messages, eight are dead-lettered.
        let settled = self.log.accepted * 100 / 92;
        self.progress.settled.store(settled, Relaxed);
        if let Some(kib) = self.lane.sidecar().memory_kib("VmRSS") {
            self.memory.add(self.log.total - self.seen_at_start, kib);
        }
    }
}

fn watched(broker: &Broker, lane: Lane, messages: usize, over: Duration) -> Watched {
    let progress = Arc::new(Progress::default());
    let pace = Pace {
        over,
        backlog: BACKLOG,
    };
    Watched {
        publisher: tokio::spawn(publish(
            broker.url().to_owned(),
            lane.queue.clone(),
            lane.setup,
            0..messages,
            pace,
            Arc::clone(&progress),
        )),
        log: WorkerLog::open(&lane.log, messages).expect("the worker's log can be read"),
        lane,
        messages,
        progress,
        memory: Samples::default(),
        longest: Samples::default(),
        seen_at_start: 0,
        seen: [0; 2],
        duplicates_bound: 0,
    }
}
