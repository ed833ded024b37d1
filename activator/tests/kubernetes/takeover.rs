//! The activator stands in for Services.

use crate::support::{
    Replica, another_pod, call_from_pod, cluster_with_worker, container, deploy_caller, put_to_sleep,
    service, set_condition, standing, stub, worker,
};
use cluster::{Cluster, Namespace};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::process::Process;
use testkit::wait::{PATIENCE, until};

/// A worker at zero behind a Service, a caller, and an activator that stands in.
async fn asleep(cluster: &Cluster, namespace: &Namespace<'_>) -> Replica {
    namespace.apply(&worker().to_string()).await;
    namespace.apply(&service().to_string()).await;
    deploy_caller(namespace).await;
    let replica = Replica::start(cluster, namespace, &[]).await;
    stands(namespace, &[&replica.pod]).await;
    replica
}

/// Waits until exactly these activators have slices in the namespace.
async fn stands(namespace: &Namespace<'_>, pods: &[&str]) {
    until(&format!("slices are of {pods:?}"), PATIENCE, || async {
        standing(namespace).await == pods
    })
    .await;
}

#[tokio::test]
async fn ten_wakes_in_a_row_through_the_service() {
    if cluster::skip("ten_wakes_in_a_row_through_the_service") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("row").await;
    let replica = asleep(cluster, &namespace).await;
    let by_name = format!("http://worker.{}.svc.cluster.local/", namespace.name());
    // The cluster's DNS and proxy learn of the Service on their own, a moment later than we do.
    until("the Service answers", PATIENCE, || async {
        call_from_pod(&namespace, &by_name).await.ok()
    })
    .await;
    for wake in 0..10 {
        stands(&namespace, &[]).await;
        put_to_sleep(&namespace).await;
        let url = if wake % 2 == 0 { "http://worker/" } else { &by_name };
        let answer = call_from_pod(&namespace, url).await.unwrap();
        assert!(answer.starts_with("200 worker-"), "wake {wake}: {answer}");
    }
    stands(&namespace, &[]).await;
    drop(replica);
}

#[tokio::test]
async fn calls_of_a_service_are_the_workers_whatever_their_path() {
    if cluster::skip("calls_of_a_service_are_the_workers_whatever_their_path") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("path").await;
    let _replica = asleep(cluster, &namespace).await;
    let answer = until("the Service answers", PATIENCE, || async {
        call_from_pod(&namespace, "http://worker/async/worker").await.ok()
    })
    .await;
    assert!(answer.starts_with("200 worker-"), "{answer}");
}

#[tokio::test]
async fn a_slice_has_only_the_ports_that_lead_to_the_worker() {
    if cluster::skip("a_slice_has_only_the_ports_that_lead_to_the_worker") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("ports").await;
    let mut headless = service();
    headless["metadata"]["name"] = json!("headless");
    headless["spec"]["clusterIP"] = json!("None");
    namespace.apply(&headless.to_string()).await;
    let _replica = asleep(cluster, &namespace).await;
    let asked = [
        "get",
        "endpointslices",
        "--selector=endpointslice.kubernetes.io/managed-by=kubedaemon-activator",
        "--output=json",
    ];
    let slices = namespace.kubectl(&asked).await.unwrap();
    let slices: serde_json::Value = serde_json::from_str(&slices).unwrap();
    assert_eq!(slices["items"].as_array().unwrap().len(), 1, "{slices}");
    let slice = &slices["items"][0];
    assert_eq!(
        slice["metadata"]["labels"]["kubernetes.io/service-name"],
        "worker"
    );
    let ports = slice["ports"].as_array().unwrap();
    assert_eq!((ports.len(), &ports[0]["name"]), (1, &json!("http")), "{slice}");
    assert_eq!(
        slice["endpoints"][0]["addresses"],
        json!([cluster.machine().to_string()])
    );
}

#[tokio::test]
async fn slices_of_a_replica_that_was_killed_are_removed() {
    if cluster::skip("slices_of_a_replica_that_was_killed_are_removed") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("dead").await;
    let first = asleep(cluster, &namespace).await;
    let dead = first.pod.clone();
    drop(first);
    assert_eq!(
        standing(&namespace).await,
        [dead.as_str()],
        "nobody has withdrawn it"
    );
    let second = Replica::start(cluster, &namespace, &[]).await;
    stands(&namespace, &[&second.pod]).await;
    let answer = until("the Service answers", PATIENCE, || async {
        call_from_pod(&namespace, "http://worker/").await.ok()
    })
    .await;
    assert!(answer.starts_with("200 worker-"), "{answer}");
}

