//! Which pods of a workload can be called, and why none can.

use super::workload::{Kind, Readiness, Workload};
use k8s::pods::{Failure, bare, container_statuses, failure, unscheduled};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::core::SelectorExt;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The pods of `workload` among those of its namespace: its selector matches, and its controller owns them.
pub(crate) fn of<'a>(workload: &Workload, pods: &'a [Arc<Pod>]) -> Vec<&'a Pod> {
    let no_labels = BTreeMap::new();
    pods.iter()
        .map(AsRef::as_ref)
        .filter(|pod| {
            let labels = pod.metadata.labels.as_ref().unwrap_or(&no_labels);
            is_owned(workload, pod) && workload.selector.matches(labels)
        })
        .collect()
}

/// Selectors of two workloads may overlap, owners do not. A Deployment owns its pods through sets of replicas whose
/// names begin with its own.
fn is_owned(workload: &Workload, pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let name = workload.name.name.as_str();
    owners.any(|owner| match workload.kind {
        Kind::Deployment => {
            owner.kind == "ReplicaSet"
                && owner
                    .name
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('-'))
        }
        Kind::StatefulSet => owner.kind == "StatefulSet" && owner.name == name,
    })
}

/// Whether the pod has been told to end.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the kubelet says that the pod is ready, and nobody has told it to end.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    !is_terminating(pod)
        && conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the autoscaler has said that it drains the pod: it will not be ready in a moment.
pub(crate) fn is_being_drained(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|all| all.get(contract::pods::DELETION_COST));
    cost.is_some_and(|cost| cost == contract::pods::DRAINED_COST)
}

/// Whether the pod has ended for good.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The pod's address.
pub(crate) fn ip(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()
}

/// The pod's identity, which no other pod ever has.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Where the workload can be called, in order: its ready pods. While there is none, those that may accept connections
/// before anybody has called them ready: pods that have an address, when the socket decides, and pods whose readiness
/// probe we have seen succeed (`proven`, by uid).
///
/// A pod that is being drained is not ready, so it gets no calls while another one is.
pub(crate) fn endpoints(workload: &Workload, pods: &[&Pod], proven: &HashSet<String>) -> Vec<SocketAddr> {
    let addresses = |wanted: &dyn Fn(&Pod) -> bool| {
        let mut addresses: Vec<SocketAddr> = pods
            .iter()
            .filter(|pod| wanted(pod))
            .filter_map(|pod| Some(SocketAddr::new(ip(pod)?, workload.port)))
            .collect();
        addresses.sort_unstable();
        addresses
    };
    let ready = addresses(&is_ready);
    if !ready.is_empty() {
        return ready;
    }
    addresses(&|pod| {
        may_start(workload, pod)
            && match workload.readiness {
                Readiness::Socket => true,
                Readiness::Http(_) => proven.contains(uid(pod)),
                Readiness::Kubelet => false,
            }
    })
}

/// Whether the pod has an address and nothing is known that keeps its worker from running.
pub(crate) fn may_start(workload: &Workload, pod: &Pod) -> bool {
    // The status of the worker's container follows its start by up to a second, the period of the kubelet's look at
    // the runtime; so a container that is only said to be about to start is asked as well.
    let worker = status(pod, &workload.worker);
    let is_held_up = worker.is_some_and(|worker| match &worker.state {
        Some(ContainerState {
            waiting: Some(waiting),
            ..
        }) => !matches!(
            waiting.reason.as_deref(),
            None | Some("ContainerCreating" | "PodInitializing")
        ),
        Some(ContainerState {
            terminated: Some(_), ..
        }) => true,
        _ => false,
    });
    !is_terminating(pod) && !has_ended(pod) && ip(pod).is_some() && !is_held_up
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    container_statuses(pod).find(|status| status.name == container)
}

/// Why the workload has no ready pod, in a sentence, as far as its pods and its controller tell; `None` when it has
/// one, or when nothing is known.
pub(crate) fn trouble(workload: &Workload, pods: &[&Pod]) -> Option<String> {
    if pods.iter().any(|pod| is_ready(pod)) {
        return None;
    }
    let starting = || pods.iter().filter(|pod| !is_terminating(pod) && !has_ended(pod));
    starting()
        .find_map(|pod| failure(pod).map(Failure::into_sentence))
        .or_else(|| starting().find_map(|pod| unscheduled(pod)))
        .or_else(|| {
            let cause = workload.refused.as_deref()?;
            Some(format!("its pods cannot be made: {}", bare(cause)))
        })
        .or_else(|| starting().find_map(|pod| progress(workload, pod)))
}

/// How far a pod is that nothing is known to be wrong with.
fn progress(workload: &Workload, pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let worker = status(pod, &workload.worker)?;
    let state = worker.state.as_ref()?;
    if state.running.is_some() {
        return Some(match workload.readiness {
            Readiness::Socket => format!(
                "pod {name} runs and does not accept connections on port {}",
                workload.port
            ),
            _ => format!("pod {name} runs and its readiness probe has not succeeded yet"),
        });
    }
    let reason = state.waiting.as_ref()?.reason.as_deref()?;
    Some(format!("pod {name} is still at {reason}"))
}

#[cfg(test)]
mod tests;
