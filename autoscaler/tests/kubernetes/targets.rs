//! Annotations come, change and go.

use crate::support::{STAYS, Scene, cluster_with_image};
use serde_json::{Value, json};
use testkit::wait::{PATIENCE, until};

#[tokio::test]
async fn a_target_comes_changes_and_is_given_back() {
    if cluster::skip("a_target_comes_changes_and_is_given_back") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "targets").await;
    let mut manifest = scene.manifest("Deployment", "orders", 3, &json!({}));
    manifest["metadata"]["annotations"] = json!({});
    scene.namespace.apply(&manifest.to_string()).await;
    scene.until_pods("orders", 3).await;
    let autoscaler = scene.autoscaler(&[]);
    autoscaler.until_leading().await;
    assert_eq!(scene.replicas("deployment/orders").await, Some(3));
    let annotate = |pairs: &[String]| {
        let mut words = vec![
            "annotate".to_owned(),
            "deployment/orders".to_owned(),
            "--overwrite".to_owned(),
        ];
        words.extend(pairs.iter().map(|pair| format!("kubedaemon.io/{pair}")));
        words
    };
    let run = async |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        scene.namespace.kubectl(&words).await.unwrap();
    };

    run(annotate(&[
        format!("queue={}", scene.queue),
        "cool-down=0s".to_owned(),
    ]))
    .await;
    scene.until_replicas("deployment/orders", 0).await;
    assert_eq!(
        scene
            .annotation("deployment/orders", "original-replicas")
            .await
            .unwrap(),
        "3"
    );
    run(annotate(&["min-replicas=1".to_owned()])).await;
    scene.until_replicas("deployment/orders", 1).await;
    // What cannot be read changes nothing and is told.
    run(annotate(&["min-replicas=lots".to_owned()])).await;
    let note = scene.event("BadAnnotation", "orders").await;
    assert!(note.contains("kubedaemon.io/min-replicas is \"lots\""), "{note}");
    let target = format!("{}/orders", scene.namespace.name());
    assert!(autoscaler.status().await["targets"][&target].is_object());
    assert_eq!(scene.replicas("deployment/orders").await, Some(1));

    run(annotate(&["queue-".to_owned()])).await;
    scene.until_replicas("deployment/orders", 3).await;
    assert!(
        scene
            .event("Restored", "orders")
            .await
            .contains("back to 3 replicas")
    );
    until("what we wrote is gone", PATIENCE, || async {
        let annotations = scene.get("deployment/orders").await?["metadata"]["annotations"].to_string();
        (!annotations.contains("original-replicas") && !annotations.contains("kubedaemon.io/scaling"))
            .then_some(())
    })
    .await;
    autoscaler.stop().await;
}

#[tokio::test]
async fn a_workload_whose_annotation_went_while_nobody_looked_is_given_back() {
    if cluster::skip("a_workload_whose_annotation_went_while_nobody_looked_is_given_back") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "restore").await;
    let annotations = json!({"inject": "false", "original-replicas": "2", "scaling": "{}"});
    scene.deploy("Deployment", "orders", 0, &annotations).await;
    let autoscaler = scene.autoscaler(&[]);
    scene.until_replicas("deployment/orders", 2).await;
    until("what we wrote is gone", PATIENCE, || async {
        scene
            .annotation("deployment/orders", "original-replicas")
            .await
            .is_none()
    })
    .await;
    autoscaler.stop().await;
}

#[tokio::test]
async fn another_autoscaler_of_the_same_workload_is_told_and_not_fought() {
    if cluster::skip("another_autoscaler_of_the_same_workload_is_told_and_not_fought") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "conflict").await;
    let rival = [
        "autoscale",
        "deployment/orders",
        "--min=1",
        "--max=2",
        "--cpu=50%",
    ];
    scene
        .deploy("Deployment", "orders", 1, &json!({"cool-down": "0s"}))
        .await;
    scene.namespace.kubectl(&rival).await.unwrap();
    let autoscaler = scene.autoscaler(&[]);
    let note = scene.event("ConflictingAutoscaler", "orders").await;
    assert!(note.contains("HorizontalPodAutoscaler orders"), "{note}");
    tokio::time::sleep(STAYS).await;
    assert_eq!(scene.replicas("deployment/orders").await, Some(1));
    assert_eq!(autoscaler.status().await["targets"], json!({}));
    scene.namespace.kubectl(&["delete", "hpa/orders"]).await.unwrap();
    scene.until_replicas("deployment/orders", 0).await;
    autoscaler.stop().await;
}

