//! Brokers of other releases of RabbitMQ, and what differs between releases: see docs/reference/rabbitmq-versions.md.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use lapin::options::{BasicGetOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::fs;
use std::time::Duration;
use testkit::wait::until;
use testkit::{Amqp, Broker, Release, StartError, broker, table, text, unique};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(1);

/// More than RabbitMQ's own limit of 20, where it has one.
const TIMES: usize = 30;

/// A broker of `release`, if this machine has it: see `tools/rabbitmq`.
async fn start(release: Release) -> Option<Broker> {
    match Broker::start_release(release).await {
        Ok(broker) => Some(broker),
        Err(error @ (StartError::NotBuilt(_) | StartError::NotRoot(_))) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

async fn is_a_broker_like_any_other(release: Release, at_least: (u32, u32, u32)) {
    let Some(broker) = start(release).await else {
        return;
    };
    assert!(broker.version() >= at_least, "{:?}", broker.version());
    let told = broker.ctl(&["version"]).await.unwrap();
    let (major, minor, patch) = broker.version();
    assert_eq!(told.trim(), format!("{major}.{minor}.{patch}"));

    let queue = unique("orders");
    let amqp = broker.amqp().await;
    amqp.declare_quorum(&queue).await;
    let messages = (0..100).map(|n: u32| (n.to_string(), BasicProperties::default()));
    amqp.publish_many(&queue, messages).await;
    // A stop first: a node that is killed right after it made a quorum queue may not know it any more.
    broker.stop().await;
    broker.start_again().await;
    broker.kill().await;
    broker.start_again().await;
    let amqp = broker.amqp().await;
    until("the queue is back", PATIENCE, || async {
        amqp.depth(&queue).await == Some((100, 0))
    })
    .await;

    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(&format!("rabbitmq-{release}")),
        "its mounts are its own: {mounts}"
    );
    let dir = broker.dir().to_owned();
    drop(broker);
    assert!(!dir.exists(), "{} is left", dir.display());
}

#[tokio::test]
async fn a_broker_of_trixie_is_a_broker_like_any_other() {
    is_a_broker_like_any_other(Release::Trixie, (4, 0, 0)).await;
}

#[tokio::test]
async fn a_broker_of_sid_is_a_broker_like_any_other() {
    is_a_broker_like_any_other(Release::Sid, (4, 3, 0)).await;
}

/// How a delivery that is not acknowledged goes back.
#[derive(Debug, Clone, Copy)]
enum Way {
    Nack,
    Reject,
    Lost,
}

/// How often a message of a quorum queue with this limit is delivered when every delivery goes back that `way`.
async fn deliveries(way: Way, limit: Option<i64>) -> usize {
    let (amqp, queue) = (broker().await.amqp().await, unique("orders"));
    let mut arguments = table([("x-queue-type", text("quorum"))]);
    if let Some(limit) = limit {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(limit));
    }
    amqp.declare(&queue, arguments).await;
    deliveries_of(&amqp, &queue, way).await
}

/// As [`deliveries`], of an empty queue, which is deleted.
async fn deliveries_of(amqp: &Amqp, queue: &str, way: Way) -> usize {
    amqp.publish(queue, "m", BasicProperties::default()).await;
    let mut count = 0;
    while count < TIMES && give_back(broker().await, queue, way).await {
        count += 1;
    }
    amqp.delete(queue).await;
    count
}

