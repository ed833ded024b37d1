//! Which Services does the activator stand in for, and on which of their ports?
//!
//! It stands in while the Service has no ready pod that stays: none is ready, or those that are are being drained, or
//! belong to a workload that has been scaled to zero. The kube-proxy would send calls to pods that are about to end,
//! and refuse them while it knows of no pod that is ready; so the activator is there before the last pod has gone, and
//! leaves only when another one is ready.

use crate::kubernetes::pods;
use crate::kubernetes::targets::Known;
use crate::targets::TargetName;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Names the Service that a slice belongs to; Kubernetes' own label.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Names who manages a slice; Kubernetes' own label.
pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// What the activator writes there.
pub(crate) const MANAGED_BY: &str = "kubedaemon-activator";

/// A Service: namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A Service that the activator may stand in for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Whom calls to it are for.
    pub(crate) target: TargetName,
    /// The Service's identity: its slices go with it.
    pub(crate) uid: String,
    /// Those of its ports that lead to the worker's port, in order.
    pub(crate) ports: Vec<CandidatePort>,
    /// Whether nothing else can answer now.
    pub(crate) is_needed: bool,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CandidatePort {
    /// Its name; empty when it has none, which only the single port of a Service may.
    pub(crate) name: String,
    pub(crate) app_protocol: Option<String>,
}

/// Every Service that leads to a target's worker, and whether the activator is needed behind it.
pub(crate) fn candidates(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    targets: &BTreeMap<TargetName, Known>,
    pod: impl Fn(&str, &str) -> Option<Arc<Pod>>,
) -> BTreeMap<ServiceName, Candidate> {
    let mut by_namespace: HashMap<&str, Vec<&Known>> = HashMap::new();
    for (name, known) in targets {
        by_namespace.entry(&name.namespace).or_default().push(known);
    }
    let mut candidates: BTreeMap<ServiceName, Candidate> = services
        .iter()
        .filter_map(|service| {
            let namespace = service.metadata.namespace.as_deref()?;
            let (ports, known) = by_namespace
                .get(namespace)?
                .iter()
                .find_map(|known| Some((leading_to(service, known)?, *known)))?;
            let name = ServiceName {
                namespace: namespace.to_owned(),
                name: service.metadata.name.clone()?,
            };
            let candidate = Candidate {
                target: known.workload.name.clone(),
                uid: service.metadata.uid.clone()?,
                ports,
                is_needed: true,
            };
            Some((name, candidate))
        })
        .collect();
    for slice in slices.iter().filter(|slice| !is_ours(slice)) {
        let (Some(namespace), Some(service)) = (
            slice.metadata.namespace.clone(),
            label(slice, SERVICE_LABEL).map(str::to_owned),
        ) else {
            continue;
        };
        let name = ServiceName {
            namespace,
            name: service,
        };
        let Some(candidate) = candidates.get_mut(&name).filter(|candidate| candidate.is_needed) else {
            continue;
        };
        let target = targets.get(&candidate.target);
        candidate.is_needed = !slice
            .endpoints
            .iter()
            .any(|endpoint| stays(endpoint, &name.namespace, target, &pod));
    }
    candidates
}

/// Whether an endpoint is ready and goes on to be.
fn stays(
    endpoint: &Endpoint,
    namespace: &str,
    target: Option<&Known>,
    pod: impl Fn(&str, &str) -> Option<Arc<Pod>>,
) -> bool {
    let conditions = endpoint.conditions.as_ref();
    // Unknown counts as ready: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
    if conditions.and_then(|conditions| conditions.ready) == Some(false) {
        return false;
    }
    let reference = endpoint.target_ref.as_ref();
    let Some(name) = reference
        .filter(|reference| reference.kind.as_deref() == Some("Pod"))
        .and_then(|reference| reference.name.as_deref())
    else {
        return true;
    };
    let is_sentenced = target.is_some_and(|known| known.workload.replicas == 0 && known.pods.contains(name));
    // What the pod itself says is known earlier than what the slice does.
    !is_sentenced
        && pod(namespace, name).is_some_and(|pod| pods::is_ready(&pod) && !pods::is_being_drained(&pod))
}

/// Those ports of a Service that lead to the worker's port; `None` when the Service is not one of the target's, or not
/// one that can be stood in for.
fn leading_to(service: &Service, known: &Known) -> Option<Vec<CandidatePort>> {
    let spec = service.spec.as_ref()?;
    let workload = &known.workload;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    let selects = selector
        .iter()
        .all(|(label, value)| workload.pod_labels.get(label) == Some(value));
    let has_address = spec
        .cluster_ip
        .as_deref()
        .is_some_and(|ip| !ip.is_empty() && ip != "None");
    if !selects || !has_address || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let leads = |port: &ServicePort| {
        let number = match &port.target_port {
            None => u16::try_from(port.port).ok(),
            Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
            Some(IntOrString::String(name)) => workload.named_ports.get(name).copied(),
        };
        number == Some(workload.port) && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
    };
    let ports: Vec<CandidatePort> = spec
        .ports
        .iter()
        .flatten()
        .filter(|port| leads(port))
        .map(|port| CandidatePort {
            name: port.name.clone().unwrap_or_default(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    (!ports.is_empty()).then_some(ports)
}

/// Whether an activator wrote the slice.
pub(crate) fn is_ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGED_BY_LABEL) == Some(MANAGED_BY)
}

/// A label of a slice.
pub(crate) fn label<'a>(slice: &'a EndpointSlice, name: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests;
