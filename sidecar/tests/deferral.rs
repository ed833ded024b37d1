//! Deferred messages: 202 with `X-Defer` now, the verdict later, through the callback.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use http::StatusCode;
use lapin::BasicProperties;
use lapin::types::FieldTable;
use sidecar::{Config, State};
use std::time::Duration;
use support::{PATIENCE, Running, Scene, config};
use testkit::http::post;
use testkit::unique;
use testkit::wait::until;
use testkit::worker::{Answer, Gate, Received, Worker};

fn deferred() -> Answer {
    Answer::status(202).header("x-defer", "600")
}

/// Where the worker settles a message.
fn done(request: &Received) -> String {
    format!("{}/done", request.header("x-callback-url"))
}

async fn settle(request: &Received, headers: &[(&str, &str)], body: &str) -> (StatusCode, String) {
    let answer = post(&done(request), headers, body.to_owned()).await.unwrap();
    (answer.status, answer.text().trim().to_owned())
}

/// A scene whose worker gets one message at a time.
async fn one_at_a_time<A: Into<Answer>>(
    script: impl Fn(&Received) -> A + Send + Sync + 'static,
    change: impl FnOnce(&mut Config),
) -> Scene {
    Scene::with(testkit::broker().await, script, |config| {
        config.concurrency = 1;
        change(config);
    })
    .await
}

