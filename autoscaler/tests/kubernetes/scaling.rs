//! Up, down and back, on real pods.

use crate::support::{STAYS, Scene, cluster_with_image, set};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::wait::{PATIENCE, until};
use tokio::time::Instant;

#[tokio::test]
async fn a_deployment_goes_from_zero_up_and_back_to_zero() {
    if cluster::skip("a_deployment_goes_from_zero_up_and_back_to_zero") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "updown").await;
    let annotations = json!({"messages-per-replica": "10", "cool-down": "1s", "max-replicas": "3"});
    scene.deploy("Deployment", "orders", 0, &annotations).await;
    let autoscaler = scene.autoscaler(&[]);
    // The queue is made although nothing runs.
    autoscaler.until_queue(&scene.queue).await;
    let began = Instant::now();
    scene.publish(1).await;
    // The log follows what was done.
    autoscaler.0.wait_for_line("starting 1 replica, to 1").await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    scene.until_replicas("deployment/orders", 1).await;

    scene.publish(24).await;
    scene.until_replicas("deployment/orders", 3).await;
    let pods = scene.until_pods("orders", 3).await;
    // One is at work; the others go as soon as the queue is empty, and it stays.
    set(&pods[1].1, "in_flight=1").await;
    scene.amqp.purge(&scene.queue).await;
    scene.until_replicas("deployment/orders", 1).await;
    until("the others are gone", PATIENCE, || async {
        scene.pods("orders").await.len() == 1
    })
    .await;
    assert_eq!(scene.pods("orders").await[0].0, pods[1].0, "the busy one stays");
    set(&pods[1].1, "in_flight=0").await;
    scene.until_replicas("deployment/orders", 0).await;

    until("the changes are told", PATIENCE, || async {
        let (up, down) = (
            scene.events("ScaledUp", "orders").await,
            scene.events("ScaledDown", "orders").await,
        );
        up.iter().any(|note| note.starts_with("from 0 to 1: "))
            && down.iter().any(|note| note.starts_with("from 1 to 0: "))
    })
    .await;
    until("the status says that nothing is to be done", PATIENCE, || async {
        let text = scene.annotation("deployment/orders", "scaling").await?;
        let status: Value = serde_json::from_str(&text).ok()?;
        (status["decision"] == "hold" && status["reason"] == "at_min" && status["replicas"] == 0)
            .then_some(())
    })
    .await;
    assert_eq!(
        scene
            .annotation("deployment/orders", "original-replicas")
            .await
            .unwrap(),
        "0"
    );
    autoscaler.stop().await;
}

#[tokio::test]
async fn replicas_that_drained_come_back_when_load_does() {
    if cluster::skip("replicas_that_drained_come_back_when_load_does") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "resume").await;
    let annotations = json!({"messages-per-replica": "1", "cool-down": "0s", "max-replicas": "2"});
    scene.deploy("Deployment", "orders", 2, &annotations).await;
    let pods = scene.until_pods("orders", 2).await;
    for (_, address) in &pods {
        set(address, "in_flight=1").await;
    }
    let autoscaler = scene.autoscaler(&[]);
    let target = format!("{}/orders", scene.namespace.name());
    autoscaler
        .until_report(&target, |report| report["in_flight"] == 2)
        .await;
    set(&pods[0].1, "in_flight=0&lingering").await;
    autoscaler
        .until_report(&target, |report| report["draining"] == 1)
        .await;
    scene.publish(5).await;
    autoscaler
        .until_report(&target, |report| report["draining"] == 0)
        .await;
    assert_eq!(scene.pods("orders").await, pods, "nobody went");
    autoscaler.stop().await;
}

#[tokio::test]
async fn a_stateful_set_loses_its_highest_replicas_only() {
    if cluster::skip("a_stateful_set_loses_its_highest_replicas_only") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "stateful").await;
    let annotations = json!({"messages-per-replica": "1", "cool-down": "0s", "max-replicas": "3"});
    scene.deploy("StatefulSet", "orders", 3, &annotations).await;
    let pods = scene.until_pods("orders", 3).await;
    set(&pods[1].1, "in_flight=1").await;
    let autoscaler = scene.autoscaler(&[]);
    scene.until_replicas("statefulset/orders", 2).await;
    until("the highest is gone", PATIENCE, || async {
        scene.pods("orders").await.len() == 2
    })
    .await;
    let target = format!("{}/statefulset/orders", scene.namespace.name());
    autoscaler
        .until_report(&target, |report| report["reason"] == "replicas_busy")
        .await;
    set(&pods[1].1, "in_flight=0").await;
    scene.until_replicas("statefulset/orders", 0).await;
    autoscaler.stop().await;
}

#[tokio::test]
async fn replicas_that_a_quota_forbids_are_told_and_given_up() {
    if cluster::skip("replicas_that_a_quota_forbids_are_told_and_given_up") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "quota").await;
    scene
        .namespace
        .kubectl(&["create", "quota", "small", "--hard=pods=1"])
        .await
        .unwrap();
    let annotations = json!({"messages-per-replica": "1", "cool-down": "1s", "max-replicas": "3"});
    scene.deploy("Deployment", "orders", 0, &annotations).await;
    let autoscaler = scene.autoscaler(&[]);
    autoscaler.until_queue(&scene.queue).await;
    scene.publish(3).await;
    scene.until_replicas("deployment/orders", 3).await;
    let target = format!("{}/orders", scene.namespace.name());
    let report = autoscaler
        .until_report(&target, |report| report["starting"] == 2)
        .await;
    assert_eq!(report["replicas"], 3);
    let note = scene.event("WorkerNotStarting", "orders").await;
    assert!(note.contains("exceeded quota: small"), "{note}");
    scene.amqp.purge(&scene.queue).await;
    scene.until_replicas("deployment/orders", 0).await;
    autoscaler.stop().await;
}

#[tokio::test]
async fn nothing_goes_during_a_rollout() {
    if cluster::skip("nothing_goes_during_a_rollout") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "rollout").await;
    let annotations =
        json!({"messages-per-replica": "1", "cool-down": "0s", "max-replicas": "3", "min-replicas": "1"});
    let mut manifest = scene.manifest("Deployment", "orders", 2, &annotations);
    scene.namespace.apply(&manifest.to_string()).await;
    let pods = scene.until_pods("orders", 2).await;
    for (_, address) in &pods {
        set(address, "in_flight=1").await;
    }
    let autoscaler = scene.autoscaler(&[]);
    let target = format!("{}/orders", scene.namespace.name());
    autoscaler
        .until_report(&target, |report| report["in_flight"] == 2)
        .await;
    // The new revision cannot start.
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("localhost/not-there:1");
    scene.namespace.apply(&manifest.to_string()).await;
    let note = scene.event("WorkerNotStarting", "orders").await;
    assert!(note.contains("ErrImageNeverPull"), "{note}");
    for (_, address) in &pods {
        set(address, "in_flight=0").await;
    }
    autoscaler
        .until_report(&target, |report| report["reason"] == "kept")
        .await;
    tokio::time::sleep(STAYS).await;
    assert_eq!(scene.replicas("deployment/orders").await, Some(2));
    // Up is fine, and the pod that comes on top is not counted.
    scene.publish(3).await;
    scene.until_replicas("deployment/orders", 3).await;
    autoscaler.stop().await;
}
