//! The activator's own EndpointSlices: what one looks like, and whose it is.

use super::plan::{Candidate, MANAGED_BY, MANAGED_BY_LABEL, SERVICE_LABEL, ServiceName, label};
use crate::kubernetes::config::{Identity, SliceOwner};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Names the replica of the activator, by its pod, that a slice leads to.
pub(crate) const REPLICA_LABEL: &str = "kubedaemon.io/activator";
/// Names that pod's namespace: several activators may serve one cluster.
pub(crate) const NAMESPACE_LABEL: &str = "kubedaemon.io/activator-namespace";
/// The longest value of a label.
const LABEL: usize = 63;

/// What a replica's slice for a Service has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The port on which the replica takes calls for each port of the Service, in the Service's order.
    pub(crate) ports: Vec<WantedPort>,
    /// Where the replica runs, when that is known: Services that prefer their own node look at it.
    pub(crate) node: Option<String>,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedPort {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) app_protocol: Option<String>,
}

/// The name of a replica's slice for a Service.
pub(crate) fn name(service: &ServiceName, identity: &Identity) -> String {
    format!("{}-kubedaemon-{:08x}", service.name, fold(hash(&identity.pod)))
}

/// The replica in a label. Names of pods may be longer than a label's value; those that Deployments make are not.
pub(crate) fn replica(pod: &str) -> String {
    if pod.len() <= LABEL {
        pod.to_owned()
    } else {
        format!("{:016x}", hash(pod))
    }
}

/// The slice, to be applied by the server.
pub(crate) fn object(
    service: &ServiceName,
    candidate: &Candidate,
    wanted: &Wanted,
    identity: &Identity,
    owner: Option<&Value>,
) -> Value {
    let own_service =
        || json!({ "apiVersion": "v1", "kind": "Service", "name": service.name, "uid": candidate.uid });
    let ports: Vec<Value> = wanted
        .ports
        .iter()
        .map(|port| {
            let mut object = json!({ "name": port.name, "port": port.number, "protocol": "TCP" });
            if let Some(protocol) = &port.app_protocol {
                object["appProtocol"] = json!(protocol);
            }
            object
        })
        .collect();
    let mut endpoint = json!({
        "addresses": [identity.ip.to_string()],
        "conditions": { "ready": true, "serving": true, "terminating": false },
    });
    if let Some(node) = &wanted.node {
        endpoint["nodeName"] = json!(node);
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name(service, identity),
            "namespace": service.namespace,
            "labels": {
                SERVICE_LABEL: service.name,
                MANAGED_BY_LABEL: MANAGED_BY,
                REPLICA_LABEL: replica(&identity.pod),
                NAMESPACE_LABEL: identity.namespace,
            },
            // It goes with its Service unless it is to go with the activator: an object goes with the last of its owners.
            "ownerReferences": [owner.cloned().unwrap_or_else(own_service)],
        },
        "addressType": match identity.ip {
            IpAddr::V4(_) => "IPv4",
            IpAddr::V6(_) => "IPv6",
        },
        "endpoints": [endpoint],
        "ports": ports,
    })
}

/// The reference to what owns slices.
pub(crate) fn owner(owner: &SliceOwner, uid: &str) -> Value {
    let (kind, name) = match owner {
        SliceOwner::ClusterRole(name) => ("ClusterRole", name),
        SliceOwner::Role { name, .. } => ("Role", name),
    };
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "name": name, "uid": uid })
}

/// Whether a slice that is there says what is wanted.
pub(crate) fn says(slice: &EndpointSlice, wanted: &Wanted, identity: &Identity) -> bool {
    let ports = slice.ports.iter().flatten().map(|port| {
        (
            port.name.clone().unwrap_or_default(),
            port.port,
            port.app_protocol.clone(),
        )
    });
    let wanted_ports = wanted.ports.iter().map(|port| {
        (
            port.name.clone(),
            Some(i32::from(port.number)),
            port.app_protocol.clone(),
        )
    });
    let is_here = |address: &String| address.parse() == Ok(identity.ip);
    let [endpoint] = &slice.endpoints[..] else {
        return false;
    };
    ports.eq(wanted_ports)
        && endpoint.addresses.iter().all(is_here)
        && endpoint.node_name == wanted.node
        && endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready)
            == Some(true)
}

/// The ports that a slice leads to, by the names of the Service's ports.
pub(crate) fn numbers(slice: &EndpointSlice) -> impl Iterator<Item = (String, u16)> {
    slice.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port?).ok()?;
        Some((port.name.clone().unwrap_or_default(), number))
    })
}

/// The replica that a slice leads to, if it is one of the activator in this namespace.
pub(crate) fn replica_of<'a>(slice: &'a EndpointSlice, identity: &Identity) -> Option<&'a str> {
    label(slice, REPLICA_LABEL).filter(|_| label(slice, NAMESPACE_LABEL) == Some(&identity.namespace))
}

/// FNV-1a: names need to differ, and to be the same after a restart, which the standard library's hasher does not
/// promise.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Both halves of a hash in one.
fn fold(hash: u64) -> u64 {
    (hash >> 32) ^ (hash & 0xffff_ffff)
}
