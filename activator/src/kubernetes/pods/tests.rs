use super::*;
use crate::kubernetes::workload::HttpProbe;
use crate::targets::TargetName;
use contract::settings::Flags;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

fn workload() -> Workload {
    let object = json!({
        "metadata": {
            "name": "orders", "namespace": "shop", "annotations": { "kubedaemon.io/inject": "true" },
        },
        "spec": {
            "selector": { "matchLabels": { "app": "orders" } },
            "template": { "spec": { "containers": [{ "name": "worker" }] } },
        },
    });
    let object: Deployment = serde_json::from_value(object).unwrap();
    let read = Workload::of_deployment(&object, &Flags::default());
    read.unwrap().unwrap()
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Pod {
    let mut object = json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "labels": { "app": "orders" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "u" }],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{ "type": "Ready", "status": "False" }],
            "containerStatuses": [status("worker", &json!({ "running": {} }))],
        },
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

fn status(name: &str, state: &Value) -> Value {
    json!({
        "name": name, "ready": false, "restartCount": 4, "image": "x", "imageID": "x", "state": state,
        "lastState": { "terminated": { "exitCode": 3 } },
    })
}

fn ready(object: &mut Value) {
    object["status"]["conditions"][0]["status"] = json!("True");
}

fn callable(workload: &Workload, pods: &[&Pod], proven: &[&str]) -> Vec<String> {
    let proven = proven.iter().map(|&uid| uid.to_owned()).collect();
    let endpoints = endpoints(workload, pods, &proven);
    endpoints.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_are_those_that_the_selector_matches_and_the_workload_owns() {
    let owner = |kind: &str, name: &str| {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        move |object: &mut Value| {
            object["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
            object["metadata"]["ownerReferences"][0]["name"] = json!(name);
        }
    };
    let all = [
        pod("own", |_| {}),
        pod("labels", |object| {
            object["metadata"]["labels"] = json!({ "app": "x" });
        }),
        pod("other", owner("ReplicaSet", "orders2-1")),
        pod("job", owner("Job", "orders-1")),
        pod("set", owner("StatefulSet", "orders")),
    ]
    .map(Arc::new);
    let names = |workload: &Workload| -> Vec<String> {
        of(workload, &all)
            .iter()
            .filter_map(|pod| pod.metadata.name.clone())
            .collect()
    };
    let mut workload = workload();
    assert_eq!(names(&workload), ["own"]);
    workload.kind = Kind::StatefulSet;
    assert_eq!(names(&workload), ["set"]);
    workload.name = TargetName {
        namespace: "shop".to_owned(),
        name: "nobody".to_owned(),
    };
    assert_eq!(names(&workload), [] as [&str; 0]);
}

#[test]
fn the_socket_decides_as_soon_as_a_pod_has_an_address() {
    let workload = workload();
    let waiting = |reason: &str| {
        let state = json!({ "waiting": { "reason": reason } });
        move |object: &mut Value| object["status"]["containerStatuses"][0]["state"] = state
    };
    for pod in [
        pod("running", |_| {}),
        pod("initializing", waiting("PodInitializing")),
        pod("creating", waiting("ContainerCreating")),
    ] {
        let name = pod.metadata.name.as_deref();
        assert_eq!(callable(&workload, &[&pod], &[]), ["10.0.0.1:8080"], "{name:?}");
    }
    for pod in [
        pod("pulling", waiting("ImagePullBackOff")),
        pod("crashing", waiting("CrashLoopBackOff")),
        pod("nowhere", |object| object["status"]["podIP"] = json!(null)),
        pod("failed", |object| object["status"]["phase"] = json!("Failed")),
        pod("ending", |object| {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            ready(object);
        }),
    ] {
        let name = pod.metadata.name.as_deref();
        assert_eq!(callable(&workload, &[&pod], &[]), [] as [&str; 0], "{name:?}");
    }
}

#[test]
fn pods_that_are_not_ready_get_no_calls_while_another_is() {
    let workload = workload();
    let draining = pod("draining", |object| object["status"]["podIP"] = json!("10.0.0.2"));
    let ready = pod("ready", ready);
    assert_eq!(callable(&workload, &[&draining, &ready], &[]), ["10.0.0.1:8080"]);
    assert_eq!(callable(&workload, &[&draining], &[]), ["10.0.0.2:8080"]);
}

#[test]
fn a_readiness_probe_is_respected() {
    let mut workload = workload();
    let (starting, ready) = (pod("starting", |_| {}), pod("ready", ready));
    workload.readiness = Readiness::Kubelet;
    assert_eq!(callable(&workload, &[&starting], &["starting"]), [] as [&str; 0]);
    assert_eq!(callable(&workload, &[&ready], &[]), ["10.0.0.1:8080"]);
    workload.readiness = Readiness::Http(HttpProbe {
        port: 8080,
        path: "/".to_owned(),
        headers: Vec::new(),
    });
    assert_eq!(callable(&workload, &[&starting], &[]), [] as [&str; 0]);
    assert_eq!(
        callable(&workload, &[&starting], &["starting"]),
        ["10.0.0.1:8080"]
    );
}

#[test]
fn trouble_says_what_is_wrong() {
    let state =
        |state: Value| move |object: &mut Value| object["status"]["containerStatuses"][0]["state"] = state;
    let unscheduled = |object: &mut Value| {
        object["status"] = json!({ "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes." },
        ] });
    };
    let refused = Workload {
        refused: Some("exceeded quota.".to_owned()),
        ..workload()
    };
    for (pods, said) in [
        (vec![], "its pods cannot be made: exceeded quota"),
        (vec![pod("p", ready), pod("q", unscheduled)], ""),
        (vec![pod("p", unscheduled)], "no node can take pod p: 0/1 nodes"),
        (
            vec![
                pod("p", unscheduled),
                pod(
                    "q",
                    state(json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image." } })),
                ),
            ],
            "the image of container worker of pod q cannot be had (ErrImagePull): no such image",
        ),
        (
            vec![pod(
                "p",
                state(json!({ "waiting": { "reason": "CrashLoopBackOff" } })),
            )],
            "container worker of pod p keeps ending: exit code 3 (CrashLoopBackOff)",
        ),
        (
            vec![pod(
                "p",
                state(json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } })),
            )],
            "container worker of pod p keeps ending: it needed more memory than its limit allows (OOMKilled, exit code 137) \
             (CrashLoopBackOff)",
        ),
        (
            vec![pod(
                "p",
                state(
                    json!({ "waiting": { "reason": "CreateContainerConfigError", "message": "no secret" } }),
                ),
            )],
            "container worker of pod p cannot be started (CreateContainerConfigError): no secret",
        ),
    ] {
        let pods: Vec<&Pod> = pods.iter().collect();
        assert_eq!(trouble(&refused, &pods).unwrap_or_default(), said);
    }
    let running = pod("p", |_| {});
    assert_eq!(
        trouble(&workload(), &[&running]).unwrap_or_default(),
        "pod p runs and does not accept connections on port 8080"
    );
    assert_eq!(trouble(&workload(), &[]), None);
}
