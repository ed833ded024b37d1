//! What goes wrong elsewhere with messages between a queue and HTTP: each named after the mistake, and not made here.
//!
//! The order of frames is seen on a wire between sidecar and broker, not inferred.
#![allow(clippy::unwrap_used, reason = "tests")]

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;
use suite::programs;
use suite::wire::{Counts, Wire};
use testkit::process::Process;
use testkit::wait::{PATIENCE, until};
use testkit::worker::{Answer, Gate, Received, Worker};
use testkit::{Amqp, Message, table, text, unique};

/// A sidecar behind a wire, and a worker of the test's own.
struct Scene {
    queue: String,
    amqp: Amqp,
    wire: Wire,
    worker: Worker,
    sidecar: Process,
}

impl Scene {
    /// A sidecar with a concurrency of 4, so with a prefetch of 7, on a quorum queue of its own making.
    async fn new<A: Into<Answer>>(
        script: impl Fn(&Received) -> A + Send + Sync + 'static,
        arguments: &[&str],
    ) -> Self {
        let broker = testkit::broker().await;
        let (queue, amqp) = (unique("orders"), broker.amqp().await);
        let wire = Wire::start(broker.port()).await;
        let worker = Worker::start(script).await;
        let mut command: Command = programs::command("sidecar");
        command.args(["--queue", &queue, "--broker", &wire.url(broker.url())]);
        command.args(["--target", &worker.url(), "--concurrency", "4", "--admin", "off"]);
        command.args(arguments);
        let sidecar = Process::start(command);
        let scene = Self {
            queue,
            amqp,
            wire,
            worker,
            sidecar,
        };
        scene.until_consumed().await;
        scene
    }

    async fn until_consumed(&self) {
        until("the sidecar consumes", PATIENCE, || async {
            self.amqp
                .depth(&self.queue)
                .await
                .is_some_and(|depth| depth.1 == 1)
        })
        .await;
    }

    async fn publish(&self, bodies: &[&str]) {
        let messages = bodies.iter().map(|body| {
            let properties = BasicProperties::default().with_message_id((*body).into());
            (*body, properties)
        });
        self.amqp.publish_many(&self.queue, messages).await;
    }

    async fn until_counts(&self, what: &str, are: impl Fn(Counts) -> bool) -> Counts {
        until(what, PATIENCE, || async { are(self.wire.counts()) }).await;
        self.wire.counts()
    }

    async fn until_unsettled(&self, expected: usize) {
        until(&format!("{expected} are unsettled"), PATIENCE, || async {
            self.wire.unsettled() == expected
        })
        .await;
    }

    async fn until_ready(&self, suffix: &str, expected: u32) {
        let queue = format!("{}{suffix}", self.queue);
        until(&format!("{expected} are ready in {queue}"), PATIENCE, || async {
            self.amqp
                .depth(&queue)
                .await
                .is_some_and(|depth| depth.0 == expected)
        })
        .await;
    }

    async fn letters(&self, expected: u32) -> Vec<Message> {
        self.until_ready(".dead", expected).await;
        self.amqp.get_all(&format!("{}.dead", self.queue)).await
    }

    /// Nothing was acknowledged that was not handed over, and the broker had nothing to complain about.
    fn assert_proper(&self) {
        let counts = self.wire.counts();
        assert_eq!((counts.stray, counts.closed_by_broker), (0, 0), "{counts:?}");
    }
}

/// The status that the message asks for: its body's first word.
fn as_asked(request: &Received) -> u16 {
    let text = request.text();
    text.split(' ').next().unwrap().parse().unwrap()
}

async fn acked_before_the_copy_is_confirmed(status: &str, copies_in: &str) {
    let scene = Scene::new(as_asked, &["--retry-backoff", "1h"]).await;
    scene.wire.hold_confirms(true);
    scene.publish(&[&format!("{status} first")]).await;
    // The broker has the copy and has said so, and the sidecar does not know.
    scene
        .until_counts("the copy is published", |counts| counts.published == 1)
        .await;
    scene.until_ready(copies_in, 1).await;
    // A later message goes through: whatever was to be acknowledged by now would have been.
    scene.publish(&["200 second"]).await;
    scene
        .until_counts("the second is acknowledged", |counts| {
            counts.acknowledgements == 1
        })
        .await;
    assert_eq!(
        scene.wire.unsettled(),
        1,
        "the first was acknowledged without a confirm"
    );

    scene.wire.hold_confirms(false);
    scene.until_unsettled(0).await;
    let counts = scene.wire.counts();
    assert_eq!((counts.published, counts.acknowledgements), (1, 2), "{counts:?}");
    scene.until_ready("", 0).await;
    scene.until_ready(copies_in, 1).await;
    scene.assert_proper();
}

