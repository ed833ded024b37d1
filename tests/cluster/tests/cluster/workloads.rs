//! What runs in the cluster: pods of an image of ours, Services, names, logs, namespaces side by side.

use crate::support::{cluster_with_probe, deploy};
use cluster::Namespace;
use testkit::wait::{PATIENCE, until};

const EXEC: [&str; 4] = ["exec", "deployment/probe", "--", "/probe"];

/// Runs the probe in the pod of the namespace.
async fn probe(namespace: &Namespace<'_>, args: &[&str]) -> Result<String, String> {
    namespace.kubectl(&[&EXEC, args].concat()).await
}

#[tokio::test]
async fn the_node_is_ready_and_bears_the_version() {
    if cluster::skip("the_node_is_ready_and_bears_the_version") {
        return;
    }
    let cluster = cluster_with_probe().await;
    let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]).await.unwrap();
    let fields: Vec<&str> = nodes.split_whitespace().collect();
    assert_eq!(fields[..2], [cluster.node_name(), "Ready"], "{nodes}");
    assert_eq!(fields[4], "v1.36.3", "{nodes}");
}

#[tokio::test]
async fn a_deployment_of_our_image_becomes_available() {
    if cluster::skip("a_deployment_of_our_image_becomes_available") {
        return;
    }
    let namespace = cluster_with_probe().await.namespace("available").await;
    deploy(&namespace).await;
}

#[tokio::test]
async fn a_pod_finds_a_service_by_name_and_its_own_pod_behind_it() {
    if cluster::skip("a_pod_finds_a_service_by_name_and_its_own_pod_behind_it") {
        return;
    }
    let namespace = cluster_with_probe().await.namespace("names").await;
    deploy(&namespace).await;
    let ip = ["get", "service", "probe", "--output=jsonpath={.spec.clusterIP}"];
    let ip = namespace.kubectl(&ip).await.unwrap();
    // DNS and the proxy learn of the Service on their own, a moment later.
    for name in [
        "probe".to_owned(),
        format!("probe.{}.svc.cluster.local", namespace.name()),
    ] {
        until("the name resolves", PATIENCE, || async {
            probe(&namespace, &["lookup", &name])
                .await
                .is_ok_and(|out| out.trim() == ip)
        })
        .await;
    }
    let answer = until("the Service answers", PATIENCE, || async {
        probe(&namespace, &["get", "http://probe/"]).await.ok()
    })
    .await;
    assert!(answer.starts_with("200 probe-"), "{answer}");
    let unknown = probe(&namespace, &["lookup", "example.com"]).await.unwrap_err();
    assert!(unknown.contains("no such host"), "{unknown}");
}

#[tokio::test]
async fn the_machine_reaches_services_by_address() {
    if cluster::skip("the_machine_reaches_services_by_address") {
        return;
    }
    let namespace = cluster_with_probe().await.namespace("reach").await;
    deploy(&namespace).await;
    let ip = ["get", "service", "probe", "--output=jsonpath={.spec.clusterIP}"];
    let ip = namespace.kubectl(&ip).await.unwrap();
    until("the machine connects", PATIENCE, || async {
        tokio::net::TcpStream::connect((ip.as_str(), 80)).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn logs_and_exec_work() {
    if cluster::skip("logs_and_exec_work") {
        return;
    }
    let namespace = cluster_with_probe().await.namespace("logs").await;
    deploy(&namespace).await;
    let logs = namespace.kubectl(&["logs", "deployment/probe"]).await.unwrap();
    assert!(logs.starts_with("serving\n"), "{logs}");
    assert!(logs.contains("asked for /ready"), "{logs}");
    let answer = probe(&namespace, &["get", "http://127.0.0.1:8080/"])
        .await
        .unwrap();
    assert!(answer.starts_with("200 probe-"), "{answer}");
    let failed = probe(&namespace, &["get", "http://127.0.0.1:1/"])
        .await
        .unwrap_err();
    assert!(failed.contains("connection refused"), "{failed}");
}

#[tokio::test]
async fn two_namespaces_live_side_by_side_and_go() {
    if cluster::skip("two_namespaces_live_side_by_side_and_go") {
        return;
    }
    let cluster = cluster_with_probe().await;
    let (one, other) = (cluster.namespace("side").await, cluster.namespace("side").await);
    tokio::join!(deploy(&one), deploy(&other));
    let name = one.name().to_owned();
    drop(one);
    until("the namespace is gone", 2 * PATIENCE, || async {
        let gone = cluster.kubectl(&["get", "namespace", &name]).await;
        gone.is_err_and(|error| error.contains("NotFound"))
    })
    .await;
    let answer = probe(&other, &["get", "http://127.0.0.1:8080/"]).await.unwrap();
    assert!(answer.starts_with("200 probe-"), "{answer}");
}
