//! One case: a worker that does something once, and then works.

use crate::support::{PATIENCE, Running, config, until_ready};
use lapin::BasicProperties;
use std::time::Duration;
use testkit::logs::Logs;
use testkit::raw::{Exchange, Patience, RawWorker, Step};
use testkit::wait::until;
use testkit::{Amqp, Message, unique};

/// How long the worker has where that matters, and longer than anything takes on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1500);
const LONG_TIMEOUT: Duration = Duration::from_secs(20);
/// The shortest wait before another attempt, and a little for clocks.
const SHORTEST_DELAY: Duration = Duration::from_millis(95);

/// Whether an attempt is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    Yes,
    No,
    /// It was the last.
    Ends,
}

impl Counts {
    /// The words of the reference page.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Ends => "–",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) worker: &'static str,
    /// `accepted`, `retry`, `dead_letter`.
    pub(crate) verdict: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) counts: Counts,
}

impl Row {
    /// What happens at the broker.
    pub(crate) fn action(self) -> &'static str {
        match self.verdict {
            "accepted" => "ack",
            "retry" => "copy to a retry queue, ack",
            "dead_letter" => "copy to the dead-letter queue, ack",
            "released" => "nack with requeue, intake pauses",
            other => panic!("{other} is no verdict"),
        }
    }
}

/// One queue, one raw worker, one sidecar.
pub(crate) struct RawScene {
    worker: Option<RawWorker>,
    pub(crate) queue: String,
    pub(crate) amqp: Amqp,
    pub(crate) sidecar: Running,
    pub(crate) logs: Logs,
}

impl RawScene {
    pub(crate) async fn new(worker: RawWorker, change: impl FnOnce(&mut sidecar::Config)) -> Self {
        let scene = Self::at(worker.port(), change).await;
        Self {
            worker: Some(worker),
            ..scene
        }
    }

    pub(crate) fn worker(&self) -> &RawWorker {
        self.worker.as_ref().unwrap()
    }

    /// With a worker that is the test's own affair.
    pub(crate) async fn at(port: u16, change: impl FnOnce(&mut sidecar::Config)) -> Self {
        let broker = testkit::broker().await;
        let queue = unique("orders");
        let mut config = config(broker.url(), &queue, port);
        config.timeout = TIMEOUT;
        change(&mut config);
        let scene = Self {
            logs: testkit::logs::capture(),
            amqp: broker.amqp().await,
            sidecar: Running::start(config).await,
            worker: None,
            queue,
        };
        until("it consumes", PATIENCE, || async {
            scene.sidecar.handle.status().state == sidecar::State::Consuming
        })
        .await;
        scene
    }

    pub(crate) async fn publish(&self, body: impl AsRef<[u8]>) {
        self.amqp
            .publish(&self.queue, body, BasicProperties::default())
            .await;
    }

    pub(crate) async fn until_settled(&self, count: u64) {
        until("every message is settled", PATIENCE, || async {
            let counts = self.sidecar.handle.status().counts;
            counts.accepted + counts.dead_lettered >= count
        })
        .await;
    }

    /// Verdict, reason and attempt of each delivery, in the order of their judgement.
    pub(crate) fn judged(&self) -> Vec<(String, String, u32)> {
        let field = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
            rest.split(' ').next().unwrap().trim_matches('"').to_owned()
        };
        let lines = self.logs.matching("delivery processed");
        let judged = lines.iter().map(|line| {
            (
                field(line, "verdict"),
                field(line, "reason"),
                field(line, "attempt").parse().unwrap(),
            )
        });
        judged.collect()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<Message> {
        self.amqp.get_all(&format!("{}.dead", self.queue)).await
    }

    /// Drains, and asserts that nothing is left and that nothing was lost.
    pub(crate) async fn end(self) {
        let handle = self.sidecar.handle.clone();
        assert_eq!(self.sidecar.stop().await, sidecar::Drained::Completely);
        assert_eq!(handle.status().counts.lost, 0);
        until_ready(&self.amqp, &self.queue, 0).await;
        self.amqp.delete(&self.queue).await;
        self.amqp.delete(&format!("{}.dead", self.queue)).await;
    }
}

/// What a worker does with its first request, and how it begins.
pub(crate) struct Wire {
    pub(crate) patience: Patience,
    pub(crate) steps: Vec<Step>,
    pub(crate) body: Vec<u8>,
}

/// A worker that reads the request and then does this.
pub(crate) fn does(steps: impl IntoIterator<Item = Step>) -> Wire {
    Wire {
        patience: Patience::Whole,
        steps: steps.into_iter().collect(),
        body: b"m".to_vec(),
    }
}

pub(crate) fn ok() -> Vec<Step> {
    vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]
}

/// Publishes one message and plays the row with its first attempt; any later one is answered 200, and so is a second
/// message, which shows that nothing of the first answer is taken for its own.
pub(crate) async fn play(row: Row, wire: Wire) {
    let worker = RawWorker::start(wire.patience, {
        let steps = wire.steps;
        move |exchange: &Exchange| {
            let is_first = exchange.header("x-delivery-attempt") == "1" && exchange.text() != "second";
            if is_first && exchange.number == 1 {
                return steps.clone();
            }
            [vec![Step::ReadRest], ok()].concat()
        }
    });
    let is_about_time = row.reason == "timed_out" || row.name.contains("slow");
    let scene = RawScene::new(worker, |config| {
        config.concurrency = 1;
        config.timeout = if is_about_time { TIMEOUT } else { LONG_TIMEOUT };
    })
    .await;
    scene.publish(&wire.body).await;
    scene.until_settled(1).await;
    scene.publish("second").await;
    scene.until_settled(2).await;

    let judged = scene.judged();
    let (verdict, reason, attempt) = &judged[0];
    assert_eq!(
        (verdict.as_str(), reason.as_str(), *attempt),
        (row.verdict, row.reason, 1),
        "{judged:?}"
    );
    assert_eq!(
        judged.last().unwrap().0,
        "accepted",
        "the second message: {judged:?}"
    );
    let exchanges = scene.worker().exchanges();
    let of_the_first: Vec<_> = exchanges
        .iter()
        .filter(|exchange| exchange.text() != "second")
        .collect();
    let expected: &[u32] = match row.counts {
        Counts::Yes => &[1, 2],
        Counts::No => &[1, 1],
        Counts::Ends => &[1],
    };
    let attempts: Vec<u32> = judged[..judged.len() - 1]
        .iter()
        .map(|(_, _, attempt)| *attempt)
        .collect();
    assert_eq!(attempts, expected, "{judged:?}");
    assert_eq!(of_the_first.len(), expected.len(), "one POST an attempt");
    // No hot loop: another attempt waits for its back-off.
    if let [.., before, last] = &of_the_first[..]
        && expected.len() == 2
    {
        let waited = last.at.duration_since(before.at);
        assert!(waited >= SHORTEST_DELAY, "the next attempt came after {waited:?}");
    }
    let letters = scene.dead_letters().await;
    assert_eq!(letters.len(), usize::from(row.verdict == "dead_letter"));
    if let [letter] = &letters[..] {
        assert_eq!(
            letter.header_text("x-kubedaemon-reason").as_deref(),
            Some(row.reason)
        );
        assert_eq!(letter.body, wire.body);
    }
    scene.end().await;
}