#[tokio::test]
async fn acked_before_the_dead_letter_copy_is_confirmed() {
    acked_before_the_copy_is_confirmed("422", ".dead").await;
}

#[tokio::test]
async fn acked_before_the_retry_copy_is_confirmed() {
    acked_before_the_copy_is_confirmed("500", ".retry.1h").await;
}

#[tokio::test]
async fn unparsable_message_acknowledged() {
    let scene = Scene::new(|_| 400, &[]).await;
    let bodies: [&[u8]; 6] = [
        b"",
        b"{\"type\": \"broken",
        b"\xff\xfe\x00\x80 no text",
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        &[0; 5000],
        b"<xml",
    ];
    let array = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::Boolean(true)]));
    let odd = [
        FieldTable::default(),
        table([("ce-specversion", text("no version")), ("ce-id", text(""))]),
        table([("broken\r\nname: x", text("value\r\nx-injected: 1"))]),
        table([("nested", AMQPValue::FieldTable(table([("list", array)])))]),
        table([
            ("x-kubedaemon-attempts", text("many")),
            ("x-death", text("no list")),
        ]),
        table([
            ("number", AMQPValue::Double(-1e300)),
            ("\u{2603}", AMQPValue::Timestamp(u64::MAX)),
        ]),
    ];
    let content_types = [
        "application/json",
        "application/cloudevents+json",
        "text/plain\r\nx-injected: 1",
        "",
        "application/vnd.kubedaemon.verdict+json",
        "\u{2603}",
    ];
    let messages = bodies.iter().zip(odd).zip(content_types);
    let messages = messages.map(|((body, headers), content_type)| {
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_content_type(content_type.into());
        (body, properties)
    });
    scene.amqp.publish_many(&scene.queue, messages).await;

    let letters = scene.letters(6).await;
    let as_sent: BTreeSet<Vec<u8>> = bodies.iter().map(|body| body.to_vec()).collect();
    let asked: BTreeSet<Vec<u8>> = scene
        .worker
        .requests()
        .iter()
        .map(|request| request.body.to_vec())
        .collect();
    let kept: BTreeSet<Vec<u8>> = letters.iter().map(|letter| letter.body.clone()).collect();
    assert_eq!(asked, as_sent, "the worker is asked about every one");
    assert_eq!(kept, as_sent, "every one that it refuses is kept");
    for request in scene.worker.requests() {
        assert_eq!(request.header("x-injected"), "");
    }
    scene.until_unsettled(0).await;
    let counts = scene.wire.counts();
    assert_eq!((counts.published, counts.confirms > 0), (6, true), "{counts:?}");
    scene.assert_proper();
}

#[tokio::test]
async fn immediate_requeue_loop_of_a_failing_message() {
    let scene = Scene::new(|_| 500, &["--retry-backoff", "200ms", "--max-attempts", "4"]).await;
    scene.publish(&["poison"]).await;
    let letter = scene.letters(1).await.remove(0);
    assert_eq!(
        letter.header_text("x-kubedaemon-reason").as_deref(),
        Some("attempts_exhausted")
    );
    let requests = scene.worker.requests();
    assert_eq!(requests.len(), 4);
    for pair in requests.windows(2) {
        // A back-off is spread by a fifth.
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_millis(160), "tried again after {pause:?}");
    }
    scene.until_unsettled(0).await;
    assert_eq!(scene.wire.counts().given_back, 0);
}

#[tokio::test]
async fn immediate_requeue_loop_while_the_worker_is_away() {
    let scene = Scene::new(|_| 200, &[]).await;
    scene.worker.crash();
    let bodies: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    scene.publish(&bodies[..1]).await;
    scene.sidecar.wait_for_line("intake is paused").await;
    // Time passes, and there is more and more to take.
    for some in bodies[1..].chunks(50) {
        scene.publish(some).await;
    }
    scene.until_ready("", 500).await;
    let counts = scene.wire.counts();
    assert!(
        counts.deliveries <= 7 && counts.given_back <= 7,
        "messages go to and fro: {counts:?}"
    );
    scene.worker.start_again();
    scene.worker.wait_for(500).await;
    scene.until_unsettled(0).await;
    assert_eq!(scene.worker.count(), 500);
    scene.assert_proper();
}

