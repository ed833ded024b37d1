//! Several autoscalers: one acts.

use crate::support::{Autoscaler, STAYS, Scene, cluster_with_image};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

async fn is_leading(autoscaler: &Autoscaler) -> bool {
    autoscaler.status().await["leader"] == true
}

#[tokio::test]
async fn a_standby_takes_over_within_five_seconds_and_removes_nothing() {
    if cluster::skip("a_standby_takes_over_within_five_seconds_and_removes_nothing") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "leader").await;
    let annotations = json!({"messages-per-replica": "10", "cool-down": "8s"});
    scene.deploy("Deployment", "orders", 2, &annotations).await;
    scene.until_pods("orders", 2).await;
    let first = scene.autoscaler(&[]);
    first.until_queue(&scene.queue).await;
    let standby = scene.autoscaler(&[]);
    standby.0.wait_for_line("standing by").await;
    assert!(is_leading(&first).await && !is_leading(&standby).await);
    for autoscaler in [&first, &standby] {
        assert_eq!(autoscaler.get("/readyz").await.status, 200, "both are ready");
    }
    // Half of the cool-down is over when the leader is gone.
    tokio::time::sleep(STAYS).await;
    first.0.signal(Signal::KILL);
    let killed = Instant::now();
    // What comes now is for the new one.
    scene.publish(30).await;
    standby.0.wait_for_line("starting 1 replica, to 3").await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    scene.until_replicas("deployment/orders", 3).await;
    let down = scene.events("ScaledDown", "orders").await;
    assert!(down.is_empty(), "{down:?}");
    assert!(is_leading(&standby).await);
    standby.stop().await;
}

#[tokio::test]
async fn a_leader_that_ends_in_good_order_is_followed_at_once() {
    if cluster::skip("a_leader_that_ends_in_good_order_is_followed_at_once") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "handover").await;
    let first = scene.autoscaler(&[]);
    first.until_leading().await;
    let standby = scene.autoscaler(&[]);
    standby.0.wait_for_line("standing by").await;
    let began = Instant::now();
    first.stop().await;
    standby.until_leading().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    standby.stop().await;
}

#[tokio::test]
async fn a_leader_whose_lease_is_taken_stops_to_act() {
    if cluster::skip("a_leader_whose_lease_is_taken_stops_to_act") {
        return;
    }
    let scene = Scene::new(cluster_with_image().await, "taken").await;
    scene.deploy("Deployment", "orders", 0, &json!({})).await;
    let autoscaler = scene.autoscaler(&[]);
    autoscaler.until_leading().await;
    autoscaler.until_queue(&scene.queue).await;
    let taken = r#"{"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}}"#;
    let patch = [
        "patch",
        "lease/kubedaemon-autoscaler",
        "--type=merge",
        "--patch",
        taken,
    ];
    scene.namespace.kubectl(&patch).await.unwrap();
    autoscaler.0.wait_for_line("somebody holds the Lease").await;
    scene.publish(1).await;
    tokio::time::sleep(STAYS).await;
    assert_eq!(scene.replicas("deployment/orders").await, Some(0));
    autoscaler.stop().await;
}
