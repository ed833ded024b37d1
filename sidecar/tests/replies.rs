//! Replies: what the worker answers reaches whoever waits for it, or they are told why not, before the message is
//! acknowledged.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use sidecar::Config;
use std::time::Duration;
use support::{PATIENCE, Scene};
use testkit::worker::{Answer, Received};
use testkit::{Message, table, text, unique};

fn asking(reply_to: &str) -> BasicProperties {
    BasicProperties::default()
        .with_reply_to(reply_to.into())
        .with_message_id("m-1".into())
}

/// A scene with a queue for answers that a caller has made.
async fn scene<A: Into<Answer>>(script: impl Fn(&Received) -> A + Send + Sync + 'static) -> (Scene, String) {
    scene_with(script, |_| {}).await
}

async fn scene_with<A: Into<Answer>>(
    script: impl Fn(&Received) -> A + Send + Sync + 'static,
    change: impl FnOnce(&mut Config),
) -> (Scene, String) {
    let scene = Scene::with(testkit::broker().await, script, change).await;
    let answers = unique("answers");
    scene.amqp.declare(&answers, FieldTable::default()).await;
    (scene, answers)
}

/// The one message in a queue; waits for it.
async fn only(scene: &Scene, queue: &str) -> Message {
    support::until_ready(&scene.amqp, queue, 1).await;
    let message = scene.amqp.get(queue).await.unwrap();
    scene.amqp.delete(queue).await;
    message
}

fn header(message: &Message, name: &str) -> String {
    message.header_text(name).unwrap_or_default()
}

