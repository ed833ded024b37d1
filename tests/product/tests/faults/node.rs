//! The node is drained for maintenance.

use crate::turns::{PATIENCE, fed, turn};
use serde_json::json;

#[tokio::test]
async fn draining_the_node_loses_nothing_and_repeats_nothing() {
    if cluster::skip("draining_the_node_loses_nothing_and_repeats_nothing") {
        return;
    }
    let (product, _turn) = turn().await;
    let shop = product.shop("drain").await;
    let queue = fed(
        &shop,
        &[
            ("cool-down", "2s"),
            ("messages-per-replica", "50"),
            ("concurrency", "2"),
        ],
    )
    .await;
    shop.publish(&queue, 200, |_| json!({"sleep_ms": 100})).await;
    shop.has_ended(20, PATIENCE).await;
    // Only this test's pods: the others of the cluster have nowhere to go.
    let node = product.node_name();
    let drain = [
        "drain",
        node,
        "--pod-selector=app=worker",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=100s",
    ];
    let drained = product.kubectl(&drain).await;
    let uncordoned = product.kubectl(&["uncordon", node]).await;
    drained.unwrap();
    uncordoned.unwrap();
    shop.has_ended(200, PATIENCE).await;
    shop.has_replicas("worker", 0, PATIENCE).await;
    let begun = shop.begun();
    assert_eq!(begun.len(), 200);
    let twice: Vec<_> = begun.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
}
