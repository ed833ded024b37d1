//! Retry and dead-letter copies: everything of the original is kept.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use sidecar::domain::retry;
use std::time::Duration;
use support::Scene;
use testkit::worker::Received;
use testkit::{Message, table, text, unique};

/// Retries wait for exactly this long.
fn every(delay: Duration) -> retry::Policy {
    retry::Policy {
        min: delay,
        max: delay,
    }
}

/// A header of every type that AMQP has and RabbitMQ takes.
fn headers_of_every_type() -> FieldTable {
    let nested = table([("inner", AMQPValue::LongInt(-7))]);
    table([
        ("boolean", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-8)),
        ("u8", AMQPValue::ShortShortUInt(200)),
        ("i16", AMQPValue::ShortInt(-16_000)),
        ("u16", AMQPValue::ShortUInt(60_000)),
        ("i32", AMQPValue::LongInt(-32_000_000)),
        ("u32", AMQPValue::LongUInt(4_000_000_000)),
        ("i64", AMQPValue::LongLongInt(i64::MIN)),
        ("float", AMQPValue::Float(0.5)),
        ("double", AMQPValue::Double(-0.1)),
        (
            "decimal",
            AMQPValue::DecimalValue(DecimalValue {
                scale: 2,
                value: 12_345,
            }),
        ),
        ("text", text("Grüße")),
        ("bytes", AMQPValue::ByteArray(vec![0, 159, 255].into())),
        ("timestamp", AMQPValue::Timestamp(1_763_719_200)),
        ("nothing", AMQPValue::Void),
        (
            "list",
            AMQPValue::FieldArray(FieldArray::from(vec![text("a"), AMQPValue::Boolean(false)])),
        ),
        ("table", AMQPValue::FieldTable(nested)),
    ])
}

fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_message_id("m-1".into())
        .with_correlation_id("c-1".into())
        .with_reply_to("answers".into())
        .with_type("order.created".into())
        .with_app_id("shop".into())
        .with_timestamp(1_763_719_200)
        .with_priority(3)
        .with_delivery_mode(2)
        .with_headers(headers_of_every_type())
}

/// The properties with the headers that are neither ours nor the broker's.
fn of_publisher(message: &Message) -> BasicProperties {
    let headers = message.properties.headers().clone().unwrap_or_default();
    let theirs = headers
        .into_iter()
        .filter(|(name, _)| !name.as_str().starts_with("x-"));
    let mut table = FieldTable::default();
    for (name, value) in theirs {
        table.insert(name.clone(), value.clone());
    }
    message.properties.clone().with_headers(table)
}

#[tokio::test]
async fn a_retry_copy_keeps_body_properties_and_headers() {
    let hour = Duration::from_hours(1);
    let broker = testkit::broker().await;
    let scene = Scene::with(broker, |_| 500, |config| config.retry = every(hour)).await;
    scene.amqp.publish(&scene.queue, [0, 255], properties()).await;
    let retries = format!("{}.retry.1h", scene.queue);
    testkit::wait::until("the copy is there", support::PATIENCE, || async {
        scene.amqp.depth(&retries).await == Some((1, 0))
    })
    .await;
    let copy = scene.amqp.get(&retries).await.unwrap();
    assert_eq!(of_publisher(&copy), properties());
    assert_eq!(copy.body, [0, 255]);
    assert_eq!(copy.header_number("x-kubedaemon-attempts"), Some(1));
    scene.amqp.delete(&retries).await;
    scene.end().await;
}

#[tokio::test]
async fn a_dead_letter_keeps_them_too_and_later_attempts_see_the_same() {
    let scene = Scene::new(|_| 500).await;
    scene.amqp.publish(&scene.queue, "m", properties()).await;
    scene.until_settled(1).await;
    let dead = scene.dead_letters().await.remove(0);
    assert_eq!(of_publisher(&dead), properties());
    let requests = scene.worker.requests();
    assert_eq!(requests.len(), 3);
    let seen = |request: &Received| {
        let mut headers: Vec<_> = request.headers.clone().into_iter().collect();
        // What tells one attempt from another.
        headers.retain(|(name, _)| {
            name.as_ref().is_none_or(|name| {
                !["x-delivery-attempt", "x-deadline", "x-callback-url"].contains(&name.as_str())
            })
        });
        headers
    };
    for request in &requests {
        assert_eq!(seen(request), seen(&requests[0]));
        assert_eq!(request.body, "m");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_retried_message_still_shows_how_it_was_published() {
    let scene = Scene::new(|_| 500).await;
    let exchange = unique("shop");
    let channel = scene.amqp.channel().await;
    let kind = lapin::ExchangeKind::Topic;
    let options = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default())
        .await
        .unwrap();
    channel
        .queue_bind(
            scene.queue.as_str().into(),
            exchange.as_str().into(),
            "order.*".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .basic_publish(
            exchange.as_str().into(),
            "order.new".into(),
            lapin::options::BasicPublishOptions::default(),
            b"m",
            BasicProperties::default(),
        )
        .await
        .unwrap();
    scene.until_settled(1).await;
    for request in scene.worker.requests() {
        assert_eq!(request.header("x-exchange"), exchange);
        assert_eq!(request.header("x-routing-key"), "order.new");
    }
    let dead = scene.dead_letters().await.remove(0);
    assert_eq!(
        dead.header_text("x-kubedaemon-exchange").as_ref(),
        Some(&exchange)
    );
    assert_eq!(
        dead.header_text("x-kubedaemon-routing-key").as_deref(),
        Some("order.new")
    );
    assert_eq!(
        dead.header_text("x-kubedaemon-queue").as_ref(),
        Some(&scene.queue)
    );
    scene.end().await;
}
