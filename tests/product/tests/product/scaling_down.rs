//! Pods with work stay; those without go.

use product::{Product, Shop, Worker};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

/// A worker that takes one message at a time, at zero, with its queue.
async fn fed(shop: &Shop<'_>, settings: &[(&str, &str)]) -> String {
    let settings = [&[("cool-down", "1s")], settings].concat();
    shop.feed(&Worker::default(), &settings).await
}

#[tokio::test]
async fn a_pod_with_a_long_message_is_not_removed_although_the_queue_is_empty() {
    if cluster::skip("a_pod_with_a_long_message_is_not_removed_although_the_queue_is_empty") {
        return;
    }
    let shop = Product::shared().await.shop("long").await;
    let queue = fed(&shop, &[]).await;
    shop.publish(&queue, 1, |_| json!({"sleep_ms": 20_000})).await;
    // Twenty times the cool-down.
    shop.has_ended(1, PATIENCE).await;
    assert_eq!(shop.begun().values().sum::<usize>(), 1, "{:?}", shop.told());
    shop.has_replicas("worker", 0, PATIENCE).await;
}

#[tokio::test]
async fn scaling_down_removes_idle_pods_only() {
    if cluster::skip("scaling_down_removes_idle_pods_only") {
        return;
    }
    let shop = Product::shared().await.shop("idle").await;
    let queue = fed(&shop, &[("messages-per-replica", "1"), ("max-replicas", "4")]).await;
    // The two long ones keep their pods busy while the others are idle for many cool-downs.
    shop.publish(
        &queue,
        4,
        |index| json!({"sleep_ms": if index < 2 { 25_000 } else { 8_000 }}),
    )
    .await;
    let begun = || async { shop.begun().len() == 4 };
    shop.product
        .api
        .until("each message has its pod", PATIENCE, begun)
        .await;
    let busy: BTreeSet<String> = shop
        .told()
        .into_iter()
        .filter(|told| told.event == "begin" && ["0", "1"].contains(&told.id.as_str()))
        .map(|told| told.pod)
        .collect();
    shop.has_ended(2, PATIENCE).await;
    let down = || async { shop.replicas("worker").await == Some(busy.len() as u64) };
    shop.product
        .api
        .until("the idle pods are removed", PATIENCE, down)
        .await;
    assert_eq!(
        shop.ended().len(),
        2,
        "the long messages are still in work: {:?}",
        shop.told()
    );
    shop.has_ended(4, PATIENCE).await;
    assert!(
        shop.begun().values().all(|times| *times == 1),
        "{:?}",
        shop.told()
    );
    shop.has_replicas("worker", 0, PATIENCE).await;
}

#[tokio::test]
async fn rolling_updates_and_deleted_pods_lose_nothing_and_repeat_nothing() {
    if cluster::skip("rolling_updates_and_deleted_pods_lose_nothing_and_repeat_nothing") {
        return;
    }
    let shop = Product::shared().await.shop("rolling").await;
    let queue = fed(
        &shop,
        &[
            ("messages-per-replica", "50"),
            ("max-replicas", "2"),
            ("concurrency", "4"),
        ],
    )
    .await;
    shop.publish(&queue, 600, |_| json!({"sleep_ms": 100})).await;
    shop.has_ended(60, PATIENCE).await;
    shop.namespace
        .kubectl(&["rollout", "restart", "deployment/worker"])
        .await
        .unwrap();
    shop.has_ended(250, PATIENCE).await;
    let pods = shop.pods("worker").await;
    let running = pods
        .iter()
        .find(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .unwrap();
    let name = running["metadata"]["name"].as_str().unwrap();
    shop.namespace
        .kubectl(&["delete", "pod", name, "--wait=false"])
        .await
        .unwrap();
    shop.has_ended(600, PATIENCE).await;
    shop.has_replicas("worker", 0, PATIENCE).await;
    let begun = shop.begun();
    assert_eq!((begun.len(), shop.ended().len()), (600, 600));
    let twice: Vec<_> = begun.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    assert_eq!(
        shop.amqp
            .depth(&format!("{queue}.dead"))
            .await
            .map(|(ready, _)| ready),
        Some(0)
    );
}
