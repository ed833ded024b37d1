use super::*;
use crate::kubernetes::workload::Workload;
use crate::targets::TargetState;
use contract::settings::Flags;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use std::collections::HashSet;

fn known(replicas: u32) -> Known {
    let object = json!({
        "metadata": { "name": "orders", "namespace": "shop", "annotations": { "kubedaemon.io/inject": "true" } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "orders" } },
            "template": {
                "metadata": { "labels": { "app": "orders", "tier": "back" } },
                "spec": { "containers": [{ "name": "worker", "ports": [{ "name": "http", "containerPort": 9000 }] }] },
            },
        },
    });
    let object: Deployment = serde_json::from_value(object).unwrap();
    let workload = Workload::of_deployment(&object, &Flags::default());
    Known {
        workload: Arc::new(workload.unwrap().unwrap()),
        state: TargetState::default(),
        calls: 0,
        pods: Arc::new(HashSet::from(["orders-1-a".to_owned()])),
    }
}

fn service(change: impl FnOnce(&mut Value)) -> Arc<Service> {
    let mut object = json!({
        "metadata": { "name": "front", "namespace": "shop", "uid": "u" },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.1",
            "selector": { "app": "orders" },
            "ports": [
                { "name": "web", "port": 80, "targetPort": "http", "appProtocol": "http" },
                { "name": "metrics", "port": 9100 },
                { "name": "dns", "port": 53, "targetPort": 9000, "protocol": "UDP" },
                { "name": "plain", "port": 9000 },
            ],
        },
    });
    change(&mut object);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn slice(manager: &str, endpoints: Value) -> Arc<EndpointSlice> {
    let mut object = json!({
        "metadata": { "name": "front-x", "namespace": "shop", "labels": {
            "kubernetes.io/service-name": "front", "endpointslice.kubernetes.io/managed-by": manager,
        } },
        "addressType": "IPv4",
    });
    object["endpoints"] = endpoints;
    Arc::new(serde_json::from_value(object).unwrap())
}

fn endpoint(pod: &str, ready: bool) -> Value {
    json!({ "addresses": ["10.0.0.1"], "conditions": { "ready": ready }, "targetRef": { "kind": "Pod", "name": pod } })
}

#[derive(Clone, Copy, PartialEq)]
enum Says {
    Ready,
    NotReady,
    /// Ready, and the autoscaler has marked it.
    Drained,
    /// Ready, and its owner has given it a cost.
    Costly,
}

fn pod(says: Says) -> Arc<Pod> {
    let status = if says == Says::NotReady { "False" } else { "True" };
    let cost = match says {
        Says::Ready | Says::NotReady => json!({}),
        Says::Drained => json!({ "controller.kubernetes.io/pod-deletion-cost": "-1000" }),
        Says::Costly => json!({ "controller.kubernetes.io/pod-deletion-cost": "5" }),
    };
    let object = json!({
        "metadata": { "name": "any", "annotations": cost },
        "status": { "conditions": [{ "type": "Ready", "status": status }] },
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn planned(
    service: Arc<Service>,
    slices: &[Arc<EndpointSlice>],
    replicas: u32,
    pods_say: Says,
) -> Option<Candidate> {
    let known = known(replicas);
    let targets = BTreeMap::from([(known.workload.name.clone(), known)]);
    let found = candidates(&[service], slices, &targets, |_, _| Some(pod(pods_say)));
    found.into_values().next()
}

#[test]
fn the_ports_are_those_that_lead_to_the_worker() {
    let candidate = planned(service(|_| {}), &[], 0, Says::Ready).unwrap();
    let names: Vec<&str> = candidate.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["web", "plain"]);
    assert_eq!(candidate.ports[0].app_protocol.as_deref(), Some("http"));
    assert_eq!(candidate.target.to_string(), "shop/orders");
}

#[test]
fn not_every_service_can_be_stood_in_for() {
    type Change = fn(&mut Value);
    let changes: [Change; 6] = [
        |object| object["spec"]["clusterIP"] = json!("None"),
        |object| object["spec"]["type"] = json!("ExternalName"),
        |object| object["spec"]["selector"] = json!({}),
        |object| object["spec"]["selector"] = json!({ "app": "orders", "tier": "front" }),
        |object| object["spec"]["ports"] = json!([{ "port": 80, "targetPort": 9100 }]),
        |object| object["metadata"]["namespace"] = json!("other"),
    ];
    for change in changes {
        let service = service(change);
        assert_eq!(
            planned(Arc::clone(&service), &[], 0, Says::Ready),
            None,
            "{service:?}"
        );
    }
    let narrower =
        |object: &mut Value| object["spec"]["selector"] = json!({ "app": "orders", "tier": "back" });
    assert!(planned(service(narrower), &[], 0, Says::Ready).is_some());
}

#[test]
fn it_is_needed_until_a_pod_is_ready_that_stays() {
    let kubernetes = "endpointslice-controller.k8s.io";
    let of = |pod: &str, ready| [slice(kubernetes, json!([endpoint(pod, ready)]))];
    for (what, slices, replicas, pods_say, is_needed) in [
        ("nothing", vec![], 0, Says::Ready, true),
        ("ready", of("orders-1-a", true).to_vec(), 1, Says::Ready, false),
        (
            "not ready",
            of("orders-1-a", false).to_vec(),
            1,
            Says::Ready,
            true,
        ),
        (
            "the pod knows better",
            of("orders-1-a", true).to_vec(),
            1,
            Says::NotReady,
            true,
        ),
        (
            "about to be drained",
            of("orders-1-a", true).to_vec(),
            1,
            Says::Drained,
            true,
        ),
        (
            "with a cost of its owner's",
            of("orders-1-a", true).to_vec(),
            1,
            Says::Costly,
            false,
        ),
        (
            "about to end",
            of("orders-1-a", true).to_vec(),
            0,
            Says::Ready,
            true,
        ),
        (
            "another's pod",
            of("other-1-a", true).to_vec(),
            0,
            Says::Ready,
            false,
        ),
        (
            "ours",
            vec![slice(MANAGED_BY, json!([endpoint("orders-1-a", true)]))],
            1,
            Says::Ready,
            true,
        ),
        (
            "no pod",
            vec![slice("somebody", json!([{ "addresses": ["10.0.0.9"] }]))],
            0,
            Says::Ready,
            false,
        ),
    ] {
        let candidate = planned(service(|_| {}), &slices, replicas, pods_say).unwrap();
        assert_eq!(candidate.is_needed, is_needed, "{what}");
    }
}
