//! What holds a sidecar up at the broker: each state is said once, shows in a metric, and is over when its cause is.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::options::QueueDeclareOptions;
use lapin::types::AMQPValue;
use sidecar::State;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::logs::Logs;
use testkit::toxic::{Fault, Toxic};
use testkit::wait::until;
use testkit::worker::{Received, Worker};
use testkit::{table, unique};

async fn until_said(logs: &Logs, sentence: &str) {
    until(&format!("it says {sentence:?}"), PATIENCE, || async {
        !logs.matching(sentence).is_empty()
    })
    .await;
}

async fn until_metric(line: &str) {
    until(&format!("the metrics say {line:?}"), PATIENCE, || async {
        ops::metrics::install()
            .render()
            .lines()
            .any(|found| found == line)
    })
    .await;
}

#[tokio::test]
async fn a_queue_recreated_with_other_arguments_is_consumed_and_its_risks_are_named() {
    ops::metrics::install();
    let scene = Scene::new(|_| 200).await;
    scene.publish("before").await;
    scene.until_accepted(1).await;
    let logs = testkit::logs::capture();
    // On one channel, so that the sidecar does not come between.
    let channel = scene.amqp.channel().await;
    let name = scene.queue.as_str();
    let other = table([("x-message-ttl", AMQPValue::LongInt(600_000))]);
    let (_deleted, declared) = tokio::join!(
        channel.queue_delete(name.into(), lapin::options::QueueDeleteOptions::default()),
        channel.queue_declare(name.into(), QueueDeclareOptions::durable(), other),
    );
    declared.unwrap();
    until_said(&logs, "risk=\"message_ttl\"").await;
    scene.until_state(State::Consuming).await;
    scene.publish("after").await;
    scene.until_accepted(2).await;
    assert_eq!(
        logs.matching("the broker ended the consumer").len(),
        1,
        "{logs:#?}"
    );
    until("it was counted", PATIENCE, || async {
        let page = ops::metrics::install().render();
        page.contains(r#"sidecar_consumer_ends_total{cause="cancelled"}"#)
    })
    .await;
    scene.end().await;
}

#[tokio::test]
async fn a_queue_recreated_by_another_for_itself_is_waited_for() {
    ops::metrics::install();
    let scene = Scene::new(|_| 200).await;
    let logs = testkit::logs::capture();
    let other = testkit::broker().await.amqp().await;
    let channel = other.channel().await;
    let name = scene.queue.as_str();
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let (_deleted, declared) = tokio::join!(
        channel.queue_delete(name.into(), lapin::options::QueueDeleteOptions::default()),
        channel.queue_declare(name.into(), options, table([])),
    );
    declared.unwrap();
    until_said(&logs, "an exclusive queue can be used by its own connection only").await;
    until_metric(r#"sidecar_holding{reason="cannot_subscribe"} 1"#).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let said = logs.matching("the queue cannot be consumed");
    assert_eq!(said.len(), 1, "said once: {said:#?}");
    // The queue goes with the connection that owned it.
    other.close().await;
    scene.until_state(State::Consuming).await;
    until_metric(r#"sidecar_holding{reason="cannot_subscribe"} 0"#).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    assert_eq!(logs.matching("broker connection lost").len(), 0, "{logs:#?}");
    scene.end().await;
}

#[tokio::test]
async fn rights_taken_while_it_consumes_are_waited_for() {
    let broker = testkit::broker().await;
    let (user, vhost, queue) = (unique("sidecar"), unique("team"), unique("orders"));
    let url = broker.add_user(&user, "s3cret", &vhost).await;
    let worker = Worker::start(|_| 200).await;
    let scene = Scene {
        sidecar: Running::start(config(&url, &queue, worker.port())).await,
        amqp: testkit::Amqp::connect(&url).await,
        queue,
        worker,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("before").await;
    scene.until_accepted(1).await;
    let logs = testkit::logs::capture();
    let ctl = async |args: &[&str]| broker.ctl(args).await.unwrap();
    ctl(&["clear_permissions", "-p", &vhost, &user]).await;
    ctl(&["close_all_connections", "-p", &vhost, "rights were taken"]).await;
    until_said(&logs, "broker cannot be used").await;
    assert!(!scene.sidecar.handle.status().broker_connected);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let said = logs.matching("broker cannot be used");
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(
        said[0].contains("check user, password, vhost and permissions"),
        "{said:#?}"
    );
    ctl(&["set_permissions", "-p", &vhost, &user, ".*", ".*", ".*"]).await;
    let scene = Scene {
        amqp: testkit::Amqp::connect(&url).await,
        ..scene
    };
    scene.publish("after").await;
    scene.until_accepted(2).await;
    scene.end().await;
}

#[tokio::test]
async fn a_blocked_connection_holds_copies_and_shows() {
    ops::metrics::install();
    let broker = testkit::broker().await;
    let toxic = Toxic::before(broker.port(), fastrand::u64(..));
    let url = broker
        .url()
        .replace(&format!(":{}/", broker.port()), &format!(":{}/", toxic.port()));
    let fails = |request: &Received| {
        if request.header("x-delivery-attempt") == "1" {
            500
        } else {
            200
        }
    };
    let scene = Scene::with(broker, fails, |config| config.broker = url.parse().unwrap()).await;
    let logs = testkit::logs::capture();
    toxic.set(Fault::Blocked("low on memory"));
    until("the connection is blocked", PATIENCE, || async {
        toxic.harmed() == 1
    })
    .await;
    scene.publish("m").await;
    until_said(&logs, "the broker takes no publishes: low on memory").await;
    until_metric(r#"sidecar_holding{reason="blocked"} 1"#).await;
    assert_eq!(scene.worker.count(), 1);
    toxic.heal();
    scene.until_accepted(1).await;
    until_metric(r#"sidecar_holding{reason="blocked"} 0"#).await;
    assert_eq!(scene.worker.count(), 2);
    assert_eq!(logs.matching("broker connection lost").len(), 0, "{logs:#?}");
    scene.end().await;
}
