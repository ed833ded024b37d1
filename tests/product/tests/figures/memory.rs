//! What the components keep, and how long reviews take.

use product::{Product, SYSTEM, Worker};
use std::collections::BTreeMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(3);

/// The resident memory of each component, the largest of its pods, in KiB, with so many annotated Deployments.
pub(crate) async fn with_annotated_deployments(product: &Product, count: usize) -> BTreeMap<String, u64> {
    let shop = product.shop("figures-many").await;
    for index in 0..count {
        let name = format!("worker-{index}");
        shop.deploy(&name, &Worker::default()).await;
        let queue = format!("{}-{index}", shop.name());
        shop.annotate(&name, &[("queue", Some(&queue))]).await;
    }
    let last = format!("{}-{}", shop.name(), count - 1);
    product
        .api
        .until("the last queue is declared", PATIENCE, || async {
            shop.amqp.depth(&last).await.is_some()
        })
        .await;
    let processes = product.on_node(&["ps", "-e", "-o", "rss=,args="]).await.unwrap();
    let mut most = BTreeMap::new();
    for component in ["autoscaler", "activator", "webhook-injector", "sidecar"] {
        let program = format!("/{component}");
        let resident = processes.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let resident = words.next()?.parse::<u64>().ok()?;
            (words.next() == Some(&program)).then_some(resident)
        });
        if let Some(resident) = resident.max() {
            most.insert(component.to_owned(), resident);
        }
    }
    most
}

/// The injector's own account of its reviews: the lines of its metrics that tell how long they took.
pub(crate) async fn review_latency(product: &Product) -> String {
    let path =
        format!("/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app.kubernetes.io%2Fcomponent%3Dinjector");
    let mut lines = Vec::new();
    for pod in product.api.items(&path).await.unwrap() {
        let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
        let metrics = testkit::http::get(&format!("http://{ip}:9464/metrics")).await;
        let text = metrics.map(|answer| answer.text()).unwrap_or_default();
        lines.extend(
            text.lines()
                .filter(|line| {
                    line.starts_with("injector_admission_duration_seconds") && !line.starts_with('#')
                })
                .map(str::to_owned),
        );
    }
    lines.join("\n")
}
