//! The injector is away, slow to come, or without its rights.
#![expect(clippy::print_stdout, reason = "what people see is worth reading")]

use crate::support::{
    By, Installed, created, get, is_asked, pod, pod_of, queue, review_on, sidecar, workload,
};
use serde_json::json;
use std::time::Duration;
use testkit::wait::{PATIENCE, until};

#[tokio::test]
async fn without_an_injector_annotated_pods_wait_and_others_do_not() {
    if cluster::skip("without_an_injector_annotated_pods_wait_and_others_do_not") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("outage").await;
    let replica = installed.serve(&[&target]).await;
    let mut orders = workload("Deployment", "orders", &queue());
    orders["spec"]["replicas"] = json!(0);
    created(installed.cluster, &target, &orders, &[]).await.unwrap();

    let address = replica.address.to_string();
    drop(replica);
    // A change of the count is nothing that we are asked about; the pod that comes of it is.
    target
        .kubectl(&["scale", "deployment/orders", "--replicas=1"])
        .await
        .unwrap();
    let failed = until("the ReplicaSet is told no", PATIENCE, || async {
        let conditions = get(&target, "replicasets").await["items"][0]["status"]["conditions"].clone();
        let failed = conditions
            .as_array()?
            .iter()
            .find(|c| c["type"] == "ReplicaFailure")?;
        Some(failed["message"].as_str()?.to_owned())
    })
    .await;
    println!("{failed}");
    assert!(
        failed.contains("failed calling webhook \"pods.kubedaemon.io\""),
        "{failed}"
    );
    created(
        installed.cluster,
        &target,
        &workload("Deployment", "plain", &json!({})),
        &[],
    )
    .await
    .unwrap();
    pod_of(&target, "plain", |pod| sidecar(&pod["spec"]).is_none()).await;
    let refused = target
        .kubectl(&["annotate", "deployment/plain", "kubedaemon.io/queue=plain"])
        .await
        .unwrap_err();
    assert!(
        refused.contains("failed calling webhook \"workloads.kubedaemon.io\""),
        "{refused}"
    );

    let _replica = installed.start_on(&address).await;
    pod_of(&target, "orders", |pod| sidecar(&pod["spec"]).is_some()).await;
}

#[tokio::test]
async fn readiness_waits_for_trust_and_what_is_lost_later_stops_no_review() {
    if cluster::skip("readiness_waits_for_trust_and_what_is_lost_later_stops_no_review") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("trust").await;
    let replica = installed.start().await;
    installed.route(&[&replica]).await;
    replica
        .process
        .wait_for_line("there is no MutatingWebhookConfiguration")
        .await;
    let (status, said) = replica.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(said.contains("caBundle"), "{said}");
    assert_eq!(replica.get("/healthz").await.0, 200);
    installed.configure(&[&target], &replica).await;
    replica.ready().await;
    until("the API server asks the injector", PATIENCE, || async {
        is_asked(installed.cluster, &target).await
    })
    .await;

    // Without rights it is as without an API server: it goes on with what it has.
    installed
        .release
        .kubectl(&["delete", "rolebinding", "injector"])
        .await
        .unwrap();
    replica.process.wait_for_line("goes on with what is there").await;
    until("both keepers are refused", PATIENCE, || async {
        replica
            .metric("injector_cluster_failures_total{part=\"drain_key\"}")
            .await
            > 0
    })
    .await;
    assert_eq!(replica.get("/readyz").await.0, 200);
    let pod = created(
        installed.cluster,
        &target,
        &pod("still", &queue()),
        &["--dry-run=server"],
    )
    .await
    .unwrap();
    assert!(sidecar(&pod["spec"]).is_some());
}

#[tokio::test]
async fn reviews_are_answered_while_the_api_server_is_away() {
    if cluster::skip("reviews_are_answered_while_the_api_server_is_away") {
        return;
    }
    // Other tests need theirs.
    let cluster: &'static cluster::Cluster = Box::leak(Box::new(cluster::Cluster::start().await));
    let installed = Installed::on(cluster, By::Service).await;
    let target = cluster.namespace("away").await;
    let replica = installed.serve(&[&target]).await;
    let bundles = installed.bundles().await;
    let connection = installed.connect(&replica).await;

    cluster.kill_component("kube-apiserver");
    replica
        .process
        .wait_for_line("the API server cannot be asked")
        .await;
    assert_eq!(replica.get("/readyz").await.0, 200);
    let answer = review_on(connection).await;
    assert_eq!((&answer["uid"], &answer["allowed"]), (&json!("u"), &json!(true)));
    assert!(answer["patch"].is_string(), "{answer}");

    cluster.start_component("kube-apiserver");
    let patience = Duration::from_mins(2);
    until("the API server asks again", patience, || async {
        is_asked(cluster, &target).await
    })
    .await;
    until("both parts have recovered", patience, || async {
        replica
            .process
            .matching("the cluster can be looked at again")
            .len()
            >= 2
    })
    .await;
    assert_eq!(installed.bundles().await, bundles);
}
