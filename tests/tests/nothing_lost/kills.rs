//! SIGKILL of the sidecar at 300 drawn moments: at any time, at an answer of the worker, and, held there by the wire,
//! between answer and acknowledgement, between a copy and its confirm, between the confirm and the acknowledgement.

use crate::setup;
use std::ops::AddAssign;
use std::time::Duration;
use suite::fate::Mix;
use suite::lane::{Lane, QueueType};
use suite::settings::seed;
use suite::wire::{Point, Wire};
use suite::worker_log::WorkerLog;
use testkit::Broker;
use tokio::time::{Instant, sleep};

/// Of each type of queue.
const KILLS: usize = 150;
/// Published before each life of a sidecar, so that it has work.
const MESSAGES: usize = 40;
/// A point that is not reached by then will not be: what is left does not lead there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many kills landed where.
#[derive(Debug, Clone, Copy, Default)]
struct Landed {
    /// After a drawn time.
    moment: usize,
    /// When the worker wrote down an answer; anywhere from before the answer to after the acknowledgement.
    answer: usize,
    /// The acknowledgement was on its way and never reached the broker.
    before_ack: usize,
    /// The broker had confirmed a copy, and the sidecar never knew.
    before_confirm: usize,
    /// The sidecar knew of the confirm, and its acknowledgement never reached the broker.
    before_ack_of_copied: usize,
    /// The drawn point was not reached: killed after all.
    missed: usize,
}

impl AddAssign for Landed {
    fn add_assign(&mut self, other: Self) {
        self.moment += other.moment;
        self.answer += other.answer;
        self.before_ack += other.before_ack;
        self.before_confirm += other.before_confirm;
        self.before_ack_of_copied += other.before_ack_of_copied;
        self.missed += other.missed;
    }
}

#[tokio::test]
async fn killed_three_hundred_times_between_any_two_steps() {
    let seed = seed("kills");
    let broker = testkit::broker().await;
    let (classic, quorum) = tokio::join!(
        killed(broker, QueueType::Classic, seed),
        killed(broker, QueueType::Quorum, seed),
    );
    let mut landed = classic;
    landed += quorum;
    testkit::say(&format!("kills: {landed:?} seed={seed}"));
    let windows = [
        landed.before_ack,
        landed.before_confirm,
        landed.before_ack_of_copied,
    ];
    assert!(windows.iter().all(|landed| *landed >= 30), "{landed:?}");
}

async fn killed(broker: &Broker, queue_type: QueueType, seed: u64) -> Landed {
    let mut lane = Lane::on_a_wire(broker, setup(queue_type, Mix::Quick, seed)).await;
    let total = KILLS * MESSAGES;
    let mut log = WorkerLog::open(&lane.log, total).unwrap();
    let mut random = fastrand::Rng::with_seed(queue_type.seed(seed));
    let mut landed = Landed::default();
    lane.start_worker();
    for life in 0..KILLS {
        lane.publish(broker, life * MESSAGES..(life + 1) * MESSAGES).await;
        lane.start_sidecar();
        landed += until_it_is_time(&lane, &mut log, &mut random).await;
        lane.kill_sidecar().await;
    }
    lane.start_sidecar();
    lane.until_settled(broker, &mut log, total).await;
    let prefetch = lane.setup.prefetch();
    let findings = lane.findings(broker, &mut log, total).await;
    let answered_again = log.repeats.iter().filter(|repeat| repeat.answered).count();
    testkit::say(&format!(
        "kills: {} {} answered_and_asked_again={answered_again} kills={KILLS} {landed:?}",
        queue_type.as_str(),
        findings.line(KILLS * prefetch),
    ));
    findings.check(KILLS * prefetch);
    // The kills that the wire held in their windows did what they were to do: the broker delivered again.
    assert!(
        answered_again >= landed.before_ack,
        "{answered_again}: {landed:?}"
    );
    landed
}

/// Waits for a drawn point in the life of the sidecar.
async fn until_it_is_time(lane: &Lane, log: &mut WorkerLog, random: &mut fastrand::Rng) -> Landed {
    let mut landed = Landed::default();
    let wire: &Wire = lane.wire.as_ref().unwrap();
    let (slot, point) = match random.usize(..5) {
        0 => {
            sleep(Duration::from_micros(random.u64(..150_000))).await;
            landed.moment = 1;
            return landed;
        }
        1 => {
            until_answered(log, random.usize(1..=20)).await;
            landed.answer = 1;
            return landed;
        }
        2 => (
            &mut landed.before_ack,
            Point::Acknowledgement(random.usize(1..=4)),
        ),
        3 => (&mut landed.before_confirm, Point::Published(random.usize(1..=8))),
        _ => (
            &mut landed.before_ack_of_copied,
            Point::Confirmed(random.usize(1..=4)),
        ),
    };
    wire.stop_at(point);
    if wire.stopped(PATIENCE).await {
        *slot = 1;
    } else {
        landed.missed = 1;
    }
    landed
}

/// Waits for so many more answers of the worker.
async fn until_answered(log: &mut WorkerLog, more: usize) {
    log.read().unwrap();
    let (wanted, begun) = (log.total + more, Instant::now());
    while log.total < wanted && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(1)).await;
        log.read().unwrap();
    }
}
