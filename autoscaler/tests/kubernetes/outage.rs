//! The API server goes and comes back.

use crate::support::{Scene, load_image};
use cluster::Cluster;
use serde_json::json;
use testkit::wait::{PATIENCE, until};

#[tokio::test]
async fn while_the_api_server_is_away_nothing_is_decided() {
    if cluster::skip("while_the_api_server_is_away_nothing_is_decided") {
        return;
    }
    let cluster = Cluster::start().await;
    load_image(&cluster).await;
    let scene = Scene::new(&cluster, "outage").await;
    let annotations = json!({"messages-per-replica": "1", "cool-down": "2s", "max-replicas": "4"});
    scene.deploy("Deployment", "orders", 2, &annotations).await;
    scene.until_pods("orders", 2).await;
    let autoscaler = scene.autoscaler(&[]);
    autoscaler.until_queue(&scene.queue).await;
    scene.publish(2).await;
    let target = format!("{}/orders", scene.namespace.name());
    autoscaler
        .until_report(&target, |report| report["reason"] == "no_change")
        .await;

    cluster.kill_component("kube-apiserver");
    autoscaler.0.wait_for_line("leading no more").await;
    assert_eq!(autoscaler.get("/healthz").await.status, 200);
    scene.publish(2).await;
    cluster.start_component("kube-apiserver");
    until("the API server is back", 2 * PATIENCE, || async {
        scene.replicas("deployment/orders").await.is_some_and(|replicas| {
            assert!(replicas >= 2, "scaled down without knowing");
            replicas == 4
        })
    })
    .await;
    scene.amqp.purge(&scene.queue).await;
    scene.until_replicas("deployment/orders", 0).await;
    autoscaler.stop().await;
}
