//! The container that is added to a pod, and what is in its way.

use super::admission::Warning;
use super::model::{self, Plan};
use super::pod::Injection;
use crate::manifest::{Container, PodShape};
use contract::pods::{DRAIN_KEY_ENV, POD_NAME_ENV, POD_NAMESPACE_ENV};
use contract::settings::{BROKER, PORT, SETTINGS, Setting};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) use contract::pods::{SIDECAR_ADMIN_PORT as ADMIN_PORT, SIDECAR_CONTAINER as NAME};

/// Tells a sidecar that it is meant to have no queue.
const REPORT_ONLY_ENV: &str = "KUBEDAEMON_REPORT_ONLY";

/// The admin port's name.
const PORT_NAME: &str = "kubedaemon";

/// What a pod gets to stop beyond the longest message. The sidecar itself ends 5 s after the timeout; the rest is for
/// the worker's own end.
pub(super) const GRACE_MARGIN: Duration = Duration::from_secs(10);

/// What Kubernetes writes into every pod that says nothing, before we see it
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>).
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The user of the sidecar's image.
const USER: u32 = 65_532;

/// Whether the pod has the sidecar, or a container of its name.
pub(super) fn is_in(pod: &Value) -> bool {
    ["/spec/initContainers", "/spec/containers"].iter().any(|list| {
        pod.pointer(list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .any(|container| container.get("name").and_then(Value::as_str) == Some(NAME))
    })
}

/// The sentence for a pod that has another container of that name.
pub(super) fn name_taken(pod: &Value) -> Option<String> {
    is_in(pod)
        .then(|| format!("a container is named {NAME:?}, which is the sidecar's name: write another name"))
}

/// The sentence for a pod in which somebody else has the sidecar's port; containers of a pod share their ports.
pub(super) fn port_taken(plan: &Plan, containers: &[Container]) -> Option<String> {
    if !plan.has_sidecar() {
        return None;
    }
    let accepted = format!("another port; the sidecar listens on {ADMIN_PORT}");
    if plan.settings.port == ADMIN_PORT {
        let name = PORT.annotation();
        return Some(format!(
            "{name} is {ADMIN_PORT}, which is the sidecar's own: write {accepted}"
        ));
    }
    let container = containers
        .iter()
        .find(|container| container.ports.contains(&ADMIN_PORT))?;
    Some(format!(
        "container {} has containerPort {ADMIN_PORT}, which is the sidecar's own: write {accepted}",
        container.name
    ))
}

/// What looks wrong in a pod that gets a sidecar.
pub(super) fn warnings(plan: &Plan, shape: &PodShape, injection: &Injection) -> Vec<Warning> {
    let is_default_grace = shape.termination_grace_period == Some(DEFAULT_GRACE);
    let mut warnings: Vec<Warning> = plan
        .warnings
        .iter()
        .filter(|warning| {
            !(is_default_grace && matches!(warning, model::Warning::GracePeriodTooShort { .. }))
        })
        .cloned()
        .map(Warning::Model)
        .collect();
    if !plan.has_sidecar() {
        return warnings;
    }
    let is_written = |setting: &Setting| shape.annotations.contains_key(&setting.annotation());
    if !is_written(&PORT) && plan.worker.ports.is_empty() {
        warnings.push(Warning::PortAssumed);
    }
    let has_queue = plan.settings.queue.is_some();
    if has_queue && !is_written(&BROKER) && injection.broker_secret.is_none() {
        warnings.push(Warning::NoBroker);
    }
    warnings
}

/// The container.
pub(super) fn container(plan: &Plan, shape: &PodShape, injection: &Injection) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": PORT_NAME},
            "periodSeconds": period,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        })
    };
    json!({
        "name": NAME,
        "image": injection.image,
        "restartPolicy": "Always",
        "env": environment(plan, shape, injection),
        "ports": [{"name": PORT_NAME, "containerPort": ADMIN_PORT, "protocol": "TCP"}],
        // No startup probe: it would delay the worker, which is started when we count as started, and without one that
        // is as soon as we run. /readyz fails until the worker's port has answered once, and while we drain or have drained,
        // so that a pod that is about to go gets no calls and is the first that a ReplicaSet removes; a broker that is
        // away takes no worker out of its Service.
        "readinessProbe": probe("/readyz", 1, 2),
        "livenessProbe": probe("/healthz", 10, 3),
        "lifecycle": {"preStop": {"exec": {"command": ["/sidecar", "drain"]}}},
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        // The restricted level: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// What the annotations say, in the table's order, where the admin port is, which pod this is and who may drain it.
fn environment(plan: &Plan, shape: &PodShape, injection: &Injection) -> Vec<Value> {
    let settings = SETTINGS.iter().filter_map(|setting| {
        let name = setting.env();
        let annotation = setting.annotation();
        let written = shape.annotations.get(&annotation);
        if setting.name == PORT.name {
            // Always: it may come from the container, and a Service named "kubedaemon" would set this variable too.
            return Some(json!({"name": name, "value": plan.settings.port.to_string()}));
        }
        if setting.name == BROKER.name {
            plan.settings.queue.as_ref()?;
            return broker(&name, &annotation, written.is_some(), injection);
        }
        written.map(|value| json!({"name": name, "value": literal(value)}))
    });
    let admin = json!({"name": "KUBEDAEMON_ADMIN", "value": format!("0.0.0.0:{ADMIN_PORT}")});
    let report_only = plan.settings.queue.is_none();
    let report_only = report_only.then(|| json!({"name": REPORT_ONLY_ENV, "value": "true"}));
    let own = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let pod = [
        own(POD_NAME_ENV, "metadata.name"),
        own(POD_NAMESPACE_ENV, "metadata.namespace"),
    ];
    let key = injection.drain_key.as_ref();
    let key = key.map(|key| json!({"name": DRAIN_KEY_ENV, "value": key}));
    settings
        .chain([admin])
        .chain(report_only)
        .chain(pod)
        .chain(key)
        .collect()
}

/// By reference in both cases: an address may hold a password.
fn broker(variable: &str, annotation: &str, is_written: bool, injection: &Injection) -> Option<Value> {
    if is_written {
        let path = format!("metadata.annotations['{annotation}']");
        return Some(json!({"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
    }
    let secret = injection.broker_secret.as_ref()?;
    let reference = json!({"name": secret.name, "key": secret.key});
    Some(json!({"name": variable, "valueFrom": {"secretKeyRef": reference}}))
}

/// Kubernetes expands `$(NAME)` in values and takes `$$` for one `$`
/// (<https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>).
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}
