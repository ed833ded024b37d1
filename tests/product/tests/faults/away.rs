//! One part is away: the others go on.

use crate::turns::{PATIENCE, fed, scale, turn};
use product::Worker;
use serde_json::json;

#[tokio::test]
async fn without_the_injector_annotated_pods_wait_and_others_start_untouched() {
    if cluster::skip("without_the_injector_annotated_pods_wait_and_others_start_untouched") {
        return;
    }
    let (product, _turn) = turn().await;
    let shop = product.shop("no-injector").await;
    let queue = fed(&shop, &[("cool-down", "2s")]).await;
    scale(product, "injector", 0).await;

    shop.publish(&queue, 20, |_| json!({})).await;
    let asked = || async { shop.replicas("worker").await == Some(2) };
    product.api.until("a pod is asked for", PATIENCE, asked).await;
    let plain = Worker {
        replicas: 1,
        ..Worker::default()
    };
    shop.deploy("plain", &plain).await;
    let wait = [
        "wait",
        "deployment/plain",
        "--for=condition=Available",
        "--timeout=120s",
    ];
    shop.namespace.kubectl(&wait).await.unwrap();
    let pods = shop.pods("plain").await;
    assert!(pods[0]["spec"]["initContainers"].is_null(), "{pods:?}");
    assert!(
        shop.pods("worker").await.is_empty(),
        "no annotated pod without its sidecar"
    );

    scale(product, "injector", 2).await;
    // A ReplicaSet that was refused tries again after a while that doubles each time.
    shop.has_ended(20, 2 * PATIENCE).await;
    shop.has_replicas("worker", 0, PATIENCE).await;
}

#[tokio::test]
async fn without_autoscaler_and_activator_sidecars_go_on() {
    if cluster::skip("without_autoscaler_and_activator_sidecars_go_on") {
        return;
    }
    let (product, _turn) = turn().await;
    let shop = product.shop("no-scaler").await;
    let queue = fed(&shop, &[("cool-down", "2s"), ("min-replicas", "1")]).await;
    shop.publish(&queue, 1, |_| json!({})).await;
    shop.has_ended(1, PATIENCE).await;
    tokio::join!(scale(product, "autoscaler", 0), scale(product, "activator", 0));
    shop.publish(&queue, 101, |_| json!({})).await;
    shop.has_ended(101, PATIENCE).await;
    tokio::join!(scale(product, "autoscaler", 2), scale(product, "activator", 2));
}

#[tokio::test]
async fn without_the_api_server_sidecars_go_on_and_afterwards_all_is_right() {
    if cluster::skip("without_the_api_server_sidecars_go_on_and_afterwards_all_is_right") {
        return;
    }
    let (product, _turn) = turn().await;
    let shop = product.shop("no-api").await;
    let queue = fed(&shop, &[("cool-down", "3s")]).await;
    shop.publish(&queue, 1, |_| json!({})).await;
    shop.has_ended(1, PATIENCE).await;
    // Begun before the API server goes, so that the pod is there for as long as it is away.
    shop.publish(&queue, 40, |_| json!({"sleep_ms": 100})).await;
    product.kill_component("kube-apiserver");
    shop.publish(&queue, 140, |_| json!({"sleep_ms": 20})).await;
    shop.has_ended(140, PATIENCE).await;
    product.start_component("kube-apiserver");
    shop.has_replicas("worker", 0, PATIENCE).await;
    product.is_available().await;
}

#[tokio::test]
async fn without_the_broker_replicas_stay() {
    if cluster::skip("without_the_broker_replicas_stay") {
        return;
    }
    let (product, _turn) = turn().await;
    let shop = product.shop("no-broker").await;
    let queue = fed(&shop, &[("cool-down", "1s"), ("messages-per-replica", "5")]).await;
    shop.publish(&queue, 10, |_| json!({"sleep_ms": 1000})).await;
    let up = || async { shop.replicas("worker").await == Some(2) };
    product
        .api
        .until("two replicas are asked for", PATIENCE, up)
        .await;
    product.broker.stop().await;
    let held = || async {
        let scaling =
            shop.deployment("worker").await["metadata"]["annotations"]["kubedaemon.io/scaling"].to_string();
        scaling.contains("sample_unknown")
    };
    product
        .api
        .until("the autoscaler holds because it knows nothing", PATIENCE, held)
        .await;
    assert_eq!(shop.replicas("worker").await, Some(2));
    product.broker.start_again().await;
    let published: usize = 10;
    shop.has_ended(published, PATIENCE).await;
    shop.has_replicas("worker", 0, PATIENCE).await;
}
