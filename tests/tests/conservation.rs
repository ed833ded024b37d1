//! Conservation: whatever is killed, every message that the broker confirmed ends in exactly one way.
//!
//! 100,000 messages of 0 B to 1 MiB, answers drawn from every row of the contract, while the sidecar is killed, its
//! connections are closed by the broker and the worker is killed, twenty times each. The seed is printed;
//! `KUBEDAEMON_SEED=…` replays a run, `KUBEDAEMON_MESSAGES=…` makes it smaller.
#![allow(clippy::unwrap_used, reason = "tests")]

use suite::fate::{Fate, Mix, body_bytes, hash, row};
use suite::faults::{Fault, shuffled};
use suite::lane::{Lane, QueueType, Setup};
use suite::settings::{MESSAGES, count, seed};
use suite::worker_log::{WorkerLog, id};
use testkit::Broker;

/// Of each kind.
const FAULTS: [(Fault, usize); 3] = [
    (Fault::KillSidecar, 20),
    (Fault::CloseConnections, 20),
    (Fault::KillWorker, 20),
];

#[tokio::test]
async fn every_message_ends_in_exactly_one_way_whatever_is_killed() {
    let seed = seed("conservation");
    let messages = count(MESSAGES, 100_000);
    let setup = Setup {
        queue_type: QueueType::Quorum,
        mix: Mix::Everything,
        seed,
        concurrency: 64,
        timeout_seconds: 2,
        max_attempts: 5,
    };
    let broker = Broker::start().await;
    let mut lane = Lane::new(&broker, setup).await;
    lane.publish(&broker, 0..messages).await;
    lane.start_worker();
    lane.start_sidecar();

    let mut log = WorkerLog::open(&lane.log, messages).unwrap();
    let faults = shuffled(seed, &FAULTS);
    let mut bound = 0;
    for (position, fault) in faults.iter().enumerate() {
        // Evenly over the run; the last ones hit its tail.
        lane.until_ended(&broker, &mut log, messages * position / faults.len())
            .await;
        bound += fault.duplicates(&lane);
        if fault.is_of_the_broker() {
            fault.inflict_on_broker(&broker).await;
        } else {
            fault.inflict(&mut lane).await;
        }
    }
    lane.until_settled(&broker, &mut log, messages).await;
    let findings = lane.findings(&broker, &mut log, messages).await;
    testkit::say(&format!(
        "conservation: {} faults={} seed={seed}",
        findings.line(bound),
        faults.len()
    ));
    findings.check(bound);
}

#[test]
fn rows_and_sizes_are_spread_as_meant() {
    let ids: Vec<String> = (0..10_000).map(id).collect();
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