#[tokio::test]
async fn a_deferred_message_keeps_its_slot_until_the_worker_has_settled_it() {
    let scene = one_at_a_time(|_| deferred(), |_| {}).await;
    for body in ["a", "b"] {
        scene.publish(body).await;
    }
    let first = scene.worker.wait_for(1).await.remove(0);
    scene.until_ready(1).await;
    assert_eq!(scene.sidecar.handle.status().in_flight, 1);
    let accepted = r#"{"reason":"succeeded","verdict":"accepted"}"#.to_owned();
    assert_eq!(settle(&first, &[], "").await, (StatusCode::OK, accepted.clone()));
    let (status, sentence) = settle(&first, &[], "").await;
    assert_eq!(status, StatusCode::CONFLICT, "{sentence}");
    let second = scene.worker.wait_for(2).await.remove(1);
    assert_eq!(second.text(), "b");
    assert_eq!(settle(&second, &[], "").await, (StatusCode::OK, accepted));
    scene.until_accepted(2).await;
    let unknown = format!("http://{}/callback/x-1/done", scene.sidecar.admin.unwrap());
    assert_eq!(
        post(&unknown, &[], "").await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    let wrong = testkit::http::get(&done(&first)).await.unwrap();
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    let page = post(&done(&first), &[("origin", "https://example.org")], "")
        .await
        .unwrap();
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    scene.end().await;
}

#[tokio::test]
async fn the_call_has_the_words_of_an_answer_and_its_body_is_the_reply() {
    let scene = one_at_a_time(|_| deferred(), |_| {}).await;
    let answers = unique("answers");
    scene.amqp.declare(&answers, FieldTable::default()).await;
    let asking = BasicProperties::default().with_reply_to(answers.as_str().into());
    scene.amqp.publish(&scene.queue, "m", asking).await;
    let first = scene.worker.wait_for(1).await.remove(0);
    let retry = [("x-message-verdict", "retry")];
    let (status, said) = settle(&first, &retry, "").await;
    assert_eq!(
        (status, said.contains(r#""verdict":"retry""#)),
        (StatusCode::OK, true),
        "{said}"
    );
    let second = scene.worker.wait_for(2).await.remove(1);
    assert_eq!(second.header("x-delivery-attempt"), "2");
    let html = [("content-type", "text/html")];
    assert_eq!(settle(&second, &html, "<p>done").await.0, StatusCode::OK);
    scene.until_accepted(1).await;
    let reply = scene.amqp.get(&answers).await.unwrap();
    assert_eq!(
        reply.text(),
        "<p>done",
        "it was there before the call was answered"
    );
    assert_eq!(
        reply.properties.content_type().as_ref().unwrap().as_str(),
        "text/html"
    );

    scene.publish("m").await;
    let third = scene.worker.wait_for(3).await.remove(2);
    let document = [("content-type", "application/vnd.kubedaemon.verdict+json")];
    assert_eq!(
        settle(&third, &document, r#"{"status":"reject"}"#).await.0,
        StatusCode::OK
    );
    assert_eq!(scene.dead_letters().await.len(), 1);
    scene.amqp.delete(&answers).await;
    scene.end().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_settles_nothing() {
    let scene = one_at_a_time(|_| deferred(), |config| config.reply_max_bytes = 1).await;
    scene.publish("m").await;
    let request = scene.worker.wait_for(1).await.remove(0);
    let (status, sentence) = settle(&request, &[], &"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{sentence}");
    assert_eq!(settle(&request, &[], "").await.0, StatusCode::OK);
    scene.until_accepted(1).await;
    scene.end().await;
}

#[tokio::test]
async fn what_is_not_settled_in_time_is_a_failed_attempt() {
    let asked = Scene::new(|_| Answer::status(202).header("x-defer", "0")).await;
    // Whatever the worker asks for, it has no more than it may have.
    let capped = one_at_a_time(
        |_| Answer::status(202).header("x-defer", "forever"),
        |config| config.max_defer = Duration::from_millis(200),
    )
    .await;
    for scene in [asked, capped] {
        scene.publish("m").await;
        scene.until_settled(1).await;
        let requests = scene.worker.requests();
        let attempts: Vec<_> = requests
            .iter()
            .map(|request| request.header("x-delivery-attempt"))
            .collect();
        assert_eq!(attempts, ["1", "2", "3"]);
        let dead = scene.dead_letters().await.remove(0);
        assert_eq!(
            dead.header_text("x-kubedaemon-reason").unwrap(),
            "attempts_exhausted"
        );
        assert_eq!(support::journal(&dead).matches("reason=defer_expired").count(), 3);
        let (status, sentence) = settle(&requests[0], &[], "").await;
        assert_eq!(status, StatusCode::CONFLICT, "{sentence}");
        scene.end().await;
    }
}

#[tokio::test]
async fn a_call_may_come_before_the_answer_and_the_answer_may_still_say_otherwise() {
    for (answer, expected) in [(deferred(), StatusCode::OK), (Answer::ok(), StatusCode::CONFLICT)] {
        let gate = Gate::shut();
        let answer = answer.when(&gate);
        let scene = one_at_a_time(move |_| answer.clone(), |_| {}).await;
        scene.publish("m").await;
        let request = scene.worker.wait_for(1).await.remove(0);
        let calling = tokio::spawn(async move { settle(&request, &[], "").await });
        tokio::task::yield_now().await;
        gate.open();
        assert_eq!(calling.await.unwrap().0, expected);
        scene.until_accepted(1).await;
        assert_eq!(scene.worker.count(), 1);
        scene.end().await;
    }
}

#[tokio::test]
async fn a_message_whose_connection_is_lost_is_gone_and_comes_again() {
    let broker = testkit::broker().await;
    let vhost = unique("team");
    let address = broker.add_user(&unique("sidecar"), "secret", &vhost).await;
    let worker = Worker::start(|_| deferred()).await;
    let queue = unique("orders");
    let scene = Scene {
        sidecar: Running::start(config(&address, &queue, worker.port())).await,
        amqp: testkit::Amqp::connect(&address).await,
        queue,
        worker,
    };
    scene.until_state(State::Consuming).await;
    scene.publish("m").await;
    let first = scene.worker.wait_for(1).await.remove(0);
    // Deferred, and not only on the way to it: the worker has nothing any more.
    until("the worker has answered", PATIENCE, || async {
        scene.worker.in_flight() == 0
    })
    .await;
    let close = ["close_all_connections", "-p", &vhost, "closed by a test"];
    broker.ctl(&close).await.unwrap();
    let second = scene.worker.wait_for(2).await.remove(1);
    assert_eq!(
        (
            second.header("x-redelivered"),
            second.header("x-delivery-attempt")
        ),
        ("true", "1")
    );
    let (status, sentence) = settle(&first, &[], "").await;
    assert_eq!(status, StatusCode::GONE, "{sentence}");
    assert_eq!(settle(&second, &[], "").await.0, StatusCode::OK);
    scene.until_accepted(1).await;
    assert_eq!(scene.sidecar.handle.status().counts.lost, 1);
    assert_eq!(scene.sidecar.handle.status().in_flight, 0);
    scene.sidecar.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_with_deferred_messages_makes_suspects_of_them() {
    let scene = Scene::new(|_| deferred()).await;
    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    until("the worker has answered", PATIENCE, || async {
        scene.worker.in_flight() == 0
    })
    .await;
    scene.worker.crash();
    scene.until_state(State::WaitingForWorker).await;
    scene.worker.start_again();
    let again = scene.worker.wait_for(2).await.remove(1);
    assert_eq!(again.header("x-delivery-attempt"), "2");
    assert_eq!(settle(&again, &[], "").await.0, StatusCode::OK);
    scene.until_accepted(1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_drain_waits_for_what_is_deferred() {
    let scene = Scene::new(|_| deferred()).await;
    scene.publish("m").await;
    let request = scene.worker.wait_for(1).await.remove(0);
    scene.sidecar.handle.drain();
    scene.until_state(State::Draining).await;
    assert_eq!(scene.sidecar.handle.status().in_flight, 1);
    assert_eq!(settle(&request, &[], "").await.0, StatusCode::OK);
    scene.until_state(State::Drained).await;
    scene.end().await;
}

#[tokio::test]
async fn without_an_admin_port_callbacks_may_have_one_of_their_own_and_nothing_else_is_there() {
    let scene = one_at_a_time(
        |_| deferred(),
        |config| {
            config.admin = None;
            config.callback_port = true;
        },
    )
    .await;
    scene.publish("m").await;
    let request = scene.worker.wait_for(1).await.remove(0);
    let url = request.header("x-callback-url");
    let base = &url[..url.find("/callback").unwrap()];
    for path in ["/status", "/drain"] {
        let answer = post(&format!("{base}{path}"), &[], "").await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(settle(&request, &[], "").await.0, StatusCode::OK);
    scene.until_accepted(1).await;
    scene.end().await;
}
