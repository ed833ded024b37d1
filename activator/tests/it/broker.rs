//! Calls that go to a queue of a real RabbitMQ.

use crate::support::{FakeTargets, Running, captured_logs};
use activator::{Broker, Limits, Routing};
use std::sync::Arc;
use std::time::Duration;
use testkit::http::{self, post};
use testkit::unique;
use testkit::wait::{PATIENCE, until};

/// An activator whose target `orders` has `queue`, and the outbox it publishes through.
async fn over(url: &str, queue: &str) -> (Arc<Broker>, Running) {
    let targets = FakeTargets::at_zero(&["orders"]);
    targets.queue("orders", Some(queue));
    let outbox = Arc::new(Broker::new(url.parse().unwrap(), "activator under test"));
    let limits = Limits {
        publish_timeout: Duration::from_secs(5),
        ..Limits::default()
    };
    let running = Running::start_with(&targets, limits, Routing::ByName, Arc::clone(&outbox) as _).await;
    (outbox, running)
}

async fn call(running: &Running, key: &str) -> http::Response {
    post(
        &running.url("/async/orders/a?b=c"),
        &[("idempotency-key", key), ("content-type", "text/plain")],
        key.to_owned(),
    )
    .await
    .unwrap()
}

fn reason(answer: &http::Response) -> String {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_202_is_a_message_in_the_queue() {
    let broker = testkit::broker().await;
    let (amqp, queue) = (broker.amqp().await, unique("calls"));
    amqp.declare_quorum(&queue).await;
    let (outbox, running) = over(broker.url(), &queue).await;
    let answer = call(&running, "call-1").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-call-id")),
        (202, "call-1"),
        "{}",
        answer.text()
    );
    let messages = amqp.get_all(&queue).await;
    assert_eq!(messages.len(), 1);
    let message = &messages[0];
    assert_eq!(message.text(), "call-1");
    let properties = &message.properties;
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "call-1");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "text/plain");
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert!(properties.timestamp().unwrap() > 1_700_000_000);
    assert_eq!(message.header_text("x-forwarded-uri").as_deref(), Some("/a?b=c"));
    amqp.delete(&queue).await;
    outbox.close().await;
}

#[tokio::test]
async fn many_calls_at_once_share_a_connection_and_all_arrive() {
    let broker = testkit::broker().await;
    let (amqp, queue) = (broker.amqp().await, unique("calls"));
    amqp.declare_quorum(&queue).await;
    let (outbox, running) = over(broker.url(), &queue).await;
    let running = Arc::new(running);
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let running = Arc::clone(&running);
            tokio::spawn(async move { call(&running, &format!("call-{n:03}")).await })
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status.as_u16(), 202, "{}", answer.text());
    }
    let mut bodies: Vec<String> = amqp
        .get_all(&queue)
        .await
        .iter()
        .map(testkit::Message::text)
        .collect();
    bodies.sort();
    assert_eq!(
        bodies,
        (0..100).map(|n| format!("call-{n:03}")).collect::<Vec<_>>()
    );
    amqp.delete(&queue).await;
    outbox.close().await;
}

#[tokio::test]
async fn a_queue_that_is_missing_is_503_and_the_connection_goes_on() {
    let broker = testkit::broker().await;
    let (amqp, queue) = (broker.amqp().await, unique("calls"));
    let (outbox, running) = over(broker.url(), &queue).await;
    let answer = call(&running, "before").await;
    assert_eq!(
        (answer.status.as_u16(), reason(&answer).as_str()),
        (503, "broker_unavailable")
    );
    assert!(answer.text().contains(&queue), "{}", answer.text());
    amqp.declare_quorum(&queue).await;
    assert_eq!(call(&running, "after").await.status.as_u16(), 202);
    amqp.delete(&queue).await;
    outbox.close().await;
}

/// A full queue that refuses what comes is not one that has taken it.
#[tokio::test]
async fn a_queue_that_refuses_is_503() {
    let broker = testkit::broker().await;
    let (amqp, queue) = (broker.amqp().await, unique("calls"));
    let arguments = testkit::table([
        ("x-max-length", lapin::types::AMQPValue::LongInt(1)),
        ("x-overflow", testkit::text("reject-publish")),
    ]);
    amqp.declare(&queue, arguments).await;
    let (outbox, running) = over(broker.url(), &queue).await;
    let mut statuses = Vec::new();
    for n in 0..5 {
        statuses.push(call(&running, &n.to_string()).await.status.as_u16());
    }
    assert_eq!(statuses[0], 202);
    let confirmed = statuses.iter().filter(|status| **status == 202).count();
    assert!(statuses.contains(&503), "{statuses:?}");
    assert_eq!(amqp.get_all(&queue).await.len(), confirmed, "{statuses:?}");
    amqp.delete(&queue).await;
    outbox.close().await;
}

#[tokio::test]
async fn no_broker_is_503_and_says_so_once() {
    let logs = captured_logs();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (_outbox, running) = over(&format!("amqp://guest:s3cret@{closed}"), "calls").await;
    for _ in 0..10 {
        let answer = call(&running, "k").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, "5"),
            "{}",
            answer.text()
        );
        assert_eq!(reason(&answer), "broker_unavailable");
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
    }
    assert_eq!(logs.matching("the broker is away").len(), 1, "{logs:?}");
    assert!(!logs.text().contains("s3cret"), "{logs:?}");
}

/// Whatever happens to the broker: every 202 is a message in the queue, and calls are taken again once it is back.
#[tokio::test]
async fn a_broker_that_stops_never_loses_a_202() {
    let logs = captured_logs();
    let broker = testkit::Broker::start().await;
    let queue = unique("calls");
    let amqp = broker.amqp().await;
    amqp.declare_quorum(&queue).await;
    // RabbitMQ 3.10 writes down which quorum queues a node has only every three minutes: one that is younger would
    // come back from the kill empty and without a leader.
    broker
        .ctl(&["eval", "[dets:sync(Table) || Table <- dets:all()]."])
        .await
        .unwrap();
    let (outbox, running) = over(broker.url(), &queue).await;
    assert_eq!(call(&running, "first").await.status.as_u16(), 202);
    let mut confirmed = vec!["first".to_owned()];

    let running = Arc::new(running);
    let storm = tokio::spawn({
        let running = Arc::clone(&running);
        async move {
            let mut confirmed = Vec::new();
            // Until the broker has been away for a while: what is confirmed on the way down counts.
            let mut refused = 0;
            for n in 0.. {
                let key = format!("storm-{n}");
                match call(&running, &key).await.status.as_u16() {
                    202 => confirmed.push(key),
                    status => {
                        assert_eq!(status, 503);
                        refused += 1;
                    }
                }
                if refused > 20 {
                    break;
                }
            }
            confirmed
        }
    });
    broker.kill().await;
    confirmed.extend(storm.await.unwrap());
    let answer = call(&running, "while away").await;
    assert_eq!(answer.status.as_u16(), 503);
    broker.start_again().await;
    until("calls are taken again", PATIENCE * 4, || async {
        call(&running, "again").await.status.as_u16() == 202
    })
    .await;
    assert_eq!(logs.matching("the broker is away").len(), 1, "{logs:?}");
    assert_eq!(logs.matching("connected to the broker").len(), 2, "{logs:?}");
    let amqp = broker.amqp().await;
    let found: Vec<String> = amqp
        .get_all(&queue)
        .await
        .iter()
        .map(testkit::Message::text)
        .collect();
    for key in &confirmed {
        assert!(
            found.contains(key),
            "{key} was confirmed and is not in the queue: {found:?}"
        );
    }
    outbox.close().await;
}
