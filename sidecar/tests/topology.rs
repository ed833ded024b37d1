//! Queues: how they are made, and how those that exist are used.

mod support;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use sidecar::State;
use std::collections::BTreeSet;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::wait::until;
use testkit::worker::{Answer, Received, Worker};
use testkit::{table, text, unique};

/// What the broker tells of the queues of a vhost, by name.
async fn queues(vhost: &str) -> serde_json::Map<String, Value> {
    let broker = testkit::broker().await;
    let columns = ["name", "durable", "auto_delete", "arguments"];
    let command = [&["list_queues", "--formatter", "json", "-p", vhost], &columns[..]].concat();
    let listed: Vec<Value> = serde_json::from_str(&broker.ctl(&command).await.unwrap()).unwrap();
    let by_name = |mut queue: Value| {
        let name = queue["name"].take().as_str().unwrap().to_owned();
        let arguments = queue["arguments"].take();
        let arguments = arguments.as_array().unwrap().iter();
        let arguments: serde_json::Map<_, _> = arguments
            .map(|argument| (argument[0].as_str().unwrap().to_owned(), argument[2].clone()))
            .collect();
        queue.as_object_mut().unwrap().remove("name");
        queue["arguments"] = arguments.into();
        (name, queue)
    };
    listed.into_iter().map(by_name).collect()
}

#[tokio::test]
async fn new_queues_are_durable_quorum_queues_that_dead_letter_at_least_once() {
    let broker = testkit::broker().await;
    let vhost = unique("team");
    let url = broker.add_user(&unique("sidecar"), "secret", &vhost).await;
    let worker = Worker::start(|request: &Received| {
        if request.header("x-delivery-attempt") == "1" {
            500
        } else {
            200
        }
    })
    .await;
    let mut config = config(&url, "orders", worker.port());
    config.retry.max = config.retry.min;
    let scene = Scene {
        sidecar: Running::start(config).await,
        amqp: testkit::Amqp::connect(&url).await,
        queue: "orders".to_owned(),
        worker,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    let queue = |arguments: Value| json!({"durable": true, "auto_delete": false, "arguments": arguments});
    let dead_letters_to = |queue: &str| {
        json!({
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        })
    };
    let mut retry = dead_letters_to("orders");
    retry["x-message-ttl"] = 100.into();
    let month = Duration::from_hours(30 * 24);
    retry["x-expires"] = json!(u64::try_from(month.as_millis()).unwrap() + 100);
    let expected = json!({
        "orders": queue(dead_letters_to("orders.dead")),
        "orders.dead": queue(json!({"x-queue-type": "quorum"})),
        "orders.retry.100ms": queue(retry),
    });
    assert_eq!(Value::from(queues(&vhost).await), expected);
    scene.end().await;
}

/// Declares a queue of any kind, lets a sidecar use it, and returns the words of the risks that it named.
async fn risks_of(options: QueueDeclareOptions, arguments: FieldTable) -> BTreeSet<String> {
    let broker = testkit::broker().await;
    let (queue, amqp) = (unique("orders"), broker.amqp().await);
    let declare = async || {
        let channel = amqp.channel().await;
        channel
            .queue_declare(queue.as_str().into(), options, arguments.clone())
            .await
            .unwrap();
    };
    declare().await;
    let logs = testkit::logs::capture();
    let worker = Worker::start(|_| 200).await;
    let scene = Scene {
        sidecar: Running::start(config(broker.url(), &queue, worker.port())).await,
        amqp: broker.amqp().await,
        queue: queue.clone(),
        worker,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    // It is what it was: a declare with other arguments would be refused.
    declare().await;
    let risks = logs.matching("is used as it is, but").into_iter().map(|line| {
        assert!(line.contains(&queue), "{line}");
        let (_, word) = line.rsplit_once("risk=\"").unwrap();
        word.trim_end_matches('"').to_owned()
    });
    let (count, risks) = (risks.len(), risks.collect::<BTreeSet<_>>());
    assert_eq!(count, risks.len(), "each once: {logs:#?}");
    assert_eq!(logs.matching("WARN").len(), count, "{logs:#?}");
    assert_eq!(scene.sidecar.stop().await, sidecar::Drained::Completely);
    risks
}

fn words<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
    words.map(str::to_owned).into()
}

#[tokio::test]
async fn an_existing_queue_is_used_as_it_is_and_each_risk_is_named() {
    let durable = QueueDeclareOptions::durable();
    let number = AMQPValue::LongInt;
    let classic = || table([]);
    assert_eq!(
        risks_of(durable, classic()).await,
        words(["no_dead_letter", "not_replicated"])
    );
    let ttl = table([("x-message-ttl", number(600_000))]);
    assert_eq!(
        risks_of(durable, ttl).await,
        words(["message_ttl", "no_dead_letter", "not_replicated"])
    );
    let expires = table([("x-expires", number(600_000))]);
    assert_eq!(
        risks_of(durable, expires).await,
        words(["expires", "no_dead_letter", "not_replicated"])
    );
    let bounded = table([("x-max-length", number(1_000))]);
    assert_eq!(
        risks_of(durable, bounded).await,
        words(["drops_head", "no_dead_letter", "not_replicated"])
    );
    let bounded = table([
        ("x-max-length-bytes", number(1_000_000)),
        ("x-overflow", text("reject-publish")),
    ]);
    assert_eq!(
        risks_of(durable, bounded).await,
        words(["no_dead_letter", "not_replicated"])
    );
    let dead_lettering = table([
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("elsewhere")),
    ]);
    assert_eq!(
        risks_of(durable, dead_lettering).await,
        words(["dead_letters_at_most_once", "not_replicated"])
    );
    let transient = QueueDeclareOptions::default();
    assert_eq!(
        risks_of(transient, classic()).await,
        words(["transient", "no_dead_letter", "not_replicated"])
    );
    let auto_delete = QueueDeclareOptions {
        auto_delete: true,
        ..durable
    };
    assert_eq!(
        risks_of(auto_delete, classic()).await,
        words(["auto_delete", "no_dead_letter", "not_replicated"])
    );
    let priorities = table([
        ("x-max-priority", AMQPValue::ShortShortInt(5)),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
    ]);
    assert_eq!(
        risks_of(durable, priorities).await,
        words(["no_dead_letter", "not_replicated"])
    );

    let quorum = ("x-queue-type", text("quorum"));
    assert_eq!(
        risks_of(durable, table([quorum.clone()])).await,
        words(["no_dead_letter"])
    );
    let ttl = table([
        quorum.clone(),
        ("x-message-ttl", number(600_000)),
        ("x-dead-letter-exchange", text("")),
    ]);
    assert_eq!(
        risks_of(durable, ttl).await,
        words(["message_ttl", "dead_letters_at_most_once"])
    );
}