#[tokio::test]
async fn an_answer_becomes_a_reply_with_everything_that_belongs_to_it() {
    let (scene, answers) = scene(|request| {
        Answer::status(201)
            .header("content-type", "application/json")
            .header("content-encoding", "identity")
            .header("x-amqp-tenant", request.header("x-amqp-tenant"))
            .header("x-amqp-x-kubedaemon-attempts", "7")
            .header("server", "none of theirs")
            .body(r#"{"total": 7}"#)
    })
    .await;
    let properties = asking(&answers)
        .with_correlation_id("c-1".into())
        .with_headers(table([("tenant", text("acme"))]));
    scene.amqp.publish(&scene.queue, "m", properties).await;
    scene.until_accepted(1).await;
    let reply = only(&scene, &answers).await;
    assert_eq!(reply.text(), r#"{"total": 7}"#);
    let properties = &reply.properties;
    let as_text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
    assert_eq!(as_text(properties.correlation_id()).as_deref(), Some("c-1"));
    assert_eq!(as_text(properties.message_id()).as_deref(), Some("m-1.reply"));
    assert_eq!(
        as_text(properties.content_type()).as_deref(),
        Some("application/json")
    );
    assert_eq!(
        as_text(properties.content_encoding()).as_deref(),
        Some("identity")
    );
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(header(&reply, "tenant"), "acme");
    assert_eq!(header(&reply, "x-kubedaemon-verdict"), "accepted");
    assert_eq!(header(&reply, "x-kubedaemon-reason"), "succeeded");
    assert_eq!(header(&reply, "x-kubedaemon-queue"), scene.queue);
    assert_eq!(reply.header_number("x-kubedaemon-status"), Some(201));
    assert_eq!(reply.header_number("x-kubedaemon-headers-dropped"), Some(1));
    assert!(reply.header("server").is_none() && reply.header("x-kubedaemon-attempts").is_none());
    scene.end().await;
}

#[tokio::test]
async fn without_a_correlation_id_the_message_id_tells_and_an_empty_answer_is_one_too() {
    let (scene, answers) = scene(|_| 204).await;
    scene.amqp.publish(&scene.queue, "m", asking(&answers)).await;
    let reply = only(&scene, &answers).await;
    assert_eq!(
        reply.properties.correlation_id().as_ref().unwrap().as_str(),
        "m-1"
    );
    assert_eq!(reply.body, b"");
    scene.until_accepted(1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_direct_reply_to_reaches_the_caller_that_waits_and_nobody_else() {
    let scene = Scene::new(|request| Answer::ok().body(format!("hello {}", request.text()))).await;
    let channel = scene.amqp.channel().await;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let address = "amq.rabbitmq.reply-to";
    let mut replies = channel
        .basic_consume(address.into(), "".into(), options, FieldTable::default())
        .await
        .unwrap();
    for caller in ["ann", "bob"] {
        let properties = asking(address).with_correlation_id(caller.into());
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(
                "".into(),
                scene.queue.as_str().into(),
                options,
                caller.as_bytes(),
                properties,
            )
            .await
            .unwrap();
        let reply = tokio::time::timeout(PATIENCE, replies.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(reply.data, format!("hello {caller}").as_bytes());
        assert_eq!(
            reply.properties.correlation_id().as_ref().unwrap().as_str(),
            caller
        );
    }
    scene.until_accepted(2).await;
    // A caller that has gone holds nothing up.
    let properties = asking(address);
    let options = BasicPublishOptions::default();
    scene.sidecar.handle.drain();
    scene.sidecar.handle.drained().await;
    channel
        .basic_publish("".into(), scene.queue.as_str().into(), options, b"m", properties)
        .await
        .unwrap();
    scene.until_ready(1).await;
    channel.close(200, "gone".into()).await.unwrap();
    scene.sidecar.handle.resume();
    scene.until_accepted(3).await;
    scene.end().await;
}

#[tokio::test]
async fn a_caller_whose_queue_is_gone_holds_nothing_up() {
    let (scene, gone) = scene(|request| if request.text() == "bad" { 422 } else { 200 }).await;
    scene.amqp.delete(&gone).await;
    for body in ["good", "bad"] {
        scene.amqp.publish(&scene.queue, body, asking(&gone)).await;
    }
    scene.until_settled(2).await;
    let counts = scene.sidecar.handle.status().counts;
    assert_eq!((counts.accepted, counts.dead_lettered, counts.lost), (1, 1, 0));
    assert_eq!(scene.dead_letters().await.len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn a_caller_whose_queue_is_full_is_given_up_after_a_while() {
    let (scene, unused) = scene(|_| 200).await;
    scene.amqp.delete(&unused).await;
    let full = unique("full");
    let arguments = [
        ("x-max-length", AMQPValue::LongInt(0)),
        ("x-overflow", text("reject-publish")),
    ];
    scene.amqp.declare(&full, table(arguments)).await;
    scene.amqp.publish(&scene.queue, "m", asking(&full)).await;
    testkit::wait::until("the message is accepted", 2 * PATIENCE, || async {
        scene.sidecar.handle.status().counts.accepted == 1
    })
    .await;
    scene.amqp.delete(&full).await;
    scene.end().await;
}

#[tokio::test]
async fn a_caller_is_told_of_a_dead_letter_and_of_no_retry() {
    let (scene, answers) = scene(|_| Answer::status(500).body("the database is away")).await;
    let properties = asking(&answers).with_correlation_id("c-1".into());
    scene.amqp.publish(&scene.queue, "m", properties).await;
    scene.until_settled(1).await;
    let reply = only(&scene, &answers).await;
    let document: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = serde_json::json!({
        "message_id": "m-1", "reason": "attempts_exhausted", "cause": "server_error", "attempts": 3, "status": 500,
        "answer": "the database is away",
    });
    assert_eq!(document, expected);
    assert_eq!(
        reply.properties.correlation_id().as_ref().unwrap().as_str(),
        "c-1"
    );
    assert_eq!(header(&reply, "x-kubedaemon-verdict"), "dead_letter");
    assert_eq!(header(&reply, "x-kubedaemon-reason"), "attempts_exhausted");
    assert_eq!(scene.dead_letters().await.len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_never_cut() {
    let (scene, answers) = scene_with(
        |request| Answer::ok().body("x".repeat(request.text().parse().unwrap())),
        |config| config.reply_max_bytes = 3 * 1024 * 1024,
    )
    .await;
    let longest = 3 * 1024 * 1024;
    scene
        .amqp
        .publish(&scene.queue, longest.to_string(), asking(&answers))
        .await;
    support::until_ready(&scene.amqp, &answers, 1).await;
    assert_eq!(scene.amqp.get(&answers).await.unwrap().body.len(), longest);
    let too_long = (longest + 1).to_string();
    scene
        .amqp
        .publish(&scene.queue, &too_long, asking(&answers))
        .await;
    let reply = only(&scene, &answers).await;
    assert_eq!(header(&reply, "x-kubedaemon-reason"), "reply_too_long");
    let dead = scene.dead_letters().await;
    assert_eq!(header(&dead[0], "x-kubedaemon-reason"), "reply_too_long");
    // Without anybody who waits an answer may be as long as it likes.
    scene.publish(&too_long).await;
    scene.until_accepted(2).await;
    scene.end().await;
}

#[tokio::test]
async fn a_verdict_document_is_no_reply_but_may_have_one() {
    let (scene, answers) = scene(|request| {
        Answer::status(500)
            .header("content-type", "application/vnd.kubedaemon.verdict+json")
            .body(request.body.clone())
    })
    .await;
    for (document, reply) in [
        (r#"{"status":"ack"}"#, ""),
        (r#"{"status":"ack","reply":[1,"two"]}"#, r#"[1,"two"]"#),
    ] {
        scene.amqp.publish(&scene.queue, document, asking(&answers)).await;
        support::until_ready(&scene.amqp, &answers, 1).await;
        assert_eq!(scene.amqp.get(&answers).await.unwrap().text(), reply);
    }
    scene.amqp.delete(&answers).await;
    scene.until_accepted(2).await;
    scene.end().await;
}

#[tokio::test]
async fn answers_nobody_asked_for_go_to_the_response_queue_which_is_made_and_made_again() {
    let results = unique("results");
    let (scene, answers) = scene_with(
        |request| match request.text().as_str() {
            "bad" => Answer::status(422),
            body => Answer::ok().body(format!("done {body}")),
        },
        |config| config.response_queue = Some(results.clone()),
    )
    .await;
    scene.publish("a").await;
    support::until_ready(&scene.amqp, &results, 1).await;
    let result = scene.amqp.get(&results).await.unwrap();
    assert_eq!(
        (result.text(), *result.properties.delivery_mode()),
        ("done a".into(), Some(2))
    );
    // As we make every queue that is to keep messages; a declare that differed would be refused.
    scene.amqp.declare_quorum(&results).await;

    scene.amqp.publish(&scene.queue, "b", asking(&answers)).await;
    assert_eq!(only(&scene, &answers).await.text(), "done b");
    scene.publish("bad").await;
    scene.until_settled(3).await;
    assert_eq!(scene.amqp.depth(&results).await.unwrap().0, 0);

    scene.amqp.delete(&results).await;
    scene.publish("c").await;
    assert_eq!(only(&scene, &results).await.text(), "done c");
    scene.until_accepted(3).await;
    scene.end().await;
}

#[tokio::test]
async fn a_message_is_not_acknowledged_before_the_response_queue_has_its_answer() {
    let results = unique("results");
    let (scene, unused) = scene_with(
        |_| Answer::ok().body("done"),
        |config| config.response_queue = Some(results.clone()),
    )
    .await;
    scene.amqp.delete(&unused).await;
    // In place of ours, one that takes nothing.
    scene.amqp.delete(&results).await;
    let arguments = [
        ("x-max-length", AMQPValue::LongInt(0)),
        ("x-overflow", text("reject-publish")),
    ];
    scene.amqp.declare(&results, table(arguments)).await;
    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    let begun = tokio::time::Instant::now();
    testkit::wait::until("it was refused several times", PATIENCE, || async {
        assert_eq!(scene.sidecar.handle.status().counts.accepted, 0);
        begun.elapsed() > Duration::from_secs(1)
    })
    .await;
    scene.amqp.delete(&results).await;
    assert_eq!(only(&scene, &results).await.text(), "done");
    scene.until_accepted(1).await;
    assert_eq!(scene.worker.count(), 1, "the worker is not asked again");
    scene.end().await;
}
