//! Temporary experiment.
use lapin::types::AMQPValue;
use lapin::BasicProperties;
use std::time::Duration;
use testkit::{Amqp, Broker, table, text};

fn retry_args(target: &str, ttl: i64, expires: i64) -> lapin::types::FieldTable {
    table([
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(target)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-message-ttl", AMQPValue::LongLongInt(ttl)),
        ("x-expires", AMQPValue::LongLongInt(expires)),
    ])
}

async fn show(amqp: &Amqp, when: &str, queues: &[&str]) {
    for q in queues { println!("{when}: {q} = {:?}", amqp.depth(q).await); }
}

#[tokio::test]
async fn stopped_broker() {
    let broker = Broker::start().await;
    let amqp = broker.amqp().await;
    amqp.declare_quorum("work").await;
    amqp.declare("retry", retry_args("work", 3000, 8000)).await;
    amqp.declare("long", retry_args("work", 20_000, 25_000)).await;
    for i in 0..5 { amqp.publish("retry", format!("m{i}"), BasicProperties::default()).await; }
    for i in 0..5 { amqp.publish("long", format!("l{i}"), BasicProperties::default()).await; }
    show(&amqp, "before stop", &["work", "retry", "long"]).await;
    broker.stop().await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    broker.start_again().await;
    let amqp = broker.amqp().await;
    for s in 0..8 {
        show(&amqp, &format!("{s} s after start"), &["work"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    show(&amqp, "28 s after start", &["work", "retry", "long"]).await;
}

#[tokio::test]
async fn full_target() {
    let broker = Broker::start().await;
    let amqp = broker.amqp().await;
    amqp.declare("work", table([("x-queue-type", text("quorum")), ("x-max-length", AMQPValue::LongLongInt(1)), ("x-overflow", text("reject-publish"))])).await;
    amqp.publish("work", "first", BasicProperties::default()).await;
    amqp.publish("work", "second", BasicProperties::default()).await;
    amqp.declare("retry", retry_args("work", 1000, 8000)).await;
    for i in 0..5 { amqp.publish("retry", format!("m{i}"), BasicProperties::default()).await; }
    show(&amqp, "published", &["work"]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    show(&amqp, "after 30 s", &["work", "retry"]).await;
    println!("{:?}", amqp.get_all("work").await.iter().map(testkit::Message::text).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("{:?}", amqp.get_all("work").await.iter().map(testkit::Message::text).collect::<Vec<_>>());
    show(&amqp, "end", &["work", "retry"]).await;
}
