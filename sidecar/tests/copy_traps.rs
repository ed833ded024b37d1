//! Properties on which a broker acts: on a copy they must not make it act again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray};
use sidecar::domain::retry;
use std::time::Duration;
use support::{Scene, config};
use testkit::worker::{Answer, Received, Worker};
use testkit::{table, text, unique};

/// Fails the first attempt, takes the second.
fn second_time(request: &Received) -> u16 {
    if request.header("x-delivery-attempt") == "1" {
        500
    } else {
        200
    }
}

#[tokio::test]
async fn an_expiration_does_not_cut_the_delay_short() {
    let broker = testkit::broker().await;
    let delay = Duration::from_secs(3);
    let scene = Scene::with(broker, second_time, |config| {
        config.retry = retry::Policy {
            min: delay,
            max: delay,
        }
    })
    .await;
    let expires = BasicProperties::default().with_expiration("2000".into());
    scene.amqp.publish(&scene.queue, "m", expires).await;
    scene.until_settled(1).await;
    let requests = scene.worker.requests();
    assert_eq!(requests.len(), 2);
    let waited = requests[1].at.duration_since(requests[0].at);
    assert!(waited >= delay, "came back after {waited:?}");
    for request in requests {
        assert_eq!(request.header("x-expiration"), "2000");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_user_id_that_is_not_ours_does_not_close_the_channel() {
    let broker = testkit::broker().await;
    let (vhost, user) = (unique("team"), unique("sidecar"));
    let url = broker.add_user(&user, "secret", &vhost).await;
    let publisher = ["set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"];
    broker.ctl(&publisher).await.unwrap();
    let worker = Worker::start(|request: &Received| {
        if request.text() == "dead" {
            400
        } else {
            second_time(request)
        }
    })
    .await;
    let queue = unique("orders");
    let sidecar = support::Running::start(config(&url, &queue, worker.port())).await;
    let guest = url.replace(&format!("{user}:secret"), "guest:guest");
    let scene = Scene {
        amqp: testkit::Amqp::connect(&guest).await,
        queue,
        worker,
        sidecar,
    };
    scene.until_state(sidecar::State::Consuming).await;
    let by_guest = BasicProperties::default().with_user_id("guest".into());
    for body in ["retried", "dead"] {
        scene.amqp.publish(&scene.queue, body, by_guest.clone()).await;
    }
    scene.until_settled(2).await;
    let requests = scene.worker.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.header("x-user-id"), "guest");
    }
    let dead = scene.dead_letters().await.remove(0);
    assert_eq!(dead.header_text("x-kubedaemon-user-id").as_deref(), Some("guest"));
    scene.end().await;
}

#[tokio::test]
async fn a_cc_header_routes_once_and_not_with_every_copy() {
    let scene = Scene::new(|_| Answer::status(500)).await;
    let other = unique("audit");
    scene.amqp.declare_quorum(&other).await;
    let cc = AMQPValue::FieldArray(FieldArray::from(vec![text(&other)]));
    let properties = BasicProperties::default().with_headers(table([("CC", cc.clone())]));
    scene.amqp.publish(&scene.queue, "m", properties).await;
    scene.until_settled(1).await;
    let dead = scene.dead_letters().await.remove(0);
    assert_eq!(dead.header("x-kubedaemon-cc"), Some(&cc));
    let seen: Vec<_> = scene.worker.requests();
    assert_eq!(seen.len(), 3);
    for request in seen {
        assert_eq!(request.header("x-amqp-cc"), format!(r#"["{other}"]"#));
    }
    assert_eq!(
        scene.amqp.get_all(&other).await.len(),
        1,
        "only the publisher's own"
    );
    scene.amqp.delete(&other).await;
    scene.end().await;
}

#[tokio::test]
async fn a_history_of_deaths_does_not_make_the_broker_drop_a_retry_as_a_cycle() {
    let scene = Scene::new(second_time).await;
    // As if the message had once expired in this very queue.
    let death = AMQPValue::FieldTable(table([
        ("queue", text(&scene.queue)),
        ("reason", text("expired")),
        ("count", AMQPValue::LongLongInt(1)),
        ("exchange", text("")),
        (
            "routing-keys",
            AMQPValue::FieldArray(FieldArray::from(vec![text(&scene.queue)])),
        ),
        ("time", AMQPValue::Timestamp(1_763_719_200)),
    ]));
    let deaths = AMQPValue::FieldArray(FieldArray::from(vec![death]));
    let properties = BasicProperties::default().with_headers(table([
        ("x-death", deaths),
        ("x-first-death-reason", text("expired")),
    ]));
    scene.amqp.publish(&scene.queue, "m", properties).await;
    scene.until_settled(1).await;
    let requests = scene.worker.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(!request.headers.contains_key("x-amqp-x-death"));
    }
    scene.end().await;
}
