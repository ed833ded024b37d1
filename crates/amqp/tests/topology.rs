//! Queues against a real RabbitMQ: made when they are missing, left as they are when they exist.
#![allow(clippy::unwrap_used, reason = "tests")]

use amqp::topology::{QueuePlan, Risk, declare_queue, ensure_queue};
use amqp::version::Intent;
use amqp::{Connection, connect};
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;
use testkit::{table, text, unique};

async fn connection() -> Connection {
    let broker = testkit::broker().await;
    connect(&broker.url().parse().unwrap(), "test").await.unwrap()
}

#[tokio::test]
async fn a_missing_queue_is_made_once_and_has_no_risk() {
    let connection = connection().await;
    let queue = unique("orders");
    for plan in [
        QueuePlan::dead_letter(format!("{queue}.dead")),
        QueuePlan::worker(&queue, format!("{queue}.dead")),
    ] {
        for created in [true, false, false] {
            let ensured = ensure_queue(&connection, &plan).await.unwrap();
            assert_eq!(
                (ensured.created, ensured.risks),
                (created, Vec::new()),
                "{}",
                plan.name()
            );
        }
    }
}

#[tokio::test]
async fn several_callers_at_once_make_one_queue() {
    let connection = connection().await;
    let plan = QueuePlan::worker(unique("orders"), "orders.dead");
    let ensure = || ensure_queue(&connection, &plan);
    let (a, b, c, d) = tokio::join!(ensure(), ensure(), ensure(), ensure());
    for ensured in [a, b, c, d] {
        assert_eq!(ensured.unwrap().risks, Vec::new());
    }
}

#[tokio::test]
async fn an_existing_queue_is_looked_at_and_left_alone() {
    let (connection, amqp) = (connection().await, testkit::broker().await.amqp().await);
    let queue = unique("orders");
    let arguments = || {
        table([
            ("x-queue-type", text("quorum")),
            ("x-max-length", AMQPValue::LongInt(5)),
            ("x-dead-letter-exchange", text("")),
        ])
    };
    amqp.declare(&queue, arguments()).await;
    let plan = QueuePlan::worker(&queue, "orders.dead");
    let ensured = ensure_queue(&connection, &plan).await.unwrap();
    assert!(!ensured.created);
    let version = connection.server().unwrap().rabbitmq().unwrap();
    let default = version
        .default_delivery_limit()
        .map(|limit| Risk::DefaultDeliveryLimit {
            limit,
            giving_back_counts: version.settling(Intent::GiveBack).counts,
        });
    let expected: Vec<Risk> = [Risk::DropsHead("5".to_owned())]
        .into_iter()
        .chain(default)
        .chain([Risk::DeadLettersAtMostOnce])
        .collect();
    assert_eq!(ensured.risks, expected);
    // Would be refused if it were another queue now.
    amqp.declare(&queue, arguments()).await;
    amqp.delete(&queue).await;
}

#[tokio::test]
async fn a_retry_queue_is_declared_again_and_again_and_gives_back() {
    let (connection, amqp) = (connection().await, testkit::broker().await.amqp().await);
    let queue = unique("orders");
    let worker = QueuePlan::worker(&queue, "orders.dead");
    ensure_queue(&connection, &worker).await.unwrap();
    let plan = QueuePlan::retry(&queue, Duration::from_millis(100));
    assert_eq!(plan.name(), format!("{queue}.retry.100ms"));
    for _ in 0..3 {
        declare_queue(&connection, &plan).await.unwrap();
    }
    amqp.publish(plan.name(), "m", lapin::BasicProperties::default())
        .await;
    let back = testkit::wait::until("it is back", Duration::from_secs(30), || amqp.get(&queue)).await;
    assert_eq!(back.text(), "m");
    // The longest that any setting or answer can ask for.
    let day = QueuePlan::retry(&queue, Duration::from_hours(24));
    declare_queue(&connection, &day).await.unwrap();
    for name in [day.name(), plan.name(), &queue] {
        amqp.delete(name).await;
    }
}

#[tokio::test]
async fn what_cannot_be_declared_is_an_error_with_its_word() {
    let (connection, amqp) = (connection().await, testkit::broker().await.amqp().await);
    let queue = unique("orders");
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = amqp.channel().await;
    channel
        .queue_declare(queue.as_str().into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    let plan = QueuePlan::worker(&queue, "orders.dead");
    let locked = ensure_queue(&connection, &plan).await.unwrap_err();
    assert_eq!(locked.kind(), "locked", "{locked}");
    assert!(locked.to_string().contains(&queue), "{locked}");

    let other = unique("orders");
    amqp.declare(&format!("{other}.retry.1s"), table([])).await;
    let differs = declare_queue(&connection, &QueuePlan::retry(&other, Duration::from_secs(1)))
        .await
        .unwrap_err();
    assert_eq!(differs.kind(), "precondition", "{differs}");
    assert!(connection.is_open(), "only a channel was lost");
    amqp.delete(&format!("{other}.retry.1s")).await;
}
