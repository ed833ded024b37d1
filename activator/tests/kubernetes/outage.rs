//! The API server goes away; it has a cluster of its own, because everything else would miss it.

use crate::support::{Replica, load_worker, put_to_sleep, service, worker};
use cluster::Cluster;
use testkit::http::get;
use testkit::wait::{PATIENCE, until};

#[tokio::test]
async fn warm_calls_go_on_without_the_api_server() {
    if cluster::skip("warm_calls_go_on_without_the_api_server") {
        return;
    }
    let cluster = Cluster::start().await;
    load_worker(&cluster).await;
    let namespace = cluster.namespace("outage").await;
    namespace.apply(&worker().to_string()).await;
    namespace.apply(&service().to_string()).await;
    let replica = Replica::start(&cluster, &namespace, &["--wake-timeout", "20s"]).await;
    replica.knows(&namespace).await;
    let url = replica.worker(&namespace);
    let cold = get(&url).await.unwrap();
    assert_eq!(cold.status, 200, "{}", cold.text());

    cluster.kill_component("kube-apiserver");
    until("the activator has noticed", PATIENCE, || async {
        !replica.admin("/status").await["out_of_date"].is_null()
    })
    .await;
    for _ in 0..100 {
        let answer = get(&url).await.unwrap();
        assert_eq!((answer.status, answer.text()), (cold.status, cold.text()));
    }
    let ready = get(&format!("{}/readyz", replica.admin)).await.unwrap();
    assert_eq!(ready.status, 200, "it can do its work: {}", ready.text());

    cluster.start_component("kube-apiserver");
    until("the API server is back", PATIENCE, || async {
        cluster.kubectl(&["get", "--raw=/readyz"]).await.is_ok()
    })
    .await;
    put_to_sleep(&namespace).await;
    let again = get(&url).await.unwrap();
    assert_eq!(again.status, 200, "{}", again.text());
}