/// Whether there was a delivery to give back.
async fn give_back(broker: &Broker, queue: &str, way: Way) -> bool {
    let connection = Connection::connect(broker.url(), ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    // What went back is there after some milliseconds, if at all.
    let patience = Instant::now() + Duration::from_secs(2);
    let tag = loop {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        match got.unwrap() {
            Some(got) => break got.delivery.delivery_tag,
            None if Instant::now() > patience => return false,
            None => sleep(Duration::from_millis(10)).await,
        }
    };
    let nack = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    match way {
        Way::Nack => channel.basic_nack(tag, nack).await.unwrap(),
        Way::Reject => {
            let again = BasicRejectOptions { requeue: true };
            channel.basic_reject(tag, again).await.unwrap();
        }
        Way::Lost => {}
    }
    connection.close(200, "done".into()).await.unwrap();
    true
}

/// The default limit came with 4.0 and is 20: the 21st time that a delivery goes back the message is dropped, or
/// dead-lettered. From 4.3 on `basic.nack` does not count.
#[tokio::test]
async fn a_quorum_queue_delivers_as_often_as_its_release_allows() {
    let version = broker().await.version();
    let limited = if version < (4, 0, 0) { TIMES } else { 21 };
    let nacked = if version < (4, 3, 0) { limited } else { TIMES };
    assert_eq!(deliveries(Way::Nack, None).await, nacked, "{version:?}");
    assert_eq!(deliveries(Way::Reject, None).await, limited, "{version:?}");
    assert_eq!(deliveries(Way::Lost, None).await, limited, "{version:?}");
}

/// `-1` says so from 4.0 on, and before that it says "never again": it must not be declared where the version is not
/// known. A large number says the same to all of them.
#[tokio::test]
async fn a_large_delivery_limit_is_none_for_every_release() {
    let version = broker().await.version();
    for way in [Way::Nack, Way::Reject, Way::Lost] {
        assert_eq!(
            deliveries(way, Some(1_000_000_000)).await,
            TIMES,
            "{version:?} {way:?}"
        );
    }
    let never_again = if version < (4, 0, 0) { 1 } else { TIMES };
    assert_eq!(
        deliveries(Way::Reject, Some(-1)).await,
        never_again,
        "{version:?}"
    );
}

/// What an operator can do about queues that are there.
#[tokio::test]
async fn a_policy_lifts_the_limit_of_a_queue_that_exists() {
    let broker = broker().await;
    let (amqp, queue) = (broker.amqp().await, unique("orders"));
    amqp.declare_quorum(&queue).await;
    let (pattern, limit) = (format!("^{queue}$"), r#"{"delivery-limit": 1000000000}"#);
    broker
        .ctl(&["set_policy", &queue, &pattern, limit, "--apply-to", "queues"])
        .await
        .unwrap();
    // It reaches the queue a moment later.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(deliveries_of(&amqp, &queue, Way::Reject).await, TIMES);
    broker.ctl(&["clear_policy", &queue]).await.unwrap();
}

/// From 4.1 on a client that offers smaller frames is not let in.
#[tokio::test]
async fn frames_of_8_kib_are_large_enough_for_every_release() {
    let broker = broker().await;
    let connect = async |frame_max: u32| {
        let url = format!("{}?frame_max={frame_max}", broker.url());
        Connection::connect(&url, ConnectionProperties::default()).await
    };
    connect(8192).await.unwrap();
    assert_eq!(connect(4096).await.is_ok(), broker.version() < (4, 1, 0));
}

/// From 4.0 on the broker does not count on what a client publishes again: attempts are counted by ourselves.
#[tokio::test]
async fn deaths_of_a_message_that_is_published_again_are_counted_until_4_0() {
    let broker = broker().await;
    let (amqp, work) = (broker.amqp().await, unique("orders"));
    let wait = format!("{work}.wait");
    amqp.declare_quorum(&work).await;
    let arguments = table([
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(&work)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-message-ttl", AMQPValue::LongLongInt(50)),
        ("x-expires", AMQPValue::LongLongInt(60_000)),
    ]);
    amqp.declare(&wait, arguments).await;
    let mut headers = FieldTable::default();
    for _ in 0..3 {
        let properties = BasicProperties::default().with_headers(headers);
        amqp.publish(&wait, "m", properties).await;
        let back = until("it comes back", PATIENCE, || amqp.get(&work)).await;
        headers = back.properties.headers().clone().unwrap();
    }
    let counted = if broker.version() < (4, 0, 0) { 3 } else { 1 };
    assert_eq!(deaths(&headers), counted, "{headers:?}");
    until("it is gone from where it waited", PATIENCE, || async {
        amqp.depth(&wait).await == Some((0, 0))
    })
    .await;
    amqp.delete(&wait).await;
    amqp.delete(&work).await;
}

/// The count of the first entry of `x-death`.
fn deaths(headers: &FieldTable) -> i64 {
    let Some(AMQPValue::FieldArray(entries)) = headers.inner().get("x-death") else {
        return 0;
    };
    let Some(AMQPValue::FieldTable(entry)) = entries.as_slice().first() else {
        return 0;
    };
    match entry.inner().get("count") {
        Some(AMQPValue::LongLongInt(count)) => *count,
        _ => 0,
    }
}

/// A client alone must not be able to tell: lapin does not say what a broker is.
#[tokio::test]
async fn the_shared_broker_says_its_version() {
    let broker = broker().await;
    assert!(broker.version() >= (3, 10, 0), "{:?}", broker.version());
    Amqp::connect(broker.url()).await;
}
