//! Messages that can never be done, under load: each is tried as often as allowed and not once more, is dead-lettered
//! once, with reason and journal, and disturbs no other.

use crate::setup;
use suite::fate::{Fate, Mix, Row};
use suite::lane::{Lane, QueueType};
use suite::letters::Letter;
use suite::oracle::Findings;
use suite::settings::seed;
use suite::worker_log::{WorkerLog, id};
use testkit::Broker;

/// Of each type of queue.
const MESSAGES: usize = 5_000;

/// What became of the messages of a lane that was left in peace.
async fn settled(
    broker: &Broker,
    queue_type: QueueType,
    mix: Mix,
    seed: u64,
) -> (Lane, WorkerLog, Vec<Letter>) {
    let mut lane = Lane::new(broker, setup(queue_type, mix, seed)).await;
    let mut log = WorkerLog::open(&lane.log, MESSAGES).unwrap();
    lane.publish(broker, 0..MESSAGES).await;
    lane.start_worker();
    lane.start_sidecar();
    lane.until_settled(broker, &mut log, MESSAGES).await;
    let status = lane.end_sidecar().await;
    assert!(status.success(), "the sidecar did not drain: {status}");
    let letters = lane.letters(broker).await;
    let findings = Findings::of(lane.setup, MESSAGES, &log, &letters);
    testkit::say(&format!(
        "poison: {} {} {} {:?} seed={seed}",
        queue_type.as_str(),
        mix.as_str(),
        findings.line(0),
        findings.dead,
    ));
    findings.check(0);
    (lane, log, letters)
}

fn row(lane: &Lane, letter: &Letter) -> Row {
    let number = letter.message.unwrap();
    lane.setup.mix.row(lane.setup.seed, &id(number))
}

#[tokio::test]
async fn poison_is_tried_exactly_to_the_limit_and_the_others_once() {
    let seed = seed("poison");
    let broker = testkit::broker().await;
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        let (lane, log, letters) = settled(broker, queue_type, Mix::Poisonous, seed).await;
        for number in 0..MESSAGES {
            let tries = match lane.setup.mix.row(lane.setup.seed, &id(number)) {
                Row::Poison => lane.setup.max_attempts,
                _ => 1,
            };
            assert_eq!(log.calls(number).all, tries, "{}", id(number));
        }
        for letter in &letters {
            let (reason, causes): (&str, &[&str]) = match row(&lane, letter) {
                Row::Poison => ("attempts_exhausted", &["server_error"; 3]),
                _ => ("rejected", &["rejected"]),
            };
            assert_eq!(
                (letter.reason.as_str(), &letter.journal[..]),
                (reason, &owned(causes)[..])
            );
            assert_eq!(letter.attempts, i64::try_from(causes.len()).unwrap());
        }
    }
}

#[tokio::test]
async fn messages_that_kill_the_worker_are_found_out_and_the_others_done() {
    let seed = seed("killers");
    let broker = testkit::broker().await;
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        let (lane, log, letters) = settled(broker, queue_type, Mix::Deadly, seed).await;
        let killers: Vec<usize> = (0..MESSAGES)
            .filter(|number| lane.setup.mix.row(lane.setup.seed, &id(*number)) == Row::Killer)
            .collect();
        for letter in &letters {
            match row(&lane, letter) {
                Row::Killer => assert_eq!(letter.reason, "crashed_worker", "{letter:?}"),
                row => assert_eq!(
                    row.fate(),
                    Fate::DeadLettered,
                    "an innocent was given up: {letter:?}"
                ),
            }
            // One attempt alone may be granted beyond the limit, to tell who did it.
            assert!(
                letter.attempts <= i64::from(lane.setup.max_attempts) + 1,
                "{letter:?}"
            );
        }
        for killer in &killers {
            // Once among others, once alone; not at all while another one took the worker down.
            assert!(
                (1..=2).contains(&log.calls(*killer).all),
                "{:?}",
                log.calls(*killer)
            );
        }
        testkit::say(&format!("poison: {} killed the worker", killers.len()));
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
