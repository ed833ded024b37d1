//! What a worker gets and what it need not have: the request of every message against a real RabbitMQ.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use std::collections::BTreeSet;
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::worker::{Answer, Gate, Received, Worker};
use testkit::{table, text, unique};

#[tokio::test]
async fn a_thousand_messages_from_before_the_start_are_all_delivered_and_none_is_left() {
    let broker = testkit::broker().await;
    let (queue, amqp) = (unique("orders"), broker.amqp().await);
    amqp.declare_quorum(&queue).await;
    let messages = (0..1000).map(|n: u32| (n.to_string(), BasicProperties::default()));
    amqp.publish_many(&queue, messages).await;
    let worker = Worker::start(|_| 204).await;
    let mut config = config(broker.url(), &queue, worker.port());
    config.concurrency = 16;
    let sidecar = Running::start(config).await;
    let scene = Scene {
        queue,
        worker,
        sidecar,
        amqp,
    };
    scene.until_settled(1000).await;
    let bodies: Vec<u32> = scene
        .worker
        .requests()
        .iter()
        .map(|request| request.text().parse().unwrap())
        .collect();
    assert_eq!(bodies.len(), 1000, "nothing is delivered twice");
    assert_eq!(
        bodies.into_iter().collect::<BTreeSet<_>>(),
        (0..1000).collect::<BTreeSet<_>>()
    );
    // Ends with an empty queue: what was unacknowledged would be back in it.
    scene.end().await;
}

#[tokio::test]
async fn the_body_arrives_byte_for_byte_with_its_content_type() {
    let scene = Scene::new(|_| 200).await;
    let binary: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    // The last is larger than any frame that RabbitMQ agrees to by default.
    let bodies = [
        Vec::new(),
        vec![0],
        binary.clone(),
        binary.repeat(1_049),
        binary.repeat(3_000),
    ];
    let types = [
        None,
        Some("text/plain; charset=utf-8"),
        Some("application/octet-stream"),
        Some("application/cloudevents+json"),
        Some("image/png"),
    ];
    for (number, (body, content_type)) in bodies.iter().zip(types).enumerate() {
        let mut properties = BasicProperties::default();
        if let Some(content_type) = content_type {
            properties = properties.with_content_type(content_type.into());
        }
        scene.amqp.publish(&scene.queue, body, properties).await;
        let request = scene.worker.wait_for(number + 1).await.remove(number);
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/message")
        );
        assert!(
            request.body == *body,
            "body {number} of {} bytes differs",
            body.len()
        );
        assert_eq!(request.header("content-length"), body.len().to_string());
        assert_eq!(
            request.header("content-type"),
            content_type.unwrap_or("application/octet-stream")
        );
    }
    scene.end().await;
}

#[tokio::test]
async fn a_worker_that_has_nothing_but_post_message_works() {
    let scene = Scene::new(
        |request: &Received| match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/message") => 200,
            _ => 404,
        },
    )
    .await;
    for _ in 0..20 {
        scene.publish("m").await;
    }
    scene.until_settled(20).await;
    assert_eq!(scene.sidecar.handle.status().counts.accepted, 20);
    assert_eq!(scene.worker.count(), 20, "and it is asked for nothing else");
    scene.end().await;
}

