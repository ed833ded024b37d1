//! What is logged, how often, and what is counted.

use crate::capture;
use crate::stage::{Fault, Stage};
use crate::world::policy;

#[tokio::test(start_paused = true)]
async fn a_life_is_logged_in_a_few_lines() {
    let logs = capture();
    let stage = Stage::new(policy(0, 10, 1, 5));
    stage.pass(60).await;
    stage.world().publish(3, 1000);
    stage.until("the work is done", |world| world.done == 3).await;
    stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    stage.pass(60).await;
    stage.stop().await;
    let changes: Vec<String> = logs.matching("INFO");
    assert_eq!(changes.len(), 3, "up, drain, remove: {changes:#?}");
    let parts = [
        "starting 3 replicas, to 3: 3 messages ready at 1 a replica",
        "default/orders",
        "activation",
    ];
    for part in parts {
        assert!(changes[0].contains(part), "{part} is not in {}", changes[0]);
    }
    assert!(changes[1].contains("cool_down_over"), "{}", changes[1]);
    assert!(changes[2].contains("drained"), "{}", changes[2]);
    assert!(logs.matching("WARN").is_empty(), "{logs:?}");
    assert!(logs.lines().len() <= 12, "one line a change of reason: {logs:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_logged_once_and_so_is_a_change_that_fails() {
    let logs = capture();
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.pass(5).await;
    stage.world().is_broker_up = false;
    stage.pass(600).await;
    stage.world().is_broker_up = true;
    stage.fault(Fault::ChangesFail);
    stage.world().publish(500, 100_000);
    stage.pass(600).await;
    stage.stop().await;
    let warnings = logs.matching("WARN");
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(
        warnings[0].contains("holding at 0 replicas: the broker is away"),
        "{}",
        warnings[0]
    );
    assert!(warnings[1].contains("the quota is exhausted"), "{}", warnings[1]);
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_there_after_a_life() {
    let metrics = ops::metrics::install();
    let stage = Stage::new(policy(0, 10, 10, 5));
    stage.world().publish(25, 1000);
    stage.until("the work is done", |world| world.done == 25).await;
    stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    stage.stop().await;
    let page = metrics.render();
    for line in [
        "autoscaler_queue_messages{target=\"default/orders\",state=\"ready\"}",
        "autoscaler_queue_messages{target=\"default/orders\",state=\"unacked\"}",
        "autoscaler_sample_duration_seconds_bucket{source=\"fake\",result=\"ok\"",
        "autoscaler_sample_age_seconds{target=\"default/orders\"}",
        "autoscaler_decisions_total{decision=\"scale_up\",reason=\"activation\"}",
        "autoscaler_decisions_total{decision=\"drain\",reason=\"cool_down_over\"}",
        "autoscaler_decisions_total{decision=\"remove\",reason=\"drained\"}",
        "autoscaler_replicas{target=\"default/orders\",kind=\"desired\"}",
        "autoscaler_replicas{target=\"default/orders\",kind=\"current\"}",
        "autoscaler_replicas{target=\"default/orders\",kind=\"ready\"}",
        "autoscaler_scale_changes_total{direction=\"up\",result=\"ok\"}",
        "autoscaler_scale_changes_total{direction=\"down\",result=\"ok\"}",
        "autoscaler_reconcile_duration_seconds_bucket{result=\"ok\"",
    ] {
        assert!(page.contains(line), "{line} is not on the page:\n{page}");
    }
}
