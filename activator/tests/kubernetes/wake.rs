//! From zero to an answer.

use crate::support::{Replica, cluster_with_worker, container, generation, put_to_sleep, worker, workload};
use serde_json::json;
use std::time::Duration;
use testkit::http::get;
use testkit::wait::{PATIENCE, until};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test]
async fn a_cold_call_wakes_its_worker_and_is_answered() {
    if cluster::skip("a_cold_call_wakes_its_worker_and_is_answered") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("cold").await;
    namespace.apply(&worker().to_string()).await;
    let replica = Replica::start(cluster, &namespace, &["--takeover", "off"]).await;
    replica.knows(&namespace).await;
    let answer = get(&replica.worker(&namespace)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().starts_with("worker-"), "{}", answer.text());
    assert_ne!(answer.header("x-kubedaemon-cold-start"), "");
    assert_eq!(generation(&namespace).await, 2);
    let warm = get(&replica.worker(&namespace)).await.unwrap();
    assert_eq!(
        (warm.status, warm.text()),
        (200.try_into().unwrap(), answer.text())
    );
    assert_eq!(replica.admin("/calls").await, json!({ "calls": {} }));
}

#[tokio::test]
async fn two_hundred_cold_calls_cause_one_scale_up() {
    if cluster::skip("two_hundred_cold_calls_cause_one_scale_up") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("many").await;
    namespace.apply(&worker().to_string()).await;
    // Two replicas that know nothing of each other.
    let one = Replica::start(cluster, &namespace, &["--takeover", "off"]).await;
    let other = Replica::start(cluster, &namespace, &["--takeover", "off"]).await;
    one.knows(&namespace).await;
    other.knows(&namespace).await;
    let mut calls = JoinSet::new();
    for call in 0..200 {
        let replica = if call % 2 == 0 { &one } else { &other };
        let url = replica.worker(&namespace);
        calls.spawn(async move { get(&url).await.map(|answer| answer.status.as_u16()) });
    }
    let answers = calls.join_all().await;
    let good = answers.iter().filter(|answer| matches!(answer, Ok(200))).count();
    assert_eq!(good, 200, "{answers:?}");
    assert_eq!(generation(&namespace).await, 2, "one change after the creation");
}

#[tokio::test]
async fn a_stateful_set_is_woken_to_its_least() {
    if cluster::skip("a_stateful_set_is_woken_to_its_least") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("stateful").await;
    let mut set = workload("StatefulSet");
    set["spec"]["serviceName"] = json!("worker");
    set["metadata"]["annotations"]["kubedaemon.io/min-replicas"] = json!("2");
    namespace.apply(&set.to_string()).await;
    let replica = Replica::start(cluster, &namespace, &["--takeover", "off"]).await;
    replica.knows(&namespace).await;
    let answer = get(&replica.worker(&namespace)).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "worker-0".to_owned())
    );
    let asked = ["get", "statefulset/worker", "--output=jsonpath={.spec.replicas}"];
    assert_eq!(namespace.kubectl(&asked).await.unwrap(), "2");
}

#[tokio::test]
async fn a_readiness_probe_is_not_waited_for() {
    if cluster::skip("a_readiness_probe_is_not_waited_for") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("probed").await;
    let mut worker = worker();
    // The kubelet asks for the first time after 50 s.
    container(&mut worker)["readinessProbe"] =
        json!({ "httpGet": { "path": "/ready", "port": "http" }, "initialDelaySeconds": 50 });
    namespace.apply(&worker.to_string()).await;
    let replica = Replica::start(cluster, &namespace, &["--takeover", "off"]).await;
    replica.knows(&namespace).await;
    let began = Instant::now();
    let answer = get(&replica.worker(&namespace)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_scaled_down_under_a_caller_is_woken_again() {
    if cluster::skip("what_is_scaled_down_under_a_caller_is_woken_again") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("again").await;
    namespace.apply(&worker().to_string()).await;
    let replica = Replica::start(cluster, &namespace, &["--takeover", "off"]).await;
    replica.knows(&namespace).await;
    for _ in 0..3 {
        let answer = get(&replica.worker(&namespace)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        put_to_sleep(&namespace).await;
    }
    assert_eq!(generation(&namespace).await, 7);
}

#[tokio::test]
async fn a_workload_that_is_no_target_any_more_is_left_alone() {
    if cluster::skip("a_workload_that_is_no_target_any_more_is_left_alone") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("target").await;
    namespace.apply(&worker().to_string()).await;
    let replica = Replica::start(cluster, &namespace, &["--takeover", "off"]).await;
    replica.knows(&namespace).await;
    for annotation in ["kubedaemon.io/inject=false", "kubedaemon.io/port=none"] {
        let annotate = ["annotate", "--overwrite", "deployment/worker", annotation];
        namespace.kubectl(&annotate).await.unwrap();
        until("it is not found", PATIENCE, || async {
            let answer = get(&replica.worker(&namespace)).await;
            answer.is_ok_and(|answer| answer.status == 404)
        })
        .await;
        let again = [
            "annotate",
            "--overwrite",
            "deployment/worker",
            "kubedaemon.io/inject=true",
        ];
        namespace.kubectl(&again).await.unwrap();
    }
    let said = replica
        .process
        .wait_for_line("no target, because its annotations are wrong")
        .await;
    assert!(said.contains("kubedaemon.io/port is \"none\""), "{said}");
    let asked = ["get", "deployment/worker", "--output=jsonpath={.spec.replicas}"];
    assert_eq!(namespace.kubectl(&asked).await.unwrap(), "0");
}
