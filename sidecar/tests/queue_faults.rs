//! Queues that go away, that are full, or that are taken away while they are used.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::types::AMQPValue;
use sidecar::State;
use support::{PATIENCE, Scene};
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received};
use testkit::{table, text};

fn first_attempt(request: &Received) -> bool {
    request.header("x-delivery-attempt") == "1"
}

#[tokio::test]
async fn a_queue_that_is_deleted_while_it_is_consumed_is_made_again() {
    let scene = Scene::new(|_| 200).await;
    scene.publish("before").await;
    scene.until_accepted(1).await;
    let logs = testkit::logs::capture();
    for round in 1..=3 {
        scene.amqp.delete(&scene.queue).await;
        until("the queue is back and consumed", PATIENCE, || async {
            scene.amqp.depth(&scene.queue).await == Some((0, 1))
        })
        .await;
        scene.publish("after").await;
        scene.until_accepted(1 + round).await;
    }
    assert_eq!(
        logs.matching("the broker ended the consumer").len(),
        3,
        "{logs:#?}"
    );
    assert_eq!(logs.matching("WARN").len(), 3, "and no other warning: {logs:#?}");
    scene.end().await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_under_messages_in_flight_harms_no_later_message() {
    let gate = Gate::shut();
    let answer = Answer::ok().when(&gate);
    let scene = Scene::new(move |_| answer.clone()).await;
    scene.publish("gone with the queue").await;
    scene.worker.wait_for(1).await;
    scene.amqp.delete(&scene.queue).await;
    until("the queue is back and consumed", PATIENCE, || async {
        scene.amqp.depth(&scene.queue).await == Some((0, 1))
    })
    .await;
    scene.publish("new").await;
    scene.worker.wait_for(2).await;
    gate.open();
    scene.until_settled(2).await;
    assert_eq!(scene.worker.count(), 2);
    scene.end().await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_while_intake_is_stopped_is_made_again_on_resume() {
    let scene = Scene::new(|_| 200).await;
    scene.sidecar.handle.drain();
    scene.sidecar.handle.drained().await;
    scene.amqp.delete(&scene.queue).await;
    scene.sidecar.handle.resume();
    scene.until_state(State::Consuming).await;
    scene.publish("m").await;
    scene.until_accepted(1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_dead_letter_queue_that_is_deleted_is_made_again_and_the_letter_is_kept() {
    let scene = Scene::new(|_| 400).await;
    let dead = format!("{}.dead", scene.queue);
    scene.amqp.delete(&dead).await;
    let logs = testkit::logs::capture();
    scene.publish("m").await;
    scene.until_settled(1).await;
    assert_eq!(scene.dead_letters().await.len(), 1);
    assert_eq!(scene.worker.count(), 1, "the worker is not asked again");
    let said = logs.matching("WARN");
    assert!(
        said.len() == 1 && said[0].contains("no queue takes messages"),
        "{said:#?}"
    );
    scene.end().await;
}

#[tokio::test]
async fn a_retry_queue_that_is_deleted_is_made_again_and_the_retry_is_made() {
    let scene = Scene::new(|request: &Received| if first_attempt(request) { 500 } else { 200 }).await;
    // Both are declared by now, and their declares believed for a while.
    for number in 0..20 {
        scene.publish(&number.to_string()).await;
    }
    scene.until_accepted(20).await;
    for delay in ["100ms", "200ms"] {
        scene.amqp.delete(&format!("{}.retry.{delay}", scene.queue)).await;
    }
    for number in 0..20 {
        scene.publish(&number.to_string()).await;
    }
    scene.until_accepted(40).await;
    assert_eq!(scene.worker.count(), 80);
    scene.end().await;
}

#[tokio::test]
async fn a_full_dead_letter_queue_holds_the_letter_until_there_is_room() {
    let broker = testkit::broker().await;
    let queue = testkit::unique("orders");
    let amqp = broker.amqp().await;
    let dead = format!("{queue}.dead");
    let full = table([
        ("x-queue-type", text("classic")),
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", text("reject-publish")),
    ]);
    amqp.declare(&dead, full).await;
    amqp.publish(&dead, "an old letter", lapin::BasicProperties::default())
        .await;
    let scene = Scene::with(
        broker,
        |request: &Received| if request.text() == "bad" { 400 } else { 200 },
        |config| {
            config.queue.clone_from(&queue);
            config.dead_letter.clone_from(&dead);
        },
    )
    .await;
    let scene = Scene { queue, ..scene };
    let logs = testkit::logs::capture();
    scene.publish("bad").await;
    until("the copy was refused", PATIENCE, || async {
        !logs.matching("is not confirmed").is_empty()
    })
    .await;
    for _ in 0..20 {
        scene.publish("good").await;
    }
    scene.until_accepted(20).await;
    let status = scene.sidecar.handle.status();
    assert_eq!(
        (status.in_flight, status.counts.dead_lettered),
        (1, 0),
        "it is held"
    );
    assert_eq!(scene.worker.count(), 21, "the worker is not asked again");

    assert_eq!(scene.amqp.get(&dead).await.unwrap().text(), "an old letter");
    scene.until_settled(21).await;
    assert_eq!(scene.dead_letters().await.remove(0).text(), "bad");
    assert_eq!(scene.worker.count(), 21);
    let said = logs.matching("WARN");
    assert!(
        said.len() == 1 && said[0].contains("is the queue at its length limit?"),
        "{said:#?}"
    );
    assert_eq!(logs.matching("copies are confirmed again").len(), 1);
    scene.end().await;
}
