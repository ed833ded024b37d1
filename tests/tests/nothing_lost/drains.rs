//! Drains at 200 drawn moments, by SIGTERM and by the levers: a worker that answers within the grace has every message
//! once.

use crate::setup;
use std::time::Duration;
use suite::fate::Mix;
use suite::lane::{Lane, QueueType};
use suite::settings::seed;
use suite::worker_log::WorkerLog;
use testkit::Broker;
use tokio::time::{Instant, sleep};

/// Of each type of queue.
const DRAINS: usize = 100;
/// Published before each drain.
const MESSAGES: usize = 30;

#[tokio::test]
async fn drained_two_hundred_times_without_a_duplicate() {
    let seed = seed("drains");
    let broker = testkit::broker().await;
    tokio::join!(
        drained(broker, QueueType::Classic, seed),
        drained(broker, QueueType::Quorum, seed),
    );
}

async fn drained(broker: &Broker, queue_type: QueueType, seed: u64) {
    let mut lane = Lane::new(broker, setup(queue_type, Mix::Quick, seed)).await;
    // As documented: the time of a message, and 5 s.
    let grace = Duration::from_secs(u64::from(lane.setup.timeout_seconds) + 5);
    let total = DRAINS * MESSAGES;
    let mut log = WorkerLog::open(&lane.log, total).unwrap();
    let mut random = fastrand::Rng::with_seed(queue_type.seed(seed));
    let (mut ended, mut slowest) = (0, Duration::ZERO);
    lane.start_worker();
    lane.start_sidecar();
    for drain in 0..DRAINS {
        lane.publish(broker, drain * MESSAGES..(drain + 1) * MESSAGES)
            .await;
        lane.until_sidecar_listens().await;
        sleep(Duration::from_micros(random.u64(..60_000))).await;
        let begun = Instant::now();
        if random.bool() {
            let status = lane.end_sidecar().await;
            slowest = slowest.max(begun.elapsed());
            assert!(status.success(), "the sidecar did not drain: {status}");
            ended += 1;
            lane.start_sidecar();
        } else {
            lane.drain_and_resume().await;
            slowest = slowest.max(begun.elapsed());
        }
    }
    lane.until_settled(broker, &mut log, total).await;
    let findings = lane.findings(broker, &mut log, total).await;
    testkit::say(&format!(
        "drains: {} {} sigterm={ended} levers={} slowest_ms={} seed={seed}",
        queue_type.as_str(),
        findings.line(0),
        DRAINS - ended,
        slowest.as_millis(),
    ));
    findings.check(0);
    assert_eq!(findings.repeats, 0, "an attempt was asked for twice");
    assert!(slowest < grace, "{slowest:?} is more than the grace, {grace:?}");
}
