//! Calls to a Service whose worker is at zero.

use product::{Product, Shop, Worker};
use std::time::Duration;
use testkit::wait::PATIENCE;

/// In how many namespaces, and how often in each, a worker is woken: 100 in all.
const SHOPS: usize = 4;
const WAKES: usize = 25;

/// A worker that is only called, at zero.
async fn called(shop: &Shop<'_>, cool_down: &str) {
    let worker = Worker {
        service: true,
        ..Worker::default()
    };
    shop.deploy("worker", &worker).await;
    let settings = [
        ("inject", Some("true")),
        ("cool-down", Some(cool_down)),
        ("max-replicas", Some("2")),
    ];
    shop.annotate("worker", &settings).await;
    shop.is_scaled("worker").await;
    taken_over(shop).await;
}

/// Waits until an activator stands behind the Service.
async fn taken_over(shop: &Shop<'_>) {
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector={}",
        shop.name(),
        "kubernetes.io%2Fservice-name%3Dworker%2Cendpointslice.kubernetes.io%2Fmanaged-by%3Dkubedaemon-activator"
    );
    let api = &shop.product.api;
    let there = || async { api.items(&path).await.is_ok_and(|slices| !slices.is_empty()) };
    api.until("an activator stands behind the Service", PATIENCE, there)
        .await;
}

#[tokio::test]
async fn a_hundred_calls_in_a_row_wake_a_worker_at_zero() {
    if cluster::skip("a_hundred_calls_in_a_row_wake_a_worker_at_zero") {
        return;
    }
    let product = Product::shared().await;
    let rows = (0..SHOPS).map(|_| wake_in_a_row(product));
    let mut milliseconds: Vec<u64> = futures_util::future::join_all(rows).await.concat();
    milliseconds.sort_unstable();
    let at = |share: usize| milliseconds[(milliseconds.len() - 1) * share / 100];
    testkit::say(&format!(
        "wakes={} other_statuses=0 call_ms p50={} p90={} p99={} max={}",
        milliseconds.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    ));
    assert_eq!(milliseconds.len(), SHOPS * WAKES);
}

/// The milliseconds that each of the calls took.
async fn wake_in_a_row(product: &Product) -> Vec<u64> {
    let shop = product.shop("wake").await;
    shop.caller().await;
    called(&shop, "1s").await;
    let url = format!("http://worker.{}.svc.cluster.local/", shop.name());
    let mut took = Vec::new();
    for wake in 0..WAKES {
        let what = format!("the worker is at zero before call {wake}");
        let at_zero = || async { shop.replicas("worker").await == Some(0) };
        product.api.until(&what, Duration::from_mins(2), at_zero).await;
        let answer = shop.call(&["get", &url]).await.unwrap();
        let mut words = answer.split_whitespace();
        let (status, milliseconds) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        assert_eq!(status, "200", "call {wake}: {answer}");
        took.push(milliseconds.parse().unwrap());
    }
    took
}

#[tokio::test]
async fn two_hundred_cold_calls_at_once_cause_one_scale_up_and_are_all_answered() {
    if cluster::skip("two_hundred_cold_calls_at_once_cause_one_scale_up_and_are_all_answered") {
        return;
    }
    let shop = Product::shared().await.shop("crowd").await;
    shop.caller().await;
    called(&shop, "30s").await;
    let answers = shop
        .call(&["get-many", "200", "http://worker/?sleep_ms=50"])
        .await
        .unwrap();
    assert_eq!(answers.trim(), "200=200");
    let path = format!(
        "/api/v1/namespaces/{}/events?fieldSelector=reason%3DScalingReplicaSet",
        shop.name()
    );
    let events = shop.product.api.items(&path).await.unwrap();
    let ups: Vec<_> = events
        .iter()
        .filter(|event| event["involvedObject"]["name"] == "worker")
        .filter_map(|event| event["message"].as_str())
        .filter(|message| message.contains("Scaled up") && message.contains("from 0"))
        .collect();
    assert_eq!(ups.len(), 1, "{ups:?}");
}

#[tokio::test]
async fn calls_find_their_worker_by_path_and_are_taken_asynchronously() {
    if cluster::skip("calls_find_their_worker_by_path_and_are_taken_asynchronously") {
        return;
    }
    let shop = Product::shared().await.shop("route").await;
    shop.caller().await;
    let queue = testkit::unique("route");
    shop.deploy("worker", &Worker::default()).await;
    shop.annotate("worker", &[("queue", Some(&queue)), ("cool-down", Some("2s"))])
        .await;
    shop.is_scaled("worker").await;
    let activator = format!(
        "http://kubedaemon-activator.{}.svc.cluster.local",
        product::SYSTEM
    );
    let name = shop.name().to_owned();
    let routed = || async {
        let answer = shop.call(&["get", &format!("{activator}/{name}/worker/")]).await;
        answer.is_ok_and(|answer| answer.starts_with("200 "))
    };
    // The activator learns of a new target a moment later.
    shop.product
        .api
        .until("a call by path is answered", 2 * PATIENCE, routed)
        .await;
    let missing = shop
        .call(&["get", &format!("{activator}/{name}/nobody/")])
        .await
        .unwrap();
    assert!(missing.starts_with("404 "), "{missing}");
}
