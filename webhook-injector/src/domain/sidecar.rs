//! The container that is added to a pod, and what is in its way.

use super::admission::Warning;
use super::model::{self, Plan};
use super::pod::Injection;
use crate::manifest::{Container, PodShape};
use contract::settings::{BROKER, PORT, SETTINGS, Setting, Settings};
use serde_json::{Value, json};
use std::time::Duration;

/// The container's name.
pub(super) const NAME: &str = "kubedaemon-sidecar";

/// The sidecar's admin port.
pub(super) const ADMIN_PORT: u16 = 9464;

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
pub(super) fn port_taken(settings: &Settings, containers: &[Container]) -> Option<String> {
    settings.queue.as_ref()?;
    let accepted = format!("another port; the sidecar listens on {ADMIN_PORT}");
    if settings.port == ADMIN_PORT {
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
    if plan.settings.queue.is_none() {
        return warnings;
    }
    let is_written = |setting: &Setting| shape.annotations.contains_key(&setting.annotation());
    if !is_written(&PORT) && plan.worker.ports.is_empty() {
        warnings.push(Warning::PortAssumed);
    }
    if !is_written(&BROKER) && injection.broker_secret.is_none() {
        warnings.push(Warning::NoBroker);
    }
    warnings
}

/// The container.
pub(super) fn container(plan: &Plan, shape: &PodShape, injection: &Injection) -> Value {
    let probe = |period: u32, failures: u32| {
        json!({
            "httpGet": {"path": "/healthz", "port": PORT_NAME},
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
        // No readiness probe: a pod is ready when its worker is. A broker that is away must not take a worker out of
        // its Service.
        "startupProbe": probe(1, 60),
        "livenessProbe": probe(10, 3),
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

/// What the annotations say, in the table's order, and where the admin port is.
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
            return broker(&name, &annotation, written.is_some(), injection);
        }
        written.map(|value| json!({"name": name, "value": literal(value)}))
    });
    let admin = json!({"name": "KUBEDAEMON_ADMIN", "value": format!("0.0.0.0:{ADMIN_PORT}")});
    settings.chain([admin]).collect()
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
