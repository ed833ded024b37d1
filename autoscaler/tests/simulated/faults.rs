//! What the autoscaler does not know, and what does not obey it.

use crate::stage::{Fault, Stage};
use crate::world::policy;
use autoscaler::domain::{Calls, Decision, HoldReason, QueueName, SampleError};

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_for_minutes_changes_nothing() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.world().publish(30, 1000);
    stage.until("the work is done", |world| world.done == 30).await;
    assert_eq!(stage.snapshot().active(), 3);
    stage.world().is_broker_up = false;
    for _ in 0..300 {
        stage.pass(1).await;
        assert_eq!(stage.snapshot().active(), 3);
    }
    let report = stage.report();
    assert_eq!(
        report.decision,
        Decision::Hold {
            reason: HoldReason::SampleUnknown
        }
    );
    assert_eq!(report.sentence, "holding at 3 replicas: the broker is away");
    stage.world().is_broker_up = true;
    let down = stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    assert!(
        (4_000..9_000).contains(&down),
        "the cool-down begins when the queue is known again: {down}"
    );
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_wakes_while_the_broker_is_gone() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.world().is_broker_up = false;
    stage.pass(60).await;
    stage.calls.send_replace(Calls::Known(1));
    let took = stage.until("a replica", |world| world.active() == 1).await;
    assert!(took <= 10, "{took}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_wait_for_a_source_that_hangs() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.pass(1).await;
    stage.source.lock().unwrap().hangs = true;
    // The tick under way when it begins to hang has to lose its patience first.
    stage.pass(10).await;
    stage
        .until("a tick is over", |_| {
            stage.report().decision == hold(HoldReason::SampleUnknown)
        })
        .await;
    stage.calls.send_replace(Calls::Known(1));
    let took = stage.until("a replica", |world| world.active() == 1).await;
    assert!(took <= 5_100, "{took}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_fleet_holds_and_every_wait_is_bounded() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.world().publish(100, 1000);
    stage.fault(Fault::ObserveHangs);
    stage.pass(30).await;
    let report = stage.report();
    assert_eq!(report.decision, hold(HoldReason::FleetUnknown));
    assert!(
        report
            .sentence
            .ends_with("the target did not tell its replicas within 2 s"),
        "{}",
        report.sentence
    );
    stage.fault(Fault::None);
    let took = stage.until("ten replicas", |world| world.active() == 10).await;
    assert!(took <= 2_500, "{took}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_fails_is_told_and_tried_again() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.world().publish(100, 1000);
    stage.fault(Fault::ChangesFail);
    stage.pass(5).await;
    assert_eq!(stage.report().trouble.as_deref(), Some("the quota is exhausted"));
    stage.fault(Fault::ChangesHang);
    stage.pass(11).await;
    assert_eq!(
        stage.report().trouble.as_deref(),
        Some("the target did not scale up within 5 s")
    );
    stage.fault(Fault::None);
    stage.until("ten replicas", |world| world.active() == 10).await;
    stage.pass(2).await;
    assert_eq!(stage.report().trouble, None);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn replicas_that_never_become_ready_stay_while_they_are_needed_and_go_afterwards() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.world().starts_in = 1_000_000_000;
    stage.calls.send_replace(Calls::Known(1));
    stage.pass(120).await;
    assert_eq!(stage.report().decision, hold(HoldReason::Starting));
    assert_eq!(stage.snapshot().workers.len(), 1);
    stage.calls.send_replace(Calls::Known(0));
    stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn draining_replicas_that_cannot_come_back_are_replaced() {
    let stage = Stage::new(policy(0, 6, 1, 5));
    stage.world().publish(3, 100);
    stage
        .until("they are draining", |world| {
            !world.workers.is_empty() && world.active() == 0
        })
        .await;
    stage
        .world()
        .workers
        .iter_mut()
        .for_each(|worker| worker.is_stubborn = true);
    stage.world().publish(3, 1000);
    let took = stage.until("three new ones", |world| world.active() == 3).await;
    assert!(took <= 2_000, "{took}");
    stage.until("the work is done", |world| world.done == 6).await;
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_made_before_it_is_asked_and_again_when_it_vanishes() {
    let stage = Stage::with(policy(0, 10, 10, 5), Some("orders"), Some("orders.dead"));
    let ensured = || stage.source.lock().unwrap().ensured.len();
    stage.pass(10).await;
    assert_eq!(ensured(), 1);
    assert_eq!(
        stage.source.lock().unwrap().ensured[0],
        ("orders".to_owned(), "orders.dead".to_owned())
    );
    let missing = SampleError::QueueMissing(QueueName::new("orders"));
    stage.source.lock().unwrap().sample_fails_with = Some(missing);
    stage.pass(1).await;
    stage.source.lock().unwrap().sample_fails_with = None;
    stage.pass(1).await;
    assert!(ensured() >= 2);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_cannot_be_made_is_asked_all_the_same() {
    let stage = Stage::with(policy(0, 10, 10, 5), Some("orders"), Some("orders.dead"));
    let refused = SampleError::Refused {
        queue: QueueName::new("orders"),
        cause: "no permission".to_owned(),
    };
    stage.source.lock().unwrap().ensure_fails_with = Some(refused);
    stage.world().publish(1, 100_000);
    stage.until("a replica", |world| world.active() == 1).await;
    stage.pass(60).await;
    let tries = stage.source.lock().unwrap().ensured.len();
    assert!(
        (10..=13).contains(&tries),
        "every 5 s and not at every tick: {tries}"
    );
    stage.stop().await;
}

fn hold(reason: HoldReason) -> Decision {
    Decision::Hold { reason }
}
