//! An untouched Deployment is annotated, fed, and given back as it was.

use product::{Product, Worker};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn an_untouched_deployment_is_annotated_fed_and_given_back() {
    if cluster::skip("an_untouched_deployment_is_annotated_fed_and_given_back") {
        return;
    }
    let shop = Product::shared().await.shop("adopt").await;
    shop.deploy("worker", &Worker::default()).await;
    let before = plain(shop.deployment("worker").await);

    let settings = [
        ("queue", Some("adopted")),
        ("concurrency", Some("10")),
        ("messages-per-replica", Some("100")),
        ("max-replicas", Some("3")),
        ("cool-down", Some("2s")),
    ];
    let queue = testkit::unique("adopted");
    let settings = settings.map(|(key, value)| {
        (
            key,
            if key == "queue" {
                Some(queue.as_str())
            } else {
                value
            },
        )
    });
    shop.annotate("worker", &settings).await;
    shop.is_scaled("worker").await;
    // At zero replicas nobody else would.
    shop.is_declared(&queue).await;
    let api = &shop.product.api;

    shop.publish(&queue, 1000, |_| json!({"sleep_ms": 5})).await;
    let injected = || async {
        let pods = shop.pods("worker").await;
        pods.into_iter()
            .find(|pod| pod["spec"]["initContainers"][0]["name"] == "kubedaemon-sidecar")
    };
    let pod = api
        .until("a pod with the sidecar appears", PATIENCE, injected)
        .await;
    assert_eq!(
        pod["spec"]["containers"].as_array().map(Vec::len),
        Some(1),
        "{pod}"
    );

    shop.has_ended(1000, PATIENCE).await;
    shop.has_replicas("worker", 0, PATIENCE).await;
    assert_eq!(shop.amqp.depth(&queue).await.map(|(ready, _)| ready), Some(0));
    assert_eq!(
        shop.amqp
            .depth(&format!("{queue}.dead"))
            .await
            .map(|(ready, _)| ready),
        Some(0)
    );
    let ended = shop.ended();
    assert_eq!(ended.len(), 1000);
    let twice: Vec<_> = ended.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "settled more than once: {twice:?}");

    let gone = settings.map(|(key, _)| (key, None));
    shop.annotate("worker", &gone).await;
    let given_back = || async { plain(shop.deployment("worker").await) == before };
    api.until("the Deployment is as it was", PATIENCE, given_back)
        .await;
    let left = shop.deployment("worker").await.to_string();
    assert!(!left.contains("kubedaemon.io/"), "{left}");
}

/// What the author wrote, without what Kubernetes counts.
fn plain(mut deployment: Value) -> Value {
    let annotations = deployment["metadata"]["annotations"].as_object_mut();
    if let Some(annotations) = annotations {
        // kubectl's and the Deployment controller's own.
        annotations.retain(|name, _| name.starts_with("kubedaemon.io/"));
    }
    json!({
        "annotations": deployment["metadata"]["annotations"].as_object().filter(|all| !all.is_empty()),
        "spec": deployment["spec"],
    })
}
