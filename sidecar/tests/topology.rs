//! Queues: how they are made, by one sidecar and by several, and what is waited for.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::{Value, json};
use sidecar::State;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Received, Worker};

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
    let mut orders = dead_letters_to("orders.dead");
    orders["x-delivery-limit"] = 1_000_000_000.into();
    let expected = json!({
        "orders": queue(orders),
        "orders.dead": queue(json!({"x-queue-type": "quorum"})),
        "orders.retry.100ms": queue(retry),
    });
    assert_eq!(Value::from(queues(&vhost).await), expected);
    scene.end().await;
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
