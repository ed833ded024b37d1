//! Every row of the verdict table against a real RabbitMQ: what the worker answers, and what becomes of the message.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use sidecar::State;
use std::time::Duration;
use support::{PATIENCE, Scene};
use testkit::worker::{Answer, Gate, Received};

/// The attempt that the worker was told.
fn attempt(request: &Received) -> u32 {
    request.header("x-delivery-attempt").parse().unwrap()
}

/// Publishes one message and waits for its end; returns the attempts that the worker saw and the dead letters.
async fn fate_of(
    script: impl Fn(&Received) -> Answer + Send + Sync + 'static,
) -> (Vec<u32>, Vec<testkit::Message>) {
    let scene = Scene::new(script).await;
    scene.publish("m").await;
    scene.until_settled(1).await;
    let attempts = scene.worker.requests().iter().map(attempt).collect();
    let dead = scene.dead_letters().await;
    scene.end().await;
    (attempts, dead)
}

fn reasons(dead: &[testkit::Message]) -> Vec<String> {
    dead.iter()
        .map(|letter| letter.header_text("x-kubedaemon-reason").unwrap())
        .collect()
}

#[tokio::test]
async fn accepted_2xx() {
    for status in [200, 201, 202, 204, 299] {
        let (attempts, dead) = fate_of(move |_| status.into()).await;
        assert_eq!((attempts, dead.len()), (vec![1], 0), "{status}");
    }
}

#[tokio::test]
async fn explicit_verdict_by_header_outranks_the_status() {
    let (attempts, dead) = fate_of(|_| Answer::status(500).header("x-message-verdict", "ack")).await;
    assert_eq!((attempts, dead.len()), (vec![1], 0));
    let (attempts, dead) = fate_of(|_| Answer::ok().header("x-message-verdict", "reject")).await;
    assert_eq!(
        (attempts, reasons(&dead)),
        (vec![1], vec!["explicit_reject".to_owned()])
    );
    let (attempts, dead) = fate_of(|request| {
        let verdict = if attempt(request) == 1 { "retry" } else { "ack" };
        Answer::ok().header("x-message-verdict", verdict)
    })
    .await;
    assert_eq!((attempts, dead.len()), (vec![1, 2], 0));
}

