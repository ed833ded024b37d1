//! The leading autoscaler is killed.

use crate::turns::{PATIENCE, fed, turn};
use product::{Product, SYSTEM};
use serde_json::json;
use tokio::time::Instant;

/// Who holds the autoscaler's Lease.
async fn leader(product: &Product) -> Option<String> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/kubedaemon-autoscaler");
    let lease = product.api.get(&path).await.ok()?;
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    (!holder.is_empty()).then(|| holder.to_owned())
}

#[tokio::test]
async fn the_standby_goes_on_when_the_leader_is_killed_in_a_burst() {
    if cluster::skip("the_standby_goes_on_when_the_leader_is_killed_in_a_burst") {
        return;
    }
    let (product, _turn) = turn().await;
    let shop = product.shop("leader").await;
    let queue = fed(&shop, &[("cool-down", "2s"), ("messages-per-replica", "20")]).await;
    shop.publish(&queue, 100, |_| json!({"sleep_ms": 200})).await;
    shop.has_ended(5, PATIENCE).await;
    let before = product
        .api
        .until("there is a leader", PATIENCE, || leader(product))
        .await;
    // The identity begins with the pod's name.
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods");
    let pods = product.api.items(&path).await.unwrap();
    let names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
    let pod = names
        .into_iter()
        .find(|name| before.starts_with(*name))
        .unwrap()
        .to_owned();
    let kill = [
        "delete",
        "pod",
        &pod,
        "--namespace",
        SYSTEM,
        "--grace-period=0",
        "--force",
    ];
    product.kubectl(&kill).await.unwrap();
    let killed = Instant::now();
    let other = || async { leader(product).await.is_some_and(|now| now != before) };
    product.api.until("the standby leads", PATIENCE, other).await;
    testkit::say(&format!("takeover_ms={}", killed.elapsed().as_millis()));
    let mut least = u64::MAX;
    let done = || async {
        let now = shop.replicas("worker").await.unwrap_or(u64::MAX);
        (shop.ended().len() == 100, now)
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (is_done, replicas) = done().await;
        if is_done {
            break;
        }
        least = least.min(replicas);
        assert!(
            Instant::now() < deadline,
            "{} of 100 have ended",
            shop.ended().len()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(least > 0, "scaled to zero while messages waited");
    shop.has_replicas("worker", 0, PATIENCE).await;
}
