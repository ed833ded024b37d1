//! A message that was accepted is not given to the worker again when the broker, which did not hear of it, delivers it
//! again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::types::FieldTable;
use sidecar::Config;
use support::{PATIENCE, Scene};
use testkit::wait::until;
use testkit::worker::{Answer, Gate};
use testkit::{Broker, unique};

fn with_id(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into())
}

/// Publishes while nobody consumes, and makes the broker say that it has delivered the message before.
async fn publish_redelivered(scene: &Scene, body: &str, properties: BasicProperties) {
    scene.sidecar.handle.drain();
    scene.sidecar.handle.drained().await;
    scene.amqp.publish(&scene.queue, body, properties).await;
    scene.until_ready(1).await;
    let channel = scene.amqp.channel().await;
    let queue = scene.queue.as_str();
    let got = channel
        .basic_get(queue.into(), BasicGetOptions::default())
        .await
        .unwrap()
        .unwrap();
    let requeue = BasicNackOptions {
        requeue: true,
        ..BasicNackOptions::default()
    };
    channel
        .basic_nack(got.delivery.delivery_tag, requeue)
        .await
        .unwrap();
    channel.close(200, "done".into()).await.unwrap();
    scene.until_ready(1).await;
    scene.sidecar.handle.resume();
}

async fn scene(change: impl FnOnce(&mut Config)) -> Scene {
    Scene::with(testkit::broker().await, |_| 200, change).await
}

#[tokio::test]
async fn only_what_the_broker_delivers_again_with_the_same_id_and_body_is_known() {
    let scene = scene(|_| {}).await;
    scene.amqp.publish(&scene.queue, "m", with_id("id-1")).await;
    scene.until_accepted(1).await;
    publish_redelivered(&scene, "m", with_id("id-1")).await;
    scene.until_accepted(2).await;
    assert_eq!(scene.worker.count(), 1, "the worker is not called again");
    let page = testkit::http::get(&format!("http://{}/status", scene.sidecar.admin.unwrap()))
        .await
        .unwrap();
    assert!(page.text().contains(r#""accepted":2"#), "{}", page.text());

    publish_redelivered(&scene, "another", with_id("id-1")).await;
    scene.until_accepted(3).await;
    publish_redelivered(&scene, "m", with_id("id-2")).await;
    scene.until_accepted(4).await;
    publish_redelivered(&scene, "m", BasicProperties::default()).await;
    scene.until_accepted(5).await;
    publish_redelivered(&scene, "m", BasicProperties::default()).await;
    scene.until_accepted(6).await;
    // Not delivered before, so somebody wants it done again.
    scene.amqp.publish(&scene.queue, "m", with_id("id-1")).await;
    scene.until_accepted(7).await;
    assert_eq!(scene.worker.count(), 6);
    scene.end().await;
}

#[tokio::test]
async fn what_failed_is_not_remembered_and_neither_is_anything_when_it_is_off() {
    let scene = Scene::new(|request| if request.number == 1 { 422 } else { 200 }).await;
    scene.amqp.publish(&scene.queue, "m", with_id("id-1")).await;
    scene.until_settled(1).await;
    publish_redelivered(&scene, "m", with_id("id-1")).await;
    scene.until_accepted(1).await;
    assert_eq!(scene.worker.count(), 2);
    scene.end().await;

    let scene = self::scene(|config| config.remember_completed = 0).await;
    scene.amqp.publish(&scene.queue, "m", with_id("id-1")).await;
    scene.until_accepted(1).await;
    publish_redelivered(&scene, "m", with_id("id-1")).await;
    scene.until_accepted(2).await;
    assert_eq!(scene.worker.count(), 2);
    scene.end().await;
}

#[tokio::test]
async fn work_that_is_done_while_the_broker_is_away_is_not_done_again() {
    let broker = Broker::start().await;
    let gate = Gate::shut();
    let answer = Answer::ok().body("done").when(&gate);
    let scene = Scene::with(&broker, move |_| answer.clone(), |_| {}).await;
    let answers = unique("answers");
    scene.amqp.declare(&answers, FieldTable::default()).await;
    support::registered(&broker).await;
    scene.amqp.publish(&scene.queue, "m", with_id("id-1")).await;
    let asking = with_id("id-2").with_reply_to(answers.as_str().into());
    scene.amqp.publish(&scene.queue, "m", asking).await;
    scene.worker.wait_for(2).await;
    broker.stop().await;
    gate.open();
    until("both are lost", PATIENCE, || async {
        scene.sidecar.handle.status().counts.lost == 2
    })
    .await;
    broker.start_again().await;
    until("both are accepted", 2 * PATIENCE, || async {
        scene.sidecar.handle.status().counts.accepted == 2
    })
    .await;
    // The one with a caller who had no reply yet is done again, and replied to once.
    let requests = scene.worker.requests();
    let ids: Vec<_> = requests
        .iter()
        .map(|request| request.header("x-message-id"))
        .collect();
    assert_eq!(ids.iter().filter(|id| **id == "id-1").count(), 1, "{ids:?}");
    assert_eq!(ids.iter().filter(|id| **id == "id-2").count(), 2, "{ids:?}");
    let amqp = broker.amqp().await;
    support::until_ready(&amqp, &answers, 1).await;
    scene.sidecar.stop().await;
}
