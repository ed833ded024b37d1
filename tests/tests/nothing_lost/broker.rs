//! Brokers that are killed and restarted again and again while messages are published and consumed: what they confirmed
//! is settled.
//!
//! Two at once, because most of a fault is waiting: for a start, and for sidecars that pause between two tries.
//! `KUBEDAEMON_BROKER_FAULTS=…` says how many faults there are in all.

use crate::setup;
use futures_util::future::join_all;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use suite::fate::Mix;
use suite::faults::{Fault, shuffled};
use suite::lane::{Lane, QueueType, remember_queues};
use suite::publishing::{Pace, Progress, publish};
use suite::settings::{BROKER_FAULTS, count, seed};
use suite::worker_log::WorkerLog;
use testkit::Broker;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// In all.
const FAULTS: usize = 40;
const BROKERS: usize = 2;
/// Of each type of queue, for each fault.
const MESSAGES: usize = 600;
/// POSTs between two faults.
const POSTS: usize = 150;
/// From the broker's start to the first message: a sidecar waits up to 5 s between two tries.
const PATIENCE: Duration = Duration::from_secs(45);

/// Between looks at the worker's log.
const LOOK: Duration = Duration::from_millis(10);

struct Published {
    lane: Lane,
    log: WorkerLog,
    progress: Arc<Progress>,
    publisher: JoinHandle<()>,
    /// So many POSTs say that messages flow again.
    wanted: usize,
    /// How many duplicates the faults explain so far.
    bound: usize,
}

#[tokio::test]
async fn brokers_that_die_again_and_again_lose_nothing_that_they_confirmed() {
    let seed = seed("broker faults");
    let faults = count(BROKER_FAULTS, FAULTS);
    let brokers = (0..BROKERS).map(|number| {
        let share = (faults + number) / BROKERS;
        // Each type of queue takes one.
        one_broker(share, seed.wrapping_add(2 * number as u64))
    });
    join_all(brokers).await;
}

/// A broker with a queue of each type, which dies so many times.
async fn one_broker(faults: usize, seed: u64) {
    let total = faults.max(1) * MESSAGES;
    let broker = Broker::start().await;
    let mut lanes = Vec::new();
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        lanes.push(Lane::new(&broker, setup(queue_type, Mix::Quick, seed)).await);
    }
    remember_queues(&broker).await;
    let mut lanes: Vec<Published> = lanes
        .into_iter()
        .map(|lane| published(&broker, lane, total))
        .collect();

    let kinds = [
        (Fault::KillBroker, faults.div_ceil(2)),
        (Fault::RestartBroker, faults / 2),
    ];
    for (number, fault) in shuffled(seed, &kinds).into_iter().enumerate() {
        for of_type in &mut lanes {
            of_type.log.read().unwrap();
            of_type.wanted = of_type.log.total + POSTS;
            of_type.progress.settled.store(number * MESSAGES, Relaxed);
        }
        for of_type in &mut lanes {
            until_messages_flow(of_type).await;
        }
        for of_type in &mut lanes {
            of_type.bound += fault.duplicates(&of_type.lane);
            if fault.forgets_acknowledgements(of_type.lane.setup.queue_type) {
                of_type.log.read().unwrap();
                // What was settled since the broker started.
                of_type.bound += of_type.log.total - (of_type.wanted - POSTS);
            }
        }
        fault.inflict_on_broker(&broker).await;
    }
    for mut of_type in lanes {
        of_type.progress.settled.store(total, Relaxed);
        of_type.publisher.await.unwrap();
        let (lane, log) = (&mut of_type.lane, &mut of_type.log);
        lane.until_settled(&broker, log, total).await;
        let sent_again = of_type.progress.sent_again.load(Relaxed);
        let bound = of_type.bound + sent_again;
        let findings = lane.findings(&broker, log, total).await;
        testkit::say(&format!(
            "broker faults: {} {} sent_again={sent_again} kills={} restarts={} seed={seed}",
            lane.setup.queue_type.as_str(),
            findings.line(bound),
            kinds[0].1,
            kinds[1].1,
        ));
        findings.check(bound);
    }
}

fn published(broker: &Broker, mut lane: Lane, total: usize) -> Published {
    lane.start_worker();
    lane.start_sidecar();
    let progress = Arc::new(Progress::default());
    // So many more for each fault, as the test says by what it calls settled.
    let pace = Pace {
        backlog: MESSAGES,
        ..Pace::AT_ONCE
    };
    let (url, queue) = (broker.url().to_owned(), lane.queue.clone());
    Published {
        log: WorkerLog::open(&lane.log, total).unwrap(),
        publisher: tokio::spawn(publish(
            url,
            queue,
            lane.setup,
            0..total,
            pace,
            Arc::clone(&progress),
        )),
        lane,
        progress,
        wanted: 0,
        bound: 0,
    }
}

/// Waits until the worker has had as many POSTs as are wanted.
async fn until_messages_flow(of_type: &mut Published) {
    let begun = Instant::now();
    while of_type.log.total < of_type.wanted {
        of_type.lane.assert_running();
        assert!(
            begun.elapsed() < PATIENCE,
            "no message flows: {} POSTs of {}, {:?}, {}",
            of_type.log.total,
            of_type.wanted,
            of_type.progress,
            of_type.lane.status().await
        );
        sleep(LOOK).await;
        of_type.log.read().unwrap();
    }
}
