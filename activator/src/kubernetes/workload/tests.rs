use super::*;
use contract::settings::Flags;
use serde_json::{Value, json};

fn deployment(change: impl FnOnce(&mut Value)) -> Option<Result<Workload, Problems>> {
    let mut object = json!({
        "metadata": {
            "name": "orders", "namespace": "shop", "resourceVersion": "7",
            "annotations": { "kubedaemon.io/queue": "orders", "other/annotation": "x" },
        },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "orders" } },
            "template": {
                "metadata": { "labels": { "app": "orders" } },
                "spec": { "containers": [
                    { "name": "worker", "image": "x", "ports": [
                        { "containerPort": 53, "protocol": "UDP" }, { "name": "http", "containerPort": 9000 },
                    ] },
                    { "name": "other", "ports": [{ "name": "metrics", "containerPort": 9100 }] },
                ] },
            },
        },
    });
    change(&mut object);
    let mut object: Deployment = serde_json::from_value(object).unwrap();
    prune_deployment(&mut object);
    let defaults = Flags::new([("broker".to_owned(), "amqp://ours".to_owned())]);
    Workload::of_deployment(&object, &defaults)
}

fn good(change: impl FnOnce(&mut Value)) -> Workload {
    deployment(change).unwrap().unwrap()
}

#[test]
fn what_nobody_says_has_its_default() {
    let workload = good(|_| {});
    assert_eq!(workload.name.to_string(), "shop/orders");
    assert_eq!((workload.replicas, workload.wakes_to), (0, 1));
    assert_eq!(workload.queue.as_deref(), Some("orders"));
    assert_eq!(workload.broker.host, "ours");
    assert_eq!(workload.port, 9000, "the first TCP port of the first container");
    assert_eq!(workload.named_ports["metrics"], 9100);
    assert_eq!(workload.readiness, Readiness::Socket);
    assert_eq!(workload.refused, None);
}

#[test]
fn annotations_decide_and_the_workloads_own_win() {
    let workload = good(|object| {
        object["metadata"]["annotations"]["kubedaemon.io/min-replicas"] = json!("3");
        object["metadata"]["annotations"]["kubedaemon.io/broker"] = json!("amqp://theirs");
        object["spec"]["template"]["metadata"]["annotations"] =
            json!({ "kubedaemon.io/min-replicas": "2", "kubedaemon.io/port": "8000" });
    });
    assert_eq!((workload.wakes_to, workload.port), (3, 8000));
    assert_eq!(workload.broker.host, "theirs");
}

#[test]
fn only_a_queue_or_inject_makes_a_target() {
    for (own, template, is_target) in [
        (json!({}), json!({}), false),
        (json!({ "kubedaemon.io/port": "8000" }), json!({}), false),
        (json!({ "kubedaemon.io/inject": "true" }), json!({}), true),
        (json!({}), json!({ "kubedaemon.io/queue": "orders" }), true),
        (
            json!({ "kubedaemon.io/inject": "false" }),
            json!({ "kubedaemon.io/queue": "orders" }),
            false,
        ),
        (
            json!({ "kubedaemon.io/inject": "true" }),
            json!({ "kubedaemon.io/inject": "false" }),
            true,
        ),
    ] {
        let found = deployment(|object| {
            object["metadata"]["annotations"] = own.clone();
            object["spec"]["template"]["metadata"]["annotations"] = template.clone();
        });
        assert_eq!(found.is_some(), is_target, "{own} {template}");
    }
}

#[test]
fn a_wrong_annotation_is_told() {
    let problems = deployment(|object| {
        object["metadata"]["annotations"]["kubedaemon.io/port"] = json!("http");
    });
    let said = problems.unwrap().unwrap_err().to_string();
    assert!(said.contains("kubedaemon.io/port is \"http\""), "{said}");
}

#[test]
fn what_a_probe_asks_decides_who_asks() {
    let readiness = |key: &str, probe: Value| {
        good(|object| object["spec"]["template"]["spec"]["containers"][0][key] = probe).readiness
    };
    let http = |port: u16, path: &str| {
        Readiness::Http(HttpProbe {
            port,
            path: path.to_owned(),
            headers: Vec::new(),
        })
    };
    for (probe, expected) in [
        (json!({ "httpGet": { "port": "http" } }), http(9000, "/")),
        (
            json!({ "httpGet": { "port": 8081, "path": "/ready" } }),
            http(8081, "/ready"),
        ),
        (
            json!({ "httpGet": { "port": 9000, "scheme": "HTTPS" } }),
            Readiness::Kubelet,
        ),
        (
            json!({ "httpGet": { "port": 9000, "host": "elsewhere" } }),
            Readiness::Kubelet,
        ),
        (json!({ "tcpSocket": { "port": "http" } }), Readiness::Socket),
        (json!({ "tcpSocket": { "port": 9100 } }), Readiness::Kubelet),
        (json!({ "exec": { "command": ["true"] } }), Readiness::Kubelet),
    ] {
        assert_eq!(readiness("readinessProbe", probe.clone()), expected, "{probe}");
    }
    let slow = json!({ "tcpSocket": { "port": 9000 } });
    assert_eq!(readiness("startupProbe", slow), Readiness::Kubelet);
}

#[test]
fn a_refusal_of_pods_is_kept() {
    let workload = good(|object| {
        object["status"] = json!({ "conditions": [
            { "type": "Progressing", "status": "True", "message": "fine" },
            { "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: none" },
        ] });
    });
    assert_eq!(workload.refused.as_deref(), Some("exceeded quota: none"));
}

#[test]
fn what_is_no_target_is_pruned_to_its_name() {
    let object = json!({
        "metadata": { "name": "a", "namespace": "b", "annotations": { "x": "y" } },
        "spec": { "selector": {}, "template": { "spec": { "containers": [{ "name": "c" }] } } },
    });
    let mut object: Deployment = serde_json::from_value(object).unwrap();
    prune_deployment(&mut object);
    assert!(object.spec.is_none());
}