#[tokio::test]
async fn two_replicas_stand_side_by_side_each_while_it_is_ready() {
    if cluster::skip("two_replicas_stand_side_by_side_each_while_it_is_ready") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("both").await;
    namespace.apply(&worker().to_string()).await;
    namespace.apply(&service().to_string()).await;
    stub(&namespace, "replica-a", true).await;
    stub(&namespace, "replica-b", false).await;
    let own = namespace.name();
    let first = Replica::start_as(cluster, &namespace, (own, "replica-a"), &[]).await;
    let _second = Replica::start_as(cluster, &namespace, (own, "replica-b"), &[]).await;
    stands(&namespace, &["replica-a"]).await;
    stub(&namespace, "replica-b", true).await;
    stands(&namespace, &["replica-a", "replica-b"]).await;
    // Killed, as with its node: its pod becomes unready long before anybody deletes it.
    drop(first);
    stub(&namespace, "replica-a", false).await;
    stands(&namespace, &["replica-b"]).await;
    namespace
        .kubectl(&["delete", "pod", "replica-b", "--grace-period=0", "--force"])
        .await
        .unwrap();
    stands(&namespace, &[]).await;
}

#[tokio::test]
async fn a_drain_withdraws_first_and_takes_calls_that_come_late() {
    if cluster::skip("a_drain_withdraws_first_and_takes_calls_that_come_late") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("drain").await;
    let replica = asleep(cluster, &namespace).await;
    let name = format!("{}/worker", namespace.name());
    let port = replica.admin("/status").await["services"][&name]["ports"][0].clone();
    let late = format!("http://{}:{port}/", cluster.machine());
    replica.process.signal(TERM);
    stands(&namespace, &[]).await;
    let unready = testkit::http::get(&format!("{}/readyz", replica.admin))
        .await
        .unwrap();
    assert_eq!(
        (unready.status.as_u16(), unready.text().trim()),
        (503, "draining")
    );
    // A node that has not heard of it sends another call.
    let answer = testkit::http::get(&late).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(ended_well(&replica.process).await);
}

const TERM: rustix::process::Signal = rustix::process::Signal::TERM;

async fn ended_well(process: &Process) -> bool {
    process.wait().await.success()
}

#[tokio::test]
async fn a_replica_that_is_restarted_keeps_its_ports() {
    if cluster::skip("a_replica_that_is_restarted_keeps_its_ports") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("restart").await;
    namespace.apply(&worker().to_string()).await;
    namespace.apply(&service().to_string()).await;
    let own = format!("{}-own", namespace.name());
    let ports = async |flags: &[&str]| {
        let replica = Replica::start_as(cluster, &namespace, (&own, "same"), flags).await;
        stands(&namespace, &["same"]).await;
        let name = format!("{}/worker", namespace.name());
        until("the port is open", PATIENCE, || async {
            let status = replica.admin("/status").await;
            let service = &status["services"][&name];
            (service["standing_in"] == true).then(|| service["ports"].clone())
        })
        .await
    };
    let before = ports(&["--takeover-ports", "23456-23499"]).await;
    // Another range would give another port.
    let after = ports(&["--takeover-ports", "24000-24499"]).await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn no_call_fails_while_a_worker_comes_and_goes() {
    if cluster::skip("no_call_fails_while_a_worker_comes_and_goes") {
        return;
    }
    let cluster = cluster_with_worker().await;
    let namespace = cluster.namespace("handover").await;
    let mut worker = worker();
    // Drained pods are not ready, which in this test an administrator says.
    worker["spec"]["template"]["spec"]["readinessGates"] = json!([{ "conditionType": "test/undrained" }]);
    container(&mut worker)["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 2 } } });
    worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(5);
    namespace.apply(&worker.to_string()).await;
    namespace.apply(&service().to_string()).await;
    let replica = Replica::start(cluster, &namespace, &[]).await;
    stands(&namespace, &[&replica.pod]).await;
    let ip = ["get", "service", "worker", "--output=jsonpath={.spec.clusterIP}"];
    let url = format!("http://{}/", namespace.kubectl(&ip).await.unwrap());
    until("the Service answers", PATIENCE, || async {
        testkit::http::get(&url).await.is_ok()
    })
    .await;

    let is_over = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let (mut good, mut bad) = (0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                match testkit::http::get(&url).await {
                    Ok(answer) if answer.status == 200 => good += 1,
                    other => bad.push(format!("{other:?}")),
                }
            }
            (good, bad)
        }
    });
    let mut pods = Vec::new();
    for _ in 0..3 {
        let another = || another_pod(&namespace, &pods);
        let pod = until("there is another pod", PATIENCE, another).await;
        set_condition(&namespace, &pod, "test/undrained", true).await;
        stands(&namespace, &[]).await;
        // As the autoscaler does before it drains a pod: the activator is there before the pod is not ready.
        let mark = format!(
            "{}={}",
            contract::pods::DELETION_COST,
            contract::pods::DRAINED_COST
        );
        namespace
            .kubectl(&["annotate", "pod", &pod, &mark])
            .await
            .unwrap();
        stands(&namespace, &[&replica.pod]).await;
        set_condition(&namespace, &pod, "test/undrained", false).await;
        let scale = ["scale", "deployment/worker", "--replicas=0"];
        namespace.kubectl(&scale).await.unwrap();
        pods.push(pod);
    }
    is_over.store(true, Ordering::Relaxed);
    let (good, bad) = calls.await.unwrap();
    assert_eq!(bad, [] as [&str; 0], "of {good}");
    assert!(good > 20, "{good}");
}
