//! What the broker tells, and what it refuses to tell.

use crate::{publish, queue, sample_one, source, until_ready};
use autoscaler::domain::{Depth, QueueName, SampleError};
use autoscaler::{DepthSource, PassiveDeclare};
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use std::time::Duration;
use testkit::wait::PATIENCE;
use testkit::{Amqp, broker, table, unique};

async fn filled(amqp: &Amqp, stem: &str, messages: usize) -> String {
    let name = unique(stem);
    amqp.declare(&name, table([])).await;
    publish(amqp, &name, messages).await;
    name
}

#[tokio::test]
async fn ready_messages_and_consumers_are_told_for_each_queue() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let mut source = source(broker);
    let (empty, three) = (filled(&amqp, "empty", 0).await, filled(&amqp, "three", 3).await);
    let quorum = unique("quorum");
    amqp.declare_quorum(&quorum).await;
    publish(&amqp, &quorum, 1).await;
    until_ready(&mut source, &quorum, 1).await;
    let depths = source
        .sample(&[queue(&three), queue(&empty), queue(&quorum), queue(&three)])
        .await;
    let ready: Vec<u64> = depths.into_iter().map(|depth| depth.unwrap().ready).collect();
    assert_eq!(ready, [3, 0, 1, 3]);
    source.close().await;
}

#[tokio::test]
async fn messages_in_flight_are_not_ready() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let mut source = source(broker);
    let name = filled(&amqp, "prefetched", 5).await;
    let channel = amqp.channel().await;
    channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let _consumer = channel
        .basic_consume(name.as_str().into(), "".into(), options, FieldTable::default())
        .await
        .unwrap();
    until_ready(&mut source, &name, 3).await;
    assert_eq!(
        sample_one(&mut source, &name).await,
        Ok(Depth {
            ready: 3,
            consumers: 1
        })
    );
    source.close().await;
}

#[tokio::test]
async fn missing_queues_are_missing_and_the_others_are_told() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let mut source = source(broker);
    let mut queues = Vec::new();
    for number in 0..30_usize {
        let name = if number % 7 == 3 {
            unique("missing")
        } else {
            filled(&amqp, "there", number).await
        };
        queues.push(queue(&name));
    }
    for round in 0..3 {
        let depths = source.sample(&queues).await;
        for (number, (name, depth)) in queues.iter().zip(depths).enumerate() {
            if number % 7 == 3 {
                assert_eq!(
                    depth,
                    Err(SampleError::QueueMissing(name.clone())),
                    "round {round}"
                );
            } else {
                assert_eq!(depth.unwrap().ready, number as u64, "round {round}");
            }
        }
    }
    source.close().await;
}

#[tokio::test]
async fn a_queue_that_appears_is_seen() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let mut source = source(broker);
    let (name, other) = (unique("late"), filled(&amqp, "there", 1).await);
    let both = [queue(&name), queue(&other)];
    assert_eq!(
        source.sample(&both).await[0],
        Err(SampleError::QueueMissing(queue(&name)))
    );
    amqp.declare(&name, table([])).await;
    let begin = tokio::time::Instant::now();
    loop {
        let depths = source.sample(&both).await;
        assert!(depths[1].is_ok(), "{:?}", depths[1]);
        if depths[0].is_ok() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "never seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // And one that vanishes is missing.
    amqp.delete(&name).await;
    let depths = source.sample(&both).await;
    assert_eq!(depths[0], Err(SampleError::QueueMissing(queue(&name))));
    assert!(depths[1].is_ok());
    source.close().await;
}

#[tokio::test]
async fn a_queue_of_another_connection_is_refused_with_a_sentence() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let mut source = source(broker);
    let (name, other) = (unique("exclusive"), filled(&amqp, "there", 2).await);
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = amqp.channel().await;
    channel
        .queue_declare(name.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();
    let depths = source.sample(&[queue(&name), queue(&other)]).await;
    let Err(SampleError::Refused {
        queue: refused,
        cause,
    }) = &depths[0]
    else {
        panic!("{:?}", depths[0])
    };
    assert_eq!(refused.as_str(), name);
    assert!(cause.contains("RESOURCE_LOCKED"), "{cause}");
    assert_eq!(depths[1].as_ref().unwrap().ready, 2);
    source.close().await;
}

#[tokio::test]
async fn impossible_names_hurt_nobody_else() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let mut source = source(broker);
    let there = filled(&amqp, "there", 2).await;
    let depths = source
        .sample(&[queue(""), queue(&there), queue(&"x".repeat(256))])
        .await;
    assert!(
        matches!(depths[0], Err(SampleError::Refused { .. })),
        "{:?}",
        depths[0]
    );
    assert_eq!(depths[1].as_ref().unwrap().ready, 2);
    assert!(
        matches!(depths[2], Err(SampleError::Refused { .. })),
        "{:?}",
        depths[2]
    );
    assert_eq!(source.sample(&[]).await, []);
    source.close().await;
}

#[tokio::test]
async fn hundreds_of_queues_take_one_connection_and_one_channel() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let name = unique("autoscaler-many");
    let mut source = PassiveDeclare::new(broker.url().parse().unwrap(), name.as_str());
    let mut queues: Vec<QueueName> = Vec::new();
    for _ in 0..300 {
        queues.push(queue(&filled(&amqp, "many", 0).await));
    }
    publish(&amqp, queues[299].as_str(), 1).await;
    until_ready(&mut source, queues[299].as_str(), 1).await;
    for _ in 0..5 {
        let depths = source.sample(&queues).await;
        assert!(depths.iter().all(Result::is_ok));
        assert_eq!(depths[299].as_ref().unwrap().ready, 1);
    }
    let connections = broker
        .ctl(&["list_connections", "client_properties", "channels", "-q"])
        .await
        .unwrap();
    let ours: Vec<&str> = connections.lines().filter(|line| line.contains(&name)).collect();
    assert_eq!(ours.len(), 1, "{connections}");
    assert!(ours[0].trim_end().ends_with("\t1"), "{}", ours[0]);
    source.close().await;
}