#[tokio::test]
async fn a_pod_without_the_sidecar_is_told_and_never_removed() {
    if cluster::skip("a_pod_without_the_sidecar_is_told_and_never_removed") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "bare").await;
    let mut manifest = scene.manifest("Deployment", "orders", 1, &json!({"cool-down": "0s"}));
    manifest["spec"]["template"]["spec"]["initContainers"] = Value::Null;
    scene.namespace.apply(&manifest.to_string()).await;
    let available = [
        "wait",
        "deployment/orders",
        "--for=condition=Available",
        "--timeout=60s",
    ];
    scene.namespace.kubectl(&available).await.unwrap();
    let autoscaler = scene.autoscaler(&[]);
    let note = scene.event("NotInjected", "orders").await;
    assert!(note.contains("kubectl rollout restart"), "{note}");
    assert_eq!(scene.replicas("deployment/orders").await, Some(1));
    autoscaler.stop().await;
}

#[tokio::test]
async fn an_activator_that_does_not_tell_keeps_the_last_replica() {
    if cluster::skip("an_activator_that_does_not_tell_keeps_the_last_replica") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "calls").await;
    // Nothing answers there.
    let silent = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "activator-1", "labels": {"kubernetes.io/service-name": "activator"}},
        "ports": [{"name": "admin", "port": 1}],
        "endpoints": [{"addresses": [scene.cluster.machine().to_string()], "conditions": {"ready": true}}],
    });
    scene.namespace.apply(&silent.to_string()).await;
    scene
        .deploy("Deployment", "orders", 2, &json!({"cool-down": "0s"}))
        .await;
    scene.until_pods("orders", 2).await;
    let autoscaler = scene.autoscaler(&["--activator-service", "activator"]);
    let target = format!("{}/orders", scene.namespace.name());
    autoscaler
        .until_report(&target, |report| report["reason"] == "calls_unknown")
        .await;
    assert_eq!(scene.replicas("deployment/orders").await, Some(1));
    scene
        .namespace
        .kubectl(&["delete", "endpointslice/activator-1"])
        .await
        .unwrap();
    scene.until_replicas("deployment/orders", 0).await;
    autoscaler.stop().await;
}

#[tokio::test]
async fn replicas_that_somebody_else_started_stay_for_a_cool_down() {
    if cluster::skip("replicas_that_somebody_else_started_stay_for_a_cool_down") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "raised").await;
    scene
        .deploy("Deployment", "orders", 0, &json!({"cool-down": "4s"}))
        .await;
    let autoscaler = scene.autoscaler(&[]);
    let target = format!("{}/orders", scene.namespace.name());
    autoscaler
        .until_report(&target, |report| report["reason"] == "at_min")
        .await;
    // As an activator does that wakes it for a call.
    scene
        .namespace
        .kubectl(&["scale", "deployment/orders", "--replicas=1"])
        .await
        .unwrap();
    let began = tokio::time::Instant::now();
    scene.until_replicas("deployment/orders", 0).await;
    assert!(began.elapsed() >= STAYS, "{:?}", began.elapsed());
    autoscaler.stop().await;
}

#[tokio::test]
async fn writes_of_others_in_between_do_not_matter() {
    if cluster::skip("writes_of_others_in_between_do_not_matter") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "busy").await;
    let annotations = json!({"messages-per-replica": "1", "cool-down": "0s", "max-replicas": "2"});
    scene.deploy("Deployment", "orders", 0, &annotations).await;
    let autoscaler = scene.autoscaler(&[]);
    autoscaler.until_queue(&scene.queue).await;
    let scaling = async {
        for _ in 0..3 {
            scene.publish(2).await;
            scene.until_replicas("deployment/orders", 2).await;
            scene.amqp.purge(&scene.queue).await;
            scene.until_replicas("deployment/orders", 0).await;
        }
    };
    let writing = async {
        for number in 0.. {
            let stamp = format!("example.org/stamp={number}");
            let annotate = ["annotate", "deployment/orders", "--overwrite", &stamp];
            scene.namespace.kubectl(&annotate).await.unwrap();
        }
    };
    tokio::select! {
        () = scaling => {}
        () = writing => unreachable!("it never ends"),
    }
    autoscaler.stop().await;
}