#[tokio::test]
async fn every_property_and_application_header_arrives() {
    let scene = Scene::new(|_| 200).await;
    let headers = table([
        ("tenant", text("acme")),
        ("Retries Left", AMQPValue::LongInt(3)),
        ("x-session-id", text("s-9")),
        (
            "traceparent",
            text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ),
    ]);
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("identity".into())
        .with_message_id("m-1".into())
        .with_correlation_id("c-1".into())
        .with_reply_to("answers".into())
        .with_type("order.created".into())
        .with_app_id("shop".into())
        .with_user_id("guest".into())
        .with_priority(7)
        .with_expiration("600000".into())
        .with_timestamp(1_763_719_200)
        .with_headers(headers);
    scene.amqp.publish(&scene.queue, "{}", properties).await;
    scene.until_settled(1).await;
    let request = scene.worker.requests().remove(0);
    for (name, expected) in [
        ("content-type", "application/json"),
        ("content-encoding", "identity"),
        ("x-message-id", "m-1"),
        ("idempotency-key", "m-1"),
        ("x-correlation-id", "c-1"),
        ("x-reply-to", "answers"),
        ("x-type", "order.created"),
        ("x-app-id", "shop"),
        ("x-user-id", "guest"),
        ("x-priority", "7"),
        ("x-expiration", "600000"),
        ("x-enqueued-at", "2025-11-21T10:00:00Z"),
        ("x-delivery-attempt", "1"),
        ("x-max-attempts", "3"),
        ("x-queue", scene.queue.as_str()),
        ("x-exchange", ""),
        ("x-routing-key", scene.queue.as_str()),
        ("x-redelivered", "false"),
        ("x-amqp-tenant", "acme"),
        ("x-amqp-retries-left", "3"),
        ("x-session-id", "s-9"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        assert!(request.headers.contains_key(name), "{name} is missing");
        assert_eq!(request.header(name), expected, "{name}");
    }
    assert!(request.header("x-deadline") > request.header("x-first-seen"));
    scene.end().await;
}

#[tokio::test]
async fn a_message_without_an_id_gets_one_that_stays_the_same_over_retries() {
    let scene = Scene::new(|_| 500).await;
    scene.publish("m").await;
    scene.until_settled(1).await;
    let requests = scene.worker.requests();
    let id = requests[0].header("x-message-id");
    assert!(!id.is_empty());
    for (request, attempt) in requests.iter().zip(1..) {
        assert_eq!(request.header("x-delivery-attempt"), attempt.to_string());
        assert_eq!(request.header("x-message-id"), id);
        assert_eq!(request.header("idempotency-key"), id);
        assert_eq!(request.header("x-first-seen"), requests[0].header("x-first-seen"));
    }
    assert_eq!(requests.len(), 3);
    let dead = scene.dead_letters().await;
    let kept = dead[0].properties.message_id().as_ref().unwrap();
    assert_eq!(kept.as_str(), id);
    scene.end().await;
}

#[tokio::test]
async fn concurrency_is_respected_and_no_more_than_the_spare_is_taken_beyond_it() {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = Scene::new(move |_| answer.clone()).await;
    for _ in 0..50 {
        scene.publish("m").await;
    }
    scene.worker.wait_for(4).await;
    // Concurrency 4 and a spare of 3.
    testkit::wait::until("the sidecar holds 7", PATIENCE, || async {
        scene.amqp.depth(&scene.queue).await == Some((43, 1))
    })
    .await;
    assert_eq!(scene.worker.in_flight(), 4);
    let until_later = tokio::time::Instant::now() + Duration::from_millis(200);
    while tokio::time::Instant::now() < until_later {
        assert_eq!(scene.amqp.depth(&scene.queue).await, Some((43, 1)));
    }
    gate.open();
    scene.until_settled(50).await;
    assert_eq!((scene.worker.count(), scene.worker.most_in_flight()), (50, 4));
    scene.end().await;
}

#[tokio::test]
async fn with_a_concurrency_of_one_nothing_waits_behind_the_message_in_hand() {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = Scene::with(
        testkit::broker().await,
        move |_| answer.clone(),
        |config| {
            config.concurrency = 1;
        },
    )
    .await;
    for _ in 0..3 {
        scene.publish("m").await;
    }
    scene.worker.wait_for(1).await;
    testkit::wait::until("the others are left for other replicas", PATIENCE, || async {
        scene.amqp.depth(&scene.queue).await == Some((2, 1))
    })
    .await;
    gate.open();
    scene.until_settled(3).await;
    assert_eq!(scene.worker.most_in_flight(), 1);
    scene.end().await;
}

#[tokio::test]
async fn connections_to_the_worker_are_kept() {
    let scene = Scene::new(|_| 200).await;
    let messages = (0..2000).map(|_| ("m", BasicProperties::default()));
    scene.amqp.publish_many(&scene.queue, messages).await;
    scene.until_settled(2000).await;
    let connections = scene.worker.connections();
    // One for each message at a time, and a few to try the port.
    assert!(connections <= 16, "{connections} for 2000 messages, 4 at a time");
    scene.end().await;
}
