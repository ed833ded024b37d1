//! When ticks come, together and alone, and how all of it stops.

use crate::stage::{FakeSource, FakeTarget, Fault, Shared, Stage};
use crate::world::policy;
use autoscaler::domain::Calls;
use autoscaler::{Autoscaler, Registry, TargetHandle, TargetSpec};
use ops::shutdown::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

fn add(registry: &Registry, name: &str, target: FakeTarget) -> TargetHandle {
    registry.add(TargetSpec {
        name: name.to_owned(),
        queue: Some(name.to_owned()),
        dead_letter: None,
        policy: policy(0, 10, 10, 5),
        target,
        calls: watch::channel(Calls::Known(0)).1,
    })
}

#[tokio::test(start_paused = true)]
async fn many_targets_ask_in_one_batch() {
    let shared = Shared::new();
    let (source, target) = (FakeSource::new(&shared), FakeTarget::new(&shared));
    let log = Arc::clone(&source.log);
    let autoscaler = Autoscaler::new(source);
    let registry = autoscaler.registry();
    for number in 0..100 {
        add(&registry, &format!("queue-{number}"), target.clone());
    }
    let shutdown = Shutdown::new();
    let running = tokio::spawn(autoscaler.run(shutdown.clone()));
    sleep(Duration::from_millis(10_100)).await;
    shutdown.drain();
    running.await.unwrap();
    let batches = log.lock().unwrap().batches.clone();
    assert_eq!(
        batches.iter().sum::<usize>(),
        100 * 41,
        "four times a second each"
    );
    let whole = batches.iter().filter(|size| **size == 100).count();
    assert!(whole >= 39, "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn ticks_are_quick_at_zero_and_slow_when_running() {
    let stage = Stage::new(policy(0, 10, 10, 600));
    let ticks = || stage.target.lock().unwrap().observed.len();
    stage.pass(10).await;
    let at_zero = ticks();
    assert!((39..=42).contains(&at_zero), "{at_zero}");
    stage.world().publish(1, 5);
    stage.pass(2).await;
    let before = ticks();
    stage.pass(10).await;
    assert_eq!(ticks() - before, 10);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_nudge_ticks_now_and_a_storm_of_nudges_is_bounded() {
    let stage = Stage::new(policy(1, 10, 10, 600));
    stage.pass(5).await;
    let ticks = || stage.target.lock().unwrap().observed.len();
    sleep(Duration::from_millis(300)).await;
    let before = ticks();
    stage.handle.nudge();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(ticks() - before, 1);
    let before = ticks();
    for _ in 0..1000 {
        stage.handle.nudge();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(ticks() - before <= 202, "{}", ticks() - before);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn calls_at_a_running_target_do_not_make_it_tick() {
    let stage = Stage::new(policy(1, 10, 10, 600));
    stage.pass(5).await;
    let before = stage.target.lock().unwrap().observed.len();
    for call in 0..1000 {
        stage.calls.send_replace(Calls::Known(call % 2));
        sleep(Duration::from_millis(1)).await;
    }
    let ticks = stage.target.lock().unwrap().observed.len() - before;
    assert!(ticks <= 2, "{ticks}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_sender_of_calls_does_not_make_it_spin() {
    let Stage {
        target,
        calls,
        shutdown,
        running,
        ..
    } = Stage::new(policy(0, 10, 10, 5));
    drop(calls);
    sleep(Duration::from_secs(10)).await;
    let ticks = target.lock().unwrap().observed.len();
    assert!(ticks <= 43, "{ticks}");
    shutdown.drain();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reports_change_only_when_there_is_news() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    let mut reports = stage.handle.reports();
    stage.pass(1).await;
    assert!(reports.borrow_and_update().is_some());
    stage.pass(60).await;
    assert!(!reports.has_changed().unwrap());
    stage.world().publish(1, 5);
    stage.pass(1).await;
    assert!(reports.has_changed().unwrap());
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn drain_ends_all_loops_closes_the_source_and_leaves_the_replicas() {
    let stage = Stage::new(policy(2, 10, 10, 5));
    stage.pass(5).await;
    let (shared, source, target) = (
        stage.shared.clone(),
        Arc::clone(&stage.source),
        Arc::clone(&stage.target),
    );
    stage.stop().await;
    assert!(source.lock().unwrap().is_closed);
    assert_eq!(shared.world().workers.len(), 2);
    let ticks = target.lock().unwrap().observed.len();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(target.lock().unwrap().observed.len(), ticks);
}

#[tokio::test(start_paused = true)]
async fn force_does_not_wait_for_a_target_that_hangs() {
    let stage = Stage::new(policy(2, 10, 10, 5));
    stage.pass(5).await;
    stage.fault(Fault::ObserveHangs);
    stage.pass(1).await;
    stage.shutdown.force();
    let begin = stage.shared.now();
    stage.running.await.unwrap();
    assert_eq!(stage.shared.now(), begin);
}

#[tokio::test(start_paused = true)]
async fn targets_come_and_go_while_it_runs() {
    let shared = Shared::new();
    let autoscaler = Autoscaler::new(FakeSource::new(&shared));
    let registry = autoscaler.registry();
    let shutdown = Shutdown::new();
    let running = tokio::spawn(autoscaler.run(shutdown.clone()));
    sleep(Duration::from_secs(1)).await;
    let target = FakeTarget::new(&shared);
    let log = Arc::clone(&target.log);
    let handle = add(&registry, "late", target);
    sleep(Duration::from_secs(1)).await;
    let ticks = log.lock().unwrap().observed.len();
    assert!(ticks >= 4, "{ticks}");
    handle.remove();
    sleep(Duration::from_secs(1)).await;
    assert!(log.lock().unwrap().observed.len() <= ticks + 1);
    shutdown.drain();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_panics_is_not_forgotten_silently() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.pass(1).await;
    stage.fault(Fault::ObservePanics);
    let error = stage.running.await.unwrap_err();
    assert!(error.is_panic());
}