#[tokio::test]
async fn dead_after_a_reconnect() {
    let scene = Scene::new(|_| 200, &[]).await;
    for number in 1..=6 {
        scene.wire.cut().await;
        scene.publish(&[&number.to_string()]).await;
        scene.worker.wait_for(number).await;
        // What was cut before its acknowledgement would come again, and rightly so.
        scene.until_unsettled(0).await;
    }
    scene.until_consumed().await;
    scene.until_unsettled(0).await;
    let received: Vec<String> = scene.worker.requests().iter().map(Received::text).collect();
    assert_eq!(received, ["1", "2", "3", "4", "5", "6"]);
    assert!(scene.wire.counts().connections >= 2 * 7);
    scene.assert_proper();
}

#[tokio::test]
async fn unbounded_prefetch() {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = Scene::new(move |_| answer.clone(), &[]).await;
    let before = scene.sidecar.memory_kib("VmRSS").unwrap();
    // 100 MB of them.
    let message = || (vec![b'x'; 100_000], BasicProperties::default());
    scene
        .amqp
        .publish_many(&scene.queue, std::iter::repeat_with(message).take(1000))
        .await;
    scene.worker.wait_for(4).await;
    scene.until_ready("", 993).await;
    let counts = scene.wire.counts();
    assert_eq!((counts.deliveries, counts.most_unsettled), (7, 7), "{counts:?}");
    assert_eq!(scene.worker.in_flight(), 4);
    let after = scene.sidecar.memory_kib("VmRSS").unwrap();
    assert!(after < before + 20_000, "{before} KiB, then {after} KiB");
    gate.open();
    scene.worker.wait_for(1000).await;
    scene.until_unsettled(0).await;
    let counts = scene.wire.counts();
    assert_eq!(
        (counts.deliveries, counts.most_unsettled),
        (1000, 7),
        "{counts:?}"
    );
}

#[tokio::test]
async fn transient_copies() {
    let scene = Scene::new(as_asked, &["--retry-backoff", "1h"]).await;
    let transient = 1;
    let properties = BasicProperties::default().with_delivery_mode(transient);
    for body in ["422 dead", "500 again"] {
        scene.amqp.publish(&scene.queue, body, properties.clone()).await;
    }
    let mut copies = scene.letters(1).await;
    scene.until_ready(".retry.1h", 1).await;
    copies.extend(scene.amqp.get_all(&format!("{}.retry.1h", scene.queue)).await);
    assert_eq!(copies.len(), 2);
    for copy in copies {
        assert_eq!(*copy.properties.delivery_mode(), Some(2), "{copy:?}");
    }
    let list = [
        "list_queues",
        "-q",
        "--no-table-headers",
        "name",
        "durable",
        "auto_delete",
        "type",
    ];
    let listed = testkit::broker().await.ctl(&list).await.unwrap();
    let queues: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix(&scene.queue))
        .collect();
    assert_eq!(queues.len(), 3, "{queues:?}");
    for queue in queues {
        assert!(queue.ends_with("\ttrue\tfalse\tquorum"), "{queue}");
    }
}

#[tokio::test]
async fn stale_ack_across_generations() {
    let gates = [Gate::shut(), Gate::shut()];
    let held = gates.clone();
    let scene = Scene::new(
        move |request| match request.text().as_str() {
            "held" => {
                let is_redelivered = request.header("x-redelivered") == "true";
                Answer::ok().when(&held[usize::from(is_redelivered)])
            }
            _ => Answer::ok(),
        },
        &[],
    )
    .await;
    scene.publish(&["held"]).await;
    scene.worker.wait_for(1).await;
    // The second generation gets it again, by the same delivery tag: each channel counts from 1.
    scene.wire.cut().await;
    scene.worker.wait_for(2).await;
    gates[0].open();
    until("the first POST is answered", PATIENCE, || async {
        scene.worker.in_flight() == 1
    })
    .await;
    // A later message goes through: the stale answer would have been acknowledged by now.
    scene.publish(&["later"]).await;
    scene
        .until_counts("the later one is acknowledged", |counts| {
            counts.acknowledgements == 1
        })
        .await;
    assert_eq!(
        scene.wire.unsettled(),
        1,
        "the answer of one connection settled on another"
    );
    scene.assert_proper();

    gates[1].open();
    scene.until_unsettled(0).await;
    assert_eq!(scene.wire.counts().acknowledgements, 2);
    assert_eq!(scene.worker.count(), 3);
    scene.assert_proper();
}
