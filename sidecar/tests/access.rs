//! A broker that refuses: each missing right is said in one sentence, once, and the sidecar goes on when it is given.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use sidecar::State;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::logs::Logs;
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Worker};

/// Waits for a warning with `sentence`, and then for a few more tries, which must not repeat it. RabbitMQ 4.0 and later
/// name the right that is missing before "access to".
async fn said_once(logs: &Logs, sentence: &str) {
    until(&format!("it says {sentence:?}"), PATIENCE, || async {
        !logs.matching(sentence).is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let said = logs.matching("WARN");
    assert_eq!(logs.matching(sentence).len(), 1, "{said:#?}");
    assert!(!logs.text().contains("s3cret"), "no password in {said:#?}");
}

#[tokio::test]
async fn user_vhost_and_rights_may_come_one_after_another() {
    let broker = testkit::broker().await;
    let (user, vhost, queue) = (unique("sidecar"), unique("team"), unique("orders"));
    let ctl = async |args: &[&str]| broker.ctl(args).await.unwrap();
    let allow = async |configure, write, read| {
        ctl(&["set_permissions", "-p", &vhost, &user, configure, write, read]).await;
    };
    let url = format!("amqp://{user}:s3cret@127.0.0.1:{}/{vhost}", broker.port());
    let worker = Worker::start(|_| 200).await;
    let logs = testkit::logs::capture();
    let sidecar = Running::start(config(&url, &queue, worker.port())).await;

    said_once(&logs, "ACCESS_REFUSED - Login was refused").await;
    ctl(&["add_user", &user, "s3cret"]).await;
    said_once(&logs, &format!("NOT_ALLOWED - vhost {vhost} not found")).await;
    ctl(&["add_vhost", &vhost]).await;
    said_once(
        &logs,
        &format!("NOT_ALLOWED - access to vhost '{vhost}' refused for user '{user}'"),
    )
    .await;
    allow("", "", "").await;
    said_once(
        &logs,
        &format!("access to queue '{queue}.dead' in vhost '{vhost}' refused"),
    )
    .await;
    for line in logs.matching("broker cannot be used") {
        assert!(
            line.contains("check user, password, vhost and permissions"),
            "{line}"
        );
    }
    allow(".*", ".*", ".*").await;

    let scene = Scene {
        amqp: testkit::Amqp::connect(&url).await,
        queue,
        worker,
        sidecar,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    scene.end().await;
}

#[tokio::test]
async fn without_the_right_to_read_nothing_is_consumed_until_it_is_given() {
    let broker = testkit::broker().await;
    let (user, vhost, queue) = (unique("sidecar"), unique("team"), unique("orders"));
    let url = broker.add_user(&user, "s3cret", &vhost).await;
    let amqp = testkit::Amqp::connect(&url).await;
    amqp.declare_quorum(&queue).await;
    amqp.declare_quorum(&format!("{queue}.dead")).await;
    let writing = ["set_permissions", "-p", &vhost, &user, ".*", ".*", ""];
    broker.ctl(&writing).await.unwrap();
    let worker = Worker::start(|_| 200).await;
    let logs = testkit::logs::capture();
    let sidecar = Running::start(config(&url, &queue, worker.port())).await;
    amqp.publish(&queue, "m", lapin::BasicProperties::default()).await;

    said_once(
        &logs,
        &format!("access to queue '{queue}' in vhost '{vhost}' refused"),
    )
    .await;
    assert_eq!(logs.matching("broker connected").len(), 1, "{logs:#?}");
    let reading = ["set_permissions", "-p", &vhost, &user, ".*", ".*", ".*"];
    broker.ctl(&reading).await.unwrap();
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp,
    };
    scene.until_accepted(1).await;
    scene.end().await;
}

#[tokio::test]
async fn without_the_right_to_write_copies_wait_until_it_is_given() {
    let broker = testkit::broker().await;
    let (user, vhost, queue) = (unique("sidecar"), unique("team"), unique("orders"));
    let url = broker.add_user(&user, "s3cret", &vhost).await;
    let gate = Gate::shut();
    let worker = Worker::start({
        let gate = gate.clone();
        move |_| Answer::status(400).when(&gate)
    })
    .await;
    let scene = Scene {
        sidecar: Running::start(config(&url, &queue, worker.port())).await,
        amqp: testkit::Amqp::connect(&url).await,
        queue,
        worker,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    // The right is looked up again for a connection that never used it.
    let reading = ["set_permissions", "-p", &vhost, &user, ".*", "", ".*"];
    broker.ctl(&reading).await.unwrap();
    let logs = testkit::logs::capture();
    gate.open();
    said_once(&logs, "access to exchange").await;
    assert_eq!(scene.worker.count(), 1, "the worker is not asked again");
    let all = ["set_permissions", "-p", &vhost, &user, ".*", ".*", ".*"];
    broker.ctl(&all).await.unwrap();
    scene.until_settled(1).await;
    assert_eq!((scene.worker.count(), scene.dead_letters().await.len()), (1, 1));
    scene.end().await;
}
