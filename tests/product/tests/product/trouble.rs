//! Workers that cannot run: callers and Events say why, and no message is used up by it.

use product::{Product, Shop, Worker};
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

/// A worker with a queue and a Service, at zero.
async fn troubled(shop: &Shop<'_>, worker: Worker) -> String {
    let worker = Worker {
        service: true,
        ..worker
    };
    let settings = [("cool-down", "2s"), ("max-replicas", "1")];
    shop.feed(&worker, &settings).await
}

/// Messages wait, a call is answered 504 with the cause, and an Event names it.
async fn says(stem: &str, worker: Worker, prepare: Option<&str>, words: &[&str]) {
    let shop = Product::shared().await.shop(stem).await;
    if let Some(manifest) = prepare {
        shop.namespace.apply(manifest).await;
    }
    let queue = troubled(&shop, worker).await;
    shop.publish(&queue, 5, |_| json!({})).await;
    let activator = format!(
        "http://kubedaemon-activator.{}.svc.cluster.local",
        product::SYSTEM
    );
    let call = format!("{activator}/{}/worker/", shop.name());
    let address = [
        "get",
        "service",
        "-n",
        product::SYSTEM,
        "kubedaemon-activator",
        "-o=jsonpath={.spec.clusterIP}",
    ];
    let ip = shop.product.kubectl(&address).await.unwrap();
    let call = call.replace(
        &format!("kubedaemon-activator.{}.svc.cluster.local", product::SYSTEM),
        &ip,
    );
    let told = || async {
        let answer = testkit::http::get(&call).await.ok()?;
        let said = answer.text();
        (answer.status.as_u16() == 504 && words.iter().any(|word| said.contains(word))).then_some(said)
    };
    let said = shop
        .product
        .api
        .until("a call is told the cause", PATIENCE, told)
        .await;
    testkit::say(&format!("{stem}: 504 {}", said.trim()));
    let event = || async {
        let events = shop.events().await;
        events
            .into_iter()
            .find(|event| words.iter().any(|word| event.contains(word)))
    };
    let event = shop
        .product
        .api
        .until("an Event names the cause", PATIENCE, event)
        .await;
    testkit::say(&format!("{stem}: Event {event}"));
    assert_eq!(
        shop.amqp.depth(&queue).await.map(|(ready, _)| ready),
        Some(5),
        "messages wait untouched"
    );
    assert_eq!(
        shop.amqp
            .depth(&format!("{queue}.dead"))
            .await
            .map(|(ready, _)| ready),
        Some(0)
    );
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told() {
    if cluster::skip("an_image_that_cannot_be_pulled_is_told") {
        return;
    }
    let worker = Worker {
        image: "localhost/nowhere:1".to_owned(),
        ..Worker::default()
    };
    says("pull", worker, None, &["ImagePull", "ErrImage"]).await;
}

#[tokio::test]
async fn a_worker_that_crashes_at_once_is_told() {
    if cluster::skip("a_worker_that_crashes_at_once_is_told") {
        return;
    }
    let worker = Worker {
        arguments: vec!["exit"],
        ..Worker::default()
    };
    says(
        "crash",
        worker,
        None,
        &["CrashLoopBackOff", "exit code 3", "exited with 3"],
    )
    .await;
}

#[tokio::test]
async fn a_pod_that_no_node_can_hold_is_told() {
    if cluster::skip("a_pod_that_no_node_can_hold_is_told") {
        return;
    }
    let worker = Worker {
        resources: json!({"requests": {"cpu": "1000"}}),
        ..Worker::default()
    };
    says(
        "unschedulable",
        worker,
        None,
        &["Insufficient cpu", "nodes are available"],
    )
    .await;
}

#[tokio::test]
async fn a_quota_that_forbids_pods_is_told() {
    if cluster::skip("a_quota_that_forbids_pods_is_told") {
        return;
    }
    let quota = r#"{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}"#;
    says("quota", Worker::default(), Some(quota), &["exceeded quota"]).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_for_its_memory_does_not_take_other_messages_with_it() {
    if cluster::skip("a_worker_that_is_killed_for_its_memory_does_not_take_other_messages_with_it") {
        return;
    }
    let shop = Product::shared().await.shop("oom").await;
    let worker = Worker {
        resources: json!({"limits": {"memory": "48Mi"}}),
        ..Worker::default()
    };
    let queue = troubled(&shop, worker).await;
    shop.annotate(
        "worker",
        &[
            ("max-attempts", Some("2")),
            ("retry-backoff", Some("100ms..200ms")),
        ],
    )
    .await;
    shop.publish(
        &queue,
        4,
        |index| json!({"then": if index == 1 { "oom" } else { "" }}),
    )
    .await;
    // The others are answered, the killer is given up after its attempts.
    shop.has_ended(3, PATIENCE).await;
    let dead = format!("{queue}.dead");
    let given_up = || async { shop.amqp.depth(&dead).await.is_some_and(|(ready, _)| ready == 1) };
    shop.product
        .api
        .until("the killer is dead-lettered", Duration::from_mins(4), given_up)
        .await;
    let letter = shop.amqp.get(&dead).await.unwrap();
    assert_eq!(
        letter.header_text("x-kubedaemon-reason").as_deref(),
        Some("crashed_worker"),
        "{letter:?}"
    );
}
