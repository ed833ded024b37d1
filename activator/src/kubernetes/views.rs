//! What the API server tells, each kind pruned to what is used.

use super::config::Config;
use super::workload::{prune_deployment, prune_stateful_set};
use k8s::{Clients, Trouble, View};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Everything that is followed.
#[derive(Debug, Clone)]
pub(crate) struct Views {
    pub(crate) deployments: View<Deployment>,
    pub(crate) stateful_sets: View<StatefulSet>,
    pub(crate) pods: View<Pod>,
    /// What takeover needs besides; `None` without takeover.
    pub(crate) behind: Option<Behind>,
}

/// Services, what stands behind them, and the replicas of the activator.
#[derive(Debug, Clone)]
pub(crate) struct Behind {
    pub(crate) services: View<Service>,
    pub(crate) slices: View<EndpointSlice>,
    /// The pods of the activator's own namespace.
    pub(crate) replicas: View<Pod>,
}

impl Views {
    /// Begins to follow.
    pub(crate) fn follow(clients: &Clients, config: &Config) -> Self {
        let namespace = config.watch_namespace.as_deref();
        let behind = config.identity.as_ref().map(|identity| Behind {
            services: View::follow(clients, namespace, "", prune_service),
            slices: View::follow(clients, namespace, "", prune_slice),
            replicas: View::follow(clients, Some(&identity.namespace), "", prune_pod),
        });
        Self {
            deployments: View::follow(clients, namespace, "", prune_deployment),
            stateful_sets: View::follow(clients, namespace, "", prune_stateful_set),
            pods: View::follow(clients, namespace, "", prune_pod),
            behind,
        }
    }

    /// Waits until all of them have told everything once. Cancel safe.
    pub(crate) async fn ready(&self) {
        self.deployments.ready().await;
        self.stateful_sets.ready().await;
        self.pods.ready().await;
        if let Some(behind) = &self.behind {
            behind.services.ready().await;
            behind.slices.ready().await;
            behind.replicas.ready().await;
        }
    }

    /// Why what is shown may be out of date: the oldest trouble of any of them.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let behind = self.behind.as_ref();
        [
            self.deployments.trouble(),
            self.stateful_sets.trouble(),
            self.pods.trouble(),
            behind.and_then(|behind| behind.services.trouble()),
            behind.and_then(|behind| behind.slices.trouble()),
            behind.and_then(|behind| behind.replicas.trouble()),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|trouble| trouble.since)
    }
}

fn prune_metadata(metadata: &mut ObjectMeta) {
    metadata.annotations = None;
}

fn prune_pod(pod: &mut Pod) {
    // By the one that is kept, the autoscaler says that it drains the pod.
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| name == contract::pods::DELETION_COST);
    }
    let node_name = pod.spec.take().and_then(|spec| spec.node_name);
    pod.spec = Some(PodSpec {
        node_name,
        ..PodSpec::default()
    });
    if let Some(status) = &mut pod.status {
        let statuses = status
            .container_statuses
            .iter_mut()
            .chain(status.init_container_statuses.iter_mut());
        for status in statuses.flatten() {
            *status = ContainerStatus {
                name: std::mem::take(&mut status.name),
                ready: status.ready,
                restart_count: status.restart_count,
                state: status.state.take(),
                last_state: status.last_state.take(),
                ..ContainerStatus::default()
            };
        }
        status.ephemeral_container_statuses = None;
    }
}

fn prune_service(service: &mut Service) {
    prune_metadata(&mut service.metadata);
    service.metadata.labels = None;
    service.status = None;
    service.spec = service.spec.take().map(|spec| ServiceSpec {
        cluster_ip: spec.cluster_ip,
        ports: spec.ports,
        selector: spec.selector,
        type_: spec.type_,
        ..ServiceSpec::default()
    });
}

fn prune_slice(slice: &mut EndpointSlice) {
    prune_metadata(&mut slice.metadata);
    slice.metadata.owner_references = None;
    for endpoint in &mut slice.endpoints {
        (endpoint.hints, endpoint.hostname, endpoint.zone) = (None, None, None);
    }
}
