//! Workers that do not start: whoever waits for them is told why.

use crate::support::{cluster_with_worker, container, told};
use serde_json::json;

#[tokio::test]
async fn an_image_that_is_not_there() {
    if cluster::skip("an_image_that_is_not_there") {
        return;
    }
    let namespace = cluster_with_worker().await.namespace("image").await;
    let detail = told(&namespace, |worker| {
        let container = container(worker);
        // Nothing listens there, so pulling fails at once.
        container["image"] = json!("127.0.0.1:9/none:1");
        container["imagePullPolicy"] = json!("IfNotPresent");
    })
    .await;
    assert!(
        detail.contains("the image of container worker") && detail.contains("ImagePull"),
        "{detail}"
    );
    assert!(detail.contains("127.0.0.1:9/none:1"), "{detail}");
}

#[tokio::test]
async fn a_container_that_keeps_ending() {
    if cluster::skip("a_container_that_keeps_ending") {
        return;
    }
    let namespace = cluster_with_worker().await.namespace("crash").await;
    let detail = told(&namespace, |worker| {
        container(worker)["args"] = json!(["get", "http://127.0.0.1:1/"]);
    })
    .await;
    assert!(detail.contains("exit code 1"), "{detail}");
}

#[tokio::test]
async fn a_pod_that_no_node_can_take() {
    if cluster::skip("a_pod_that_no_node_can_take") {
        return;
    }
    let namespace = cluster_with_worker().await.namespace("node").await;
    let detail = told(&namespace, |worker| {
        worker["spec"]["template"]["spec"]["nodeSelector"] = json!({ "disk": "none" });
    })
    .await;
    assert!(
        detail.contains("no node can take pod worker-") && detail.contains("node affinity"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_quota_that_is_used_up() {
    if cluster::skip("a_quota_that_is_used_up") {
        return;
    }
    let namespace = cluster_with_worker().await.namespace("quota").await;
    namespace
        .kubectl(&["create", "quota", "none", "--hard=pods=0"])
        .await
        .unwrap();
    let detail = told(&namespace, |_| {}).await;
    assert!(
        detail.contains("its pods cannot be made") && detail.contains("exceeded quota"),
        "{detail}"
    );
}