#[tokio::test]
async fn a_dead_letter_queue_that_drops_its_oldest_letters_is_named() {
    let broker = testkit::broker().await;
    let (queue, amqp) = (unique("orders"), broker.amqp().await);
    let bounded = table([
        ("x-queue-type", text("quorum")),
        ("x-max-length", AMQPValue::LongInt(1_000)),
    ]);
    amqp.declare(&format!("{queue}.dead"), bounded).await;
    let logs = testkit::logs::capture();
    let scene = Scene::with(
        broker,
        |_| 200,
        |config| {
            config.dead_letter = format!("{queue}.dead");
        },
    )
    .await;
    let said = logs.matching("WARN");
    assert!(
        said.len() == 1 && said[0].contains("risk=\"drops_head\""),
        "{said:#?}"
    );
    amqp.delete(&format!("{queue}.dead")).await;
    scene.end().await;
}

#[tokio::test]
async fn a_risk_is_said_once_and_not_at_every_connection() {
    let broker = testkit::broker().await;
    let vhost = unique("team");
    let url = broker.add_user(&unique("sidecar"), "secret", &vhost).await;
    let amqp = testkit::Amqp::connect(&url).await;
    amqp.declare_quorum("orders").await;
    let logs = testkit::logs::capture();
    let worker = Worker::start(|_| 200).await;
    let sidecar = Running::start(config(&url, "orders", worker.port())).await;
    for connections in 1..=3 {
        until("it consumes", PATIENCE, || async {
            logs.matching("broker connected").len() == connections
                && sidecar.handle.status().state == State::Consuming
        })
        .await;
        let close = ["close_all_connections", "-p", &vhost, "closed by a test"];
        broker.ctl(&close).await.unwrap();
    }
    assert_eq!(logs.matching("is used as it is, but").len(), 1, "{logs:#?}");
    sidecar.stop().await;
}

#[tokio::test]
async fn an_exclusive_queue_of_another_connection_is_waited_for() {
    let broker = testkit::broker().await;
    let (queue, owner) = (unique("orders"), broker.amqp().await);
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = owner.channel().await;
    channel
        .queue_declare(queue.as_str().into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    let logs = testkit::logs::capture();
    let worker = Worker::start(|_| 200).await;
    let sidecar = Running::start(config(broker.url(), &queue, worker.port())).await;
    until("it says so", PATIENCE, || async {
        !logs
            .matching("an exclusive queue can be used by its own connection only")
            .is_empty()
    })
    .await;
    assert_eq!(sidecar.handle.status().state, State::Connecting);
    owner.close().await;
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp: broker.amqp().await,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    assert_eq!(logs.matching("WARN").len(), 1, "{logs:#?}");
    scene.end().await;
}

#[tokio::test]
async fn two_sidecars_that_start_at_once_share_the_queue() {
    let broker = testkit::broker().await;
    let queue = unique("orders");
    let slow_failing = |request: &Received| {
        let status = if request.header("x-delivery-attempt") == "1" {
            500
        } else {
            200
        };
        Answer::status(status).after(Duration::from_millis(2))
    };
    let workers = [
        Worker::start(slow_failing).await,
        Worker::start(slow_failing).await,
    ];
    let start = |worker: &Worker| Running::start(config(broker.url(), &queue, worker.port()));
    let (first, second) = tokio::join!(start(&workers[0]), start(&workers[1]));
    let amqp = broker.amqp().await;
    until("both consume", PATIENCE, || async {
        amqp.depth(&queue).await == Some((0, 2))
    })
    .await;
    let messages = (0..200).map(|number| (number.to_string(), lapin::BasicProperties::default()));
    amqp.publish_many(&queue, messages).await;
    until("every message is accepted", PATIENCE, || async {
        let accepted = |sidecar: &Running| sidecar.handle.status().counts.accepted;
        accepted(&first) + accepted(&second) == 200
    })
    .await;
    let counts = workers.iter().map(Worker::count).collect::<Vec<_>>();
    assert_eq!(counts.iter().sum::<usize>(), 400);
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    for sidecar in [first, second] {
        assert_eq!(sidecar.handle.status().counts.lost, 0);
        sidecar.stop().await;
    }
    assert_eq!(amqp.depth(&format!("{queue}.dead")).await, Some((0, 0)));
    support::until_ready(&amqp, &queue, 0).await;
}
