//! Queues that exist already: they are used as they are, and what in them can lose messages is said.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use amqp::version::Version;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use sidecar::State;
use std::collections::BTreeSet;
use support::{PATIENCE, Running, Scene, config};
use testkit::wait::until;
use testkit::worker::Worker;
use testkit::{table, text, unique};

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
}

#[tokio::test]
async fn the_risks_of_a_quorum_queue_are_those_of_its_settings_and_of_the_version() {
    let durable = QueueDeclareOptions::durable();
    let number = AMQPValue::LongInt;
    let quorum = ("x-queue-type", text("quorum"));
    // What the broker itself sets where the queue says nothing.
    let (major, minor, patch) = testkit::broker().await.version();
    let has_default = Version::new(major, minor, patch)
        .default_delivery_limit()
        .is_some();
    let unlimited = |mut words: BTreeSet<String>| {
        words.extend(has_default.then(|| "default_delivery_limit".to_owned()));
        words
    };
    assert_eq!(
        risks_of(durable, table([quorum.clone()])).await,
        unlimited(words(["no_dead_letter"]))
    );
    let limited = table([quorum.clone(), ("x-delivery-limit", number(3))]);
    assert_eq!(
        risks_of(durable, limited).await,
        words(["delivery_limit", "no_dead_letter"])
    );
    let ttl = table([
        quorum.clone(),
        ("x-message-ttl", number(600_000)),
        ("x-dead-letter-exchange", text("")),
    ]);
    assert_eq!(
        risks_of(durable, ttl).await,
        unlimited(words(["message_ttl", "dead_letters_at_most_once"]))
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
    let said = logs.matching("is used as it is, but");
    let each: BTreeSet<_> = said.iter().collect();
    assert_eq!(each.len(), said.len(), "{logs:#?}");
    assert_eq!(logs.matching("risk=\"no_dead_letter\"").len(), 1, "{logs:#?}");
    sidecar.stop().await;
}
