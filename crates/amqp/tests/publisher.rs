//! Publishing against a real RabbitMQ: what is confirmed is there, and what is not is said.
#![allow(clippy::unwrap_used, reason = "tests")]

use amqp::{PublishError, Publisher, connect};
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use std::sync::Arc;
use testkit::{Amqp, table, text, unique};

async fn publisher() -> (Publisher, Amqp) {
    let broker = testkit::broker().await;
    let connection = connect(&broker.url().parse().unwrap(), "test").await.unwrap();
    (
        Publisher::open(Arc::new(connection)).await.unwrap(),
        broker.amqp().await,
    )
}

async fn publish(publisher: &Publisher, exchange: &str, key: &str, body: &[u8]) -> Result<(), PublishError> {
    publisher
        .publish(exchange, key, BasicProperties::default(), body)
        .await
}

#[tokio::test]
async fn what_is_confirmed_is_in_the_queue() {
    let (publisher, amqp) = publisher().await;
    let queue = unique("orders");
    amqp.declare_quorum(&queue).await;
    // Also a body of many frames.
    let large = vec![7; 200_000];
    publish(&publisher, "", &queue, b"").await.unwrap();
    publish(&publisher, "", &queue, &large).await.unwrap();
    let bodies: Vec<_> = amqp
        .get_all(&queue)
        .await
        .into_iter()
        .map(|message| message.body)
        .collect();
    assert_eq!(bodies, [Vec::new(), large]);
    amqp.delete(&queue).await;
}

#[tokio::test]
async fn a_message_that_no_queue_takes_is_unroutable() {
    let (publisher, _amqp) = publisher().await;
    let queue = unique("missing");
    let error = publish(&publisher, "", &queue, b"m").await.unwrap_err();
    assert_eq!(error.kind(), "unroutable", "{error}");
    assert!(error.to_string().contains(&queue), "{error}");
    assert!(publisher.is_open());
}

#[tokio::test]
async fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
    let (publisher, amqp) = publisher().await;
    let queue = unique("orders");
    let one = table([
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", text("reject-publish")),
    ]);
    amqp.declare(&queue, one).await;
    publish(&publisher, "", &queue, b"first").await.unwrap();
    let error = publish(&publisher, "", &queue, b"second").await.unwrap_err();
    assert_eq!(error.kind(), "refused", "{error}");
    assert_eq!(amqp.get_all(&queue).await.len(), 1);
    publish(&publisher, "", &queue, b"second").await.unwrap();
    amqp.delete(&queue).await;
}

/// The broker tells a queue's name before the queue has a leader; what is published in between is refused. A few in a
/// hundred meet that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_takes_messages_while_it_is_being_made() {
    let (publisher, amqp) = publisher().await;
    let maker = Arc::new(testkit::broker().await.amqp().await);
    for _ in 0..100 {
        let queue = unique("orders");
        let making = tokio::spawn({
            let (maker, queue) = (Arc::clone(&maker), queue.clone());
            async move { maker.declare_quorum(&queue).await }
        });
        // Not `until`, which pauses: the moment is short.
        while amqp.depth(&queue).await.is_none() {}
        publisher
            .publish_once_there(&queue, BasicProperties::default(), b"early")
            .await
            .unwrap();
        making.await.unwrap();
        amqp.delete(&queue).await;
    }
}

#[tokio::test]
async fn a_fault_of_one_message_costs_its_channel_and_the_next_one_gets_another() {
    let (publisher, amqp) = publisher().await;
    let queue = unique("orders");
    amqp.declare_quorum(&queue).await;
    for _ in 0..3 {
        let error = publish(&publisher, "no-such-exchange", &queue, b"m")
            .await
            .unwrap_err();
        assert_eq!(error.kind(), "lost", "{error}");
        assert!(error.to_string().contains("no-such-exchange"), "{error}");
        publish(&publisher, "", &queue, b"m").await.unwrap();
    }
    assert_eq!(amqp.get_all(&queue).await.len(), 3);
    amqp.delete(&queue).await;
}

#[tokio::test]
async fn many_at_once_are_each_confirmed_by_themselves() {
    let (publisher, amqp) = publisher().await;
    let (queue, missing) = (unique("orders"), unique("missing"));
    amqp.declare_quorum(&queue).await;
    let publisher = Arc::new(publisher);
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let (publisher, key) = (
                Arc::clone(&publisher),
                if number % 10 == 0 {
                    missing.clone()
                } else {
                    queue.clone()
                },
            );
            tokio::spawn(async move { publish(&publisher, "", &key, b"m").await })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let kind = task.await.unwrap().map_err(|error| error.kind());
        assert_eq!(
            kind,
            if number % 10 == 0 {
                Err("unroutable")
            } else {
                Ok(())
            },
            "{number}"
        );
    }
    assert_eq!(amqp.get_all(&queue).await.len(), 180);
    amqp.delete(&queue).await;
}
