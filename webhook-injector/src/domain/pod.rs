//! Pods: an annotated one gets its sidecar.

use super::admission::{Admission, DenyReason, Outcome, PatchReason, SkipReason, Warning};
use super::model::{Decision, Plan, judge};
use super::patch::{Operation, pointer};
use super::review::unreadable;
use super::sidecar::{self, DEFAULT_GRACE, GRACE_MARGIN};
use crate::manifest::PodShape;
use contract::annotations::STATUS;
use contract::settings::Naming;
use serde_json::{Value, json};

/// What an injector is told about the sidecars that it adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The sidecar's image.
    pub image: String,
    /// Where pods find the broker's address that name none themselves; in their own namespace.
    pub broker_secret: Option<SecretKey>,
    /// A path of the sidecar's admin port that answers a GET once it has drained
    /// ([`DRAINED_PATH`](contract::pods::DRAINED_PATH)). With it workers that have a queue get a `preStop` hook that
    /// waits for that answer.
    pub drained_path: Option<String>,
    /// The public key that sidecars check permissions to drain with; without one they only drain by themselves.
    pub drain_key: Option<String>,
}

/// One entry of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    /// The Secret's name.
    pub name: String,
    /// The entry's key.
    pub key: String,
}

/// Decides on a pod that is made.
pub fn decide(object: &Value, injection: &Injection) -> Admission {
    // First of all: what is none of ours is never refused, whatever is in it.
    if !has_our_annotations(object, "/metadata/annotations") {
        return Outcome::Skip(SkipReason::AnnotationAbsent).into();
    }
    let shape = match PodShape::of_pod(object) {
        Ok(shape) => shape,
        Err(sentence) => return unreadable(&sentence),
    };
    match ineligible(object) {
        Some(SkipReason::AlreadyInjected) => return Outcome::Skip(SkipReason::AlreadyInjected).into(),
        Some(reason) => return told(reason),
        None => {}
    }
    let plan = match judge(
        &shape.annotations,
        &shape.containers,
        shape.termination_grace_period,
    ) {
        Decision::Deny(problems) => return DenyReason::bad_annotations(&problems),
        Decision::Skip(reason) => return Outcome::Skip(reason.into()).into(),
        Decision::Inject(plan) => plan,
    };
    if !plan.has_sidecar() {
        return Admission {
            outcome: Outcome::Skip(SkipReason::NoQueue),
            warnings: plan.warnings.into_iter().map(Warning::Model).collect(),
        };
    }
    if let Some(sentence) = sidecar::name_taken(object) {
        return Outcome::Deny(DenyReason::NameTaken, vec![sentence]).into();
    }
    if let Some(sentence) = sidecar::port_taken(&plan, &shape.containers) {
        return Outcome::Deny(DenyReason::PortTaken, vec![sentence]).into();
    }
    let mut warnings = sidecar::warnings(&plan, &shape, injection);
    if drained_path(&plan, injection).is_some() && has_own_hook(object) {
        let container = plan.worker.name.clone();
        warnings.push(Warning::PreStopKept { container });
    }
    Admission {
        warnings,
        outcome: Outcome::Patch(PatchReason::Injected, inject(object, &plan, &shape, injection)),
    }
}

/// Whether the annotations at `path` have one of ours among them.
pub(super) fn has_our_annotations(object: &Value, path: &str) -> bool {
    object
        .pointer(path)
        .and_then(Value::as_object)
        .is_some_and(|annotations| annotations.keys().any(|name| Naming::Annotation.has_prefix(name)))
}

/// A skip that its author may not expect, unless they asked for it.
fn told(reason: SkipReason) -> Admission {
    Admission {
        outcome: Outcome::Skip(reason),
        warnings: vec![Warning::NotInjected(reason)],
    }
}

/// Why a pod cannot get a sidecar, whatever its annotations say.
fn ineligible(pod: &Value) -> Option<SkipReason> {
    let text = |path| pod.pointer(path).and_then(Value::as_str);
    let has_status = text("/metadata/annotations/kubedaemon.io~1status").is_some();
    if has_status && sidecar::is_in(pod) {
        return Some(SkipReason::AlreadyInjected);
    }
    if text("/metadata/annotations/kubedaemon.io~1inject") == Some("false") {
        // Said by the model; nothing else matters then.
        return None;
    }
    if text("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
        return Some(SkipReason::MirrorPod);
    }
    if pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Some(SkipReason::HostNetwork);
    }
    let os = [
        text("/spec/os/name"),
        text("/spec/nodeSelector/kubernetes.io~1os"),
    ];
    os.contains(&Some("windows")).then_some(SkipReason::WindowsNode)
}

fn inject(pod: &Value, plan: &Plan, shape: &PodShape, injection: &Injection) -> Vec<Operation> {
    let container = sidecar::container(plan, shape, injection);
    let mut operations = Vec::new();
    operations.push(match pod.pointer("/spec/initContainers") {
        // Last: the user's init containers need nothing of ours, and of several sidecars the last stops first, so
        // that a mesh's outlives ours.
        Some(Value::Array(_)) => Operation::Add {
            path: "/spec/initContainers/-".to_owned(),
            value: container,
        },
        _ => Operation::set(pod, "/spec/initContainers".to_owned(), json!([container])),
    });
    operations.extend(drained_path(plan, injection).and_then(|path| worker_hook(pod, path)));
    let there = shape.termination_grace_period.unwrap_or(DEFAULT_GRACE);
    let wanted = (plan.settings.timeout + GRACE_MARGIN).as_millis().div_ceil(1000);
    if u128::from(there.as_secs()) < wanted {
        let path = "/spec/terminationGracePeriodSeconds".to_owned();
        let seconds = u64::try_from(wanted).unwrap_or(u64::MAX);
        operations.push(Operation::set(pod, path, json!(seconds)));
    }
    let status = json!({"container": sidecar::NAME, "version": env!("CARGO_PKG_VERSION")}).to_string();
    operations.push(Operation::set(
        pod,
        pointer("/metadata/annotations", STATUS),
        json!(status),
    ));
    operations
}

/// The hook that keeps the worker running until its sidecar has drained: Kubernetes stops a pod's own containers
/// first and native sidecars after them, and calls the hook itself, so the worker's image needs nothing
/// (<https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>).
fn worker_hook(pod: &Value, path: &str) -> Option<Operation> {
    let hook = json!({"httpGet": {"path": path, "port": sidecar::ADMIN_PORT}});
    if has_own_hook(pod) {
        return None;
    }
    let lifecycle = "/spec/containers/0/lifecycle";
    Some(if pod.pointer(lifecycle).is_some_and(Value::is_object) {
        Operation::set(pod, pointer(lifecycle, "preStop"), hook)
    } else {
        Operation::set(pod, lifecycle.to_owned(), json!({"preStop": hook}))
    })
}

/// Without a queue there is nothing in flight that a worker could wait for.
fn drained_path<'a>(plan: &Plan, injection: &'a Injection) -> Option<&'a str> {
    plan.settings.queue.as_ref()?;
    injection.drained_path.as_deref()
}

fn has_own_hook(pod: &Value) -> bool {
    pod.pointer("/spec/containers/0/lifecycle/preStop")
        .is_some_and(|hook| !hook.is_null())
}
