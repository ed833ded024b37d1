//! The table of versions against the broker that runs, whichever `KUBEDAEMON_TEST_RABBITMQ` names. Each intent is carried
//! out by a sidecar, on a queue with a small delivery limit: what counts makes the broker give the message up.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use amqp::version::{Intent, Server, Version};
use lapin::BasicProperties;
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};
use testkit::{Amqp, say, table, text, unique};

/// Returns that a queue of these tests takes; at the next one the broker gives the message up.
const LIMIT: i64 = 3;
/// More returns than that.
const TIMES: u32 = 6;

async fn version() -> Version {
    let (major, minor, patch) = testkit::broker().await.version();
    Version::new(major, minor, patch)
}

/// A sidecar on a queue with a small limit, and a worker that answers so.
async fn scene<A: Into<Answer>>(script: impl Fn(&Received) -> A + Send + Sync + 'static) -> Scene {
    let broker = testkit::broker().await;
    let (queue, amqp) = (unique("orders"), broker.amqp().await);
    let letters = format!("{queue}.dead");
    amqp.declare_quorum(&letters).await;
    let limited = table([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongLongInt(LIMIT)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(&letters)),
    ]);
    amqp.declare(&queue, limited).await;
    let worker = Worker::start(script).await;
    let mut config = config(broker.url(), &queue, worker.port());
    config.concurrency = 2;
    let sidecar = Running::start(config).await;
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp,
    };
    scene.until_state(sidecar::State::Consuming).await;
    scene
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
struct Observed {
    /// Whether the broker gave the message up after its limit.
    counts: bool,
}

impl Observed {
    async fn of(intent: Intent) -> Self {
        match intent {
            Intent::Accept => accepted().await,
            Intent::CopyThenAcknowledge => copied().await,
            Intent::GiveBack => given_back().await,
            Intent::LostChannel => lost().await,
        }
    }
}

async fn ready(amqp: &Amqp, queue: &str) -> u32 {
    amqp.depth(queue).await.map_or(0, |(ready, _)| ready)
}

async fn is_given_up(scene: &Scene) -> bool {
    ready(&scene.amqp, &format!("{}.dead", scene.queue)).await == 1
}

/// Nothing comes back, so there is nothing to count.
async fn accepted() -> Observed {
    let scene = scene(|_| 200).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    let counts = is_given_up(&scene).await || scene.worker.count() > 1;
    scene.end().await;
    Observed { counts }
}

async fn copied() -> Observed {
    let scene = scene(|request: &Received| {
        if request.number <= TIMES {
            Answer::status(503).header("retry-after", "0")
        } else {
            Answer::ok()
        }
    })
    .await;
    scene.publish("m").await;
    until("it is accepted or given up", PATIENCE, || async {
        scene.sidecar.handle.status().counts.accepted == 1 || is_given_up(&scene).await
    })
    .await;
    let counts = is_given_up(&scene).await;
    scene.end().await;
    Observed { counts }
}

/// Two messages are with the worker and one is prefetched: each drain gives back that one.
async fn given_back() -> Observed {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = scene(move |_: &Received| answer.clone()).await;
    for number in 0..3 {
        scene.publish(&number.to_string()).await;
    }
    scene.worker.wait_for(2).await;
    scene.until_ready(0).await;
    for _ in 0..TIMES {
        scene.sidecar.handle.drain();
        until("it is back, or given up", PATIENCE, || async {
            ready(&scene.amqp, &scene.queue).await == 1 || is_given_up(&scene).await
        })
        .await;
        scene.sidecar.handle.resume();
        scene.until_ready(0).await;
    }
    let counts = is_given_up(&scene).await;
    gate.open();
    scene.until_accepted(if counts { 2 } else { 3 }).await;
    scene.end().await;
    Observed { counts }
}

/// Its sidecar is killed, again and again.
async fn lost() -> Observed {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let mut scene = scene(move |_: &Received| answer.clone()).await;
    let config = config(testkit::broker().await.url(), &scene.queue, scene.worker.port());
    scene.publish("m").await;
    for number in 1..=TIMES {
        let number = usize::try_from(number).unwrap();
        until("it is with the worker, or given up", PATIENCE, || async {
            scene.worker.count() >= number || is_given_up(&scene).await
        })
        .await;
        let again = Running::start(config.clone()).await;
        std::mem::replace(&mut scene.sidecar, again).kill().await;
    }
    until("it is with the worker, or given up", PATIENCE, || async {
        scene.worker.count() > TIMES as usize || is_given_up(&scene).await
    })
    .await;
    let counts = is_given_up(&scene).await;
    gate.open();
    scene.end().await;
    Observed { counts }
}

#[tokio::test]
async fn each_intent_counts_as_the_table_says() {
    let _logs = testkit::logs::capture();
    let version = version().await;
    for intent in Intent::ALL {
        let observed = Observed::of(intent).await;
        let expected = version.settling(intent);
        say(&format!(
            "RabbitMQ {version}, {intent:?} by {:?}: observed {observed:?}",
            expected.method
        ));
        assert_eq!(observed.counts, expected.counts, "{version} {intent:?}");
    }
}

#[tokio::test]
async fn the_default_limit_is_that_of_the_table() {
    const MORE: u32 = 25;
    let (version, amqp, queue) = (
        version().await,
        testkit::broker().await.amqp().await,
        unique("orders"),
    );
    amqp.declare_quorum(&queue).await;
    amqp.publish(&queue, "m", BasicProperties::default()).await;
    let mut deliveries = 0;
    while deliveries < MORE && is_lost_once(&amqp, &queue).await {
        deliveries += 1;
    }
    amqp.delete(&queue).await;
    let observed = (deliveries < MORE).then(|| deliveries - 1);
    say(&format!(
        "RabbitMQ {version}, returns without a limit: observed {observed:?}"
    ));
    assert_eq!(observed, version.default_delivery_limit());
}

/// Whether there was a delivery, which is lost with its channel.
async fn is_lost_once(amqp: &Amqp, queue: &str) -> bool {
    let channel = amqp.channel().await;
    // What went back is there after some milliseconds, if at all.
    let getting = async {
        while channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .unwrap()
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let is_there = tokio::time::timeout(Duration::from_secs(2), getting)
        .await
        .is_ok();
    channel.close(200, "lost".into()).await.unwrap();
    is_there
}

#[tokio::test]
async fn the_broker_says_what_it_is_and_the_sidecar_says_so_once() {
    let logs = testkit::logs::capture();
    let (broker, version) = (testkit::broker().await, version().await);
    let connection = amqp::connect(&broker.url().parse().unwrap(), "test")
        .await
        .unwrap();
    let expected = Server {
        product: "RabbitMQ".to_owned(),
        version,
    };
    assert_eq!(connection.server(), Some(&expected));
    connection.close().await;
    let scene = Scene::new(|_| 200).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    let said = logs.matching(&format!("server=\"RabbitMQ {version}\""));
    assert!(
        said.len() == 1 && said[0].contains("broker connected"),
        "{}",
        logs.text()
    );
    scene.end().await;
}
