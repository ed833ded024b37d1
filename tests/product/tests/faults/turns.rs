//! One test at a time has the product, and finds it whole.

use product::{Product, SYSTEM, Shop, Worker};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

static TURN: Mutex<()> = Mutex::const_new(());

/// The product, until the guard is dropped.
pub(crate) async fn turn() -> (&'static Product, MutexGuard<'static, ()>) {
    let guard = TURN.lock().await;
    let product = Product::shared().await;
    // A test that failed may have left something away.
    let whole = [
        "scale",
        "deployment",
        "--all",
        "--namespace",
        SYSTEM,
        "--replicas=2",
    ];
    product.kubectl(&whole).await.unwrap();
    product.is_available().await;
    (product, guard)
}

/// Changes how many pods one of our components has.
pub(crate) async fn scale(product: &Product, component: &str, replicas: u32) {
    let (name, replicas) = (
        format!("kubedaemon-{component}"),
        format!("--replicas={replicas}"),
    );
    let command = ["scale", "deployment", &name, "--namespace", SYSTEM, &replicas];
    product.kubectl(&command).await.unwrap();
    let path = format!("/apis/apps/v1/namespaces/{SYSTEM}/deployments/{name}");
    let pods =
        format!("/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app.kubernetes.io%2Fcomponent%3D{component}");
    let settled = || async {
        let Ok(deployment) = product.api.get(&path).await else {
            return false;
        };
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or_default();
        let there = product
            .api
            .items(&pods)
            .await
            .map_or(usize::MAX, |pods| pods.len());
        deployment["status"]["readyReplicas"].as_u64().unwrap_or_default() == wanted && there as u64 == wanted
    };
    product
        .api
        .until("the component has its replicas", PATIENCE, settled)
        .await;
}

/// A worker with a queue, which the autoscaler has taken over.
pub(crate) async fn fed(shop: &Shop<'_>, settings: &[(&str, &str)]) -> String {
    let settings = [&[("max-replicas", "2")], settings].concat();
    shop.feed(&Worker::default(), &settings).await
}