#[tokio::test]
async fn explicit_verdict_by_json_outranks_the_status() {
    let json = |word: &str| {
        Answer::ok()
            .header("content-type", "application/vnd.kubedaemon.verdict+json")
            .body(format!(r#"{{"status":"{word}"}}"#))
    };
    let (attempts, dead) = fate_of(move |_| json("ERR")).await;
    assert_eq!(
        (attempts, reasons(&dead)),
        (vec![1], vec!["explicit_reject".to_owned()])
    );
    let (attempts, dead) =
        fate_of(move |request| json(if attempt(request) == 1 { "RETRY" } else { "SUCCESS" })).await;
    assert_eq!((attempts, dead.len()), (vec![1, 2], 0));
}

#[tokio::test]
async fn rejected_4xx_is_dead_lettered_at_once_with_reason_status_answer_and_journal() {
    for status in [400, 401, 404, 409, 413, 422, 451, 499] {
        let (attempts, dead) = fate_of(move |_| Answer::status(status).body("no such customer")).await;
        assert_eq!(
            (attempts, reasons(&dead)),
            (vec![1], vec!["rejected".to_owned()]),
            "{status}"
        );
        let letter = &dead[0];
        assert_eq!(
            letter.header_number("x-kubedaemon-status"),
            Some(i64::from(status))
        );
        assert_eq!(
            letter.header_text("x-kubedaemon-answer").as_deref(),
            Some("no such customer")
        );
        assert_eq!(letter.header_number("x-kubedaemon-attempts"), Some(1));
        let journal = support::journal(letter);
        assert!(
            journal.contains("reason=rejected") && journal.contains("no such customer"),
            "{journal}"
        );
        assert_eq!(letter.text(), "m");
    }
}

#[tokio::test]
async fn retried_408_425_429_5xx_up_to_max_attempts_then_dead_lettered() {
    for (status, cause) in [
        (408, "request_timeout"),
        (425, "too_early"),
        (429, "too_many_requests"),
        (500, "server_error"),
        (503, "server_error"),
    ] {
        let (attempts, dead) = fate_of(move |_| status.into()).await;
        assert_eq!(
            (attempts, reasons(&dead)),
            (vec![1, 2, 3], vec!["attempts_exhausted".to_owned()]),
            "{status}"
        );
        let journal = support::journal(&dead[0]);
        assert_eq!(journal.matches(cause).count(), 3, "{journal}");
    }
}

#[tokio::test]
async fn retried_after_a_timeout() {
    let broker = testkit::broker().await;
    let scene = Scene::with(
        broker,
        |request| {
            if attempt(request) == 1 {
                Answer::never()
            } else {
                Answer::ok()
            }
        },
        |config| config.timeout = Duration::from_millis(200),
    )
    .await;
    scene.publish("m").await;
    scene.until_settled(1).await;
    assert_eq!(
        scene.worker.requests().iter().map(attempt).collect::<Vec<_>>(),
        [1, 2]
    );
    scene.end().await;
}

#[tokio::test]
async fn retried_after_a_reset_mid_answer() {
    let cut = |request: &Received| match attempt(request) {
        1 => Answer::ok().body("half an ans").cut_short(),
        2 => Answer::reset(),
        _ => Answer::ok(),
    };
    let (attempts, dead) = fate_of(cut).await;
    assert_eq!(dead.len(), 0);
    // A socket that dies before any byte of an answer is tried once more at once when it was a kept one.
    assert_eq!((attempts.first(), attempts.last()), (Some(&1), Some(&3)));
}

#[tokio::test]
async fn throttled_429_and_503_with_retry_after_wait_as_asked_and_count_no_attempt() {
    for status in [429, 503] {
        let scene = Scene::with(
            testkit::broker().await,
            {
                let calls = std::sync::atomic::AtomicU32::new(0);
                move |_| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                    0..4 => Answer::status(status).header("retry-after", "0"),
                    4 => Answer::status(status).header("retry-after", "1"),
                    _ => Answer::ok(),
                }
            },
            |config| config.max_attempts = 1,
        )
        .await;
        scene.publish("m").await;
        scene.until_settled(1).await;
        let requests = scene.worker.requests();
        assert_eq!(
            requests.iter().map(attempt).collect::<Vec<_>>(),
            [1; 6],
            "{status}"
        );
        let waited = requests[5].at.duration_since(requests[4].at);
        assert!(waited >= Duration::from_secs(1), "came back after {waited:?}");
        assert_eq!(scene.dead_letters().await.len(), 0);
        scene.end().await;
    }
}

#[tokio::test]
async fn released_on_connection_refused_and_intake_paused_until_the_worker_answers() {
    let scene = Scene::new(|_| 200).await;
    scene.worker.crash();
    scene.publish("m").await;
    scene.until_state(State::WaitingForWorker).await;
    testkit::wait::until(
        "the message is back in the queue and nobody takes it",
        PATIENCE,
        || async { scene.amqp.depth(&scene.queue).await == Some((1, 0)) },
    )
    .await;
    scene.worker.start_again();
    scene.until_settled(1).await;
    let requests = scene.worker.requests();
    assert_eq!(
        requests.iter().map(attempt).collect::<Vec<_>>(),
        [1],
        "no attempt was burnt"
    );
    assert_eq!(requests[0].header("x-redelivered"), "true");
    assert_eq!(scene.sidecar.handle.status().counts.released, 1);
    scene.end().await;
}

#[tokio::test]
async fn crashed_worker_suspects_are_tried_alone_until_the_killer_is_known_and_innocents_survive() {
    // The worker dies whenever it gets the poison, and only then.
    let gate = Gate::shut();
    let scene = {
        let gate = gate.clone();
        Scene::with(
            testkit::broker().await,
            move |request| {
                if request.text() == "poison" {
                    Answer::never()
                } else {
                    Answer::ok().when(&gate)
                }
            },
            |config| config.max_attempts = 10,
        )
        .await
    };
    for body in ["a", "b", "poison", "c"] {
        scene.publish(body).await;
    }
    scene.worker.wait_for(4).await;
    scene.worker.crash();
    scene.until_state(State::WaitingForWorker).await;
    gate.open();
    scene.worker.start_again();
    // Tried again, alone this time: whoever is with the worker when it dies did it.
    testkit::wait::until("the poison is tried alone", PATIENCE, || async {
        let requests = scene.worker.requests();
        let poisoned = requests.iter().skip(4).any(|request| request.text() == "poison");
        poisoned && scene.worker.in_flight() == 1
    })
    .await;
    scene.worker.crash();
    scene.until_state(State::WaitingForWorker).await;
    scene.worker.start_again();
    scene.until_settled(4).await;
    let dead = scene.dead_letters().await;
    assert_eq!(reasons(&dead), ["crashed_worker"]);
    assert_eq!(dead[0].text(), "poison");
    assert_eq!(scene.sidecar.handle.status().counts.accepted, 3);
    scene.end().await;
}

#[tokio::test]
async fn redirects_are_dead_lettered_and_never_followed() {
    let (attempts, dead) = fate_of(|_| Answer::status(302).header("location", "/elsewhere")).await;
    assert_eq!(
        (attempts, reasons(&dead)),
        (vec![1], vec!["redirected".to_owned()])
    );
}

#[tokio::test]
async fn without_an_address_for_callbacks_deferrals_are_dead_lettered_and_never_accepted() {
    let scene = Scene::with(
        testkit::broker().await,
        |_| Answer::status(202).header("x-defer", "60"),
        |config| config.admin = None,
    )
    .await;
    scene.publish("m").await;
    scene.until_settled(1).await;
    assert_eq!(scene.worker.requests()[0].header("x-callback-url"), "");
    assert_eq!(reasons(&scene.dead_letters().await), ["defer_unsupported"]);
    scene.end().await;
}

#[tokio::test]
async fn while_draining_a_worker_that_goes_away_costs_no_attempt() {
    let scene = Scene::new(|_| Answer::never()).await;
    scene.publish("m").await;
    scene.worker.wait_for(1).await;
    scene.sidecar.handle.drain();
    testkit::wait::until("intake is stopped", PATIENCE, || async {
        scene.sidecar.handle.status().draining
    })
    .await;
    scene.worker.crash();
    testkit::wait::until("the message is released", PATIENCE, || async {
        scene.sidecar.handle.status().counts.released == 1
    })
    .await;
    testkit::wait::until("the message is back in the queue", PATIENCE, || async {
        scene.amqp.depth(&scene.queue).await == Some((1, 0))
    })
    .await;
    scene.amqp.purge(&scene.queue).await;
    scene.end().await;
}
