//! What the cluster looks like, of all that scaling needs.

use super::config::Config;
use super::workload::{Key, Kind, Workload};
use k8s::{Clients, Trouble, View};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a watch may be interrupted before nothing is decided from it any more.
const STALE: Duration = Duration::from_secs(3);
/// The index of pods is at most this much older than the view of them.
const REINDEX: Duration = Duration::from_millis(50);

/// All views.
#[derive(Debug, Clone)]
pub(super) struct Views {
    pub(super) deployments: View<Deployment>,
    pub(super) stateful_sets: View<StatefulSet>,
    pub(super) autoscalers: View<HorizontalPodAutoscaler>,
    replica_sets: View<ReplicaSet>,
    pods: View<Pod>,
    index: Arc<Mutex<Index>>,
}

/// Pods and `ReplicaSet`s by the unique id of what controls them.
#[derive(Debug, Default)]
struct Index {
    pods: Children<Pod>,
    replica_sets: Children<ReplicaSet>,
}

#[derive(Debug)]
struct Children<K> {
    /// The view's revision, and when it was indexed.
    of: Option<(u64, Instant)>,
    by_owner: HashMap<String, Vec<Arc<K>>>,
}

impl<K> Default for Children<K> {
    fn default() -> Self {
        Self {
            of: None,
            by_owner: HashMap::new(),
        }
    }
}

impl<K: kube::Resource<DynamicType = ()>> Children<K> {
    fn refresh(&mut self, revision: u64, all: impl FnOnce() -> Vec<Arc<K>>) {
        let now = Instant::now();
        let is_fresh = self
            .of
            .is_some_and(|(known, at)| known == revision || now.saturating_duration_since(at) < REINDEX);
        if is_fresh {
            return;
        }
        self.of = Some((revision, now));
        self.by_owner.clear();
        for object in all() {
            if let Some(owner) = controller(object.meta()) {
                let owner = owner.to_owned();
                self.by_owner.entry(owner).or_default().push(object);
            }
        }
    }

    fn of(&self, owner: &str) -> &[Arc<K>] {
        self.by_owner.get(owner).map_or(&[], Vec::as_slice)
    }
}

/// The unique id of the object that controls this one.
fn controller(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_deref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(&owner.uid)
}

impl Views {
    /// Begins to follow. Must be called within a runtime.
    pub(super) fn follow(clients: &Clients, config: &Config) -> Self {
        let namespace = config.watch_namespace.as_deref();
        Self {
            deployments: View::follow(clients, namespace, "", prune_deployment),
            stateful_sets: View::follow(clients, namespace, "", prune_stateful_set),
            autoscalers: View::follow(clients, namespace, "", prune_autoscaler),
            replica_sets: View::follow(clients, namespace, "", prune_replica_set),
            pods: View::follow(clients, namespace, "", prune_pod),
            index: Arc::default(),
        }
    }

    /// Waits until all is known. Cancel safe.
    pub(super) async fn ready(&self) {
        tokio::join!(
            self.deployments.ready(),
            self.stateful_sets.ready(),
            self.autoscalers.ready(),
            self.replica_sets.ready(),
            self.pods.ready(),
        );
    }

    /// Why something is not or no longer known, with its kind.
    pub(super) fn troubles(&self) -> Vec<(&'static str, Trouble)> {
        [
            ("deployments", self.deployments.trouble()),
            ("statefulsets", self.stateful_sets.trouble()),
            ("horizontalpodautoscalers", self.autoscalers.trouble()),
            ("replicasets", self.replica_sets.trouble()),
            ("pods", self.pods.trouble()),
        ]
        .into_iter()
        .filter_map(|(kind, trouble)| Some((kind, trouble?)))
        .collect()
    }

    /// Why nothing may be decided from the views now, in a sentence.
    pub(super) fn staleness(&self) -> Option<String> {
        self.troubles().into_iter().find_map(|(kind, trouble)| {
            (trouble.since.elapsed() >= STALE)
                .then(|| format!("changes of {kind} cannot be watched: {}", trouble.sentence))
        })
    }

    /// Every workload.
    pub(super) fn workloads(&self) -> Vec<Workload> {
        let deployments = self.deployments.all();
        let stateful_sets = self.stateful_sets.all();
        deployments
            .iter()
            .map(|deployment| Workload::of_deployment(deployment))
            .chain(stateful_sets.iter().map(|set| Workload::of_stateful_set(set)))
            .collect()
    }

    /// One workload.
    pub(super) fn workload(&self, key: &Key) -> Option<Workload> {
        let Key {
            kind,
            namespace,
            name,
        } = key;
        match kind {
            Kind::Deployment => {
                let found = self.deployments.get(namespace, name)?;
                Some(Workload::of_deployment(&found))
            }
            Kind::StatefulSet => {
                let found = self.stateful_sets.get(namespace, name)?;
                Some(Workload::of_stateful_set(&found))
            }
        }
    }

    /// The pods of a workload, those that are ending or have ended too.
    pub(super) fn pods_of(&self, workload: &Workload) -> Vec<Arc<Pod>> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = *self.pods.revisions().borrow();
        index.pods.refresh(revision, || self.pods.all());
        match workload.key.kind {
            Kind::StatefulSet => index.pods.of(&workload.uid).to_vec(),
            Kind::Deployment => {
                let revision = *self.replica_sets.revisions().borrow();
                index.replica_sets.refresh(revision, || self.replica_sets.all());
                let sets = index.replica_sets.of(&workload.uid).iter();
                let ids = sets.filter_map(|set| set.metadata.uid.as_deref());
                ids.flat_map(|uid| index.pods.of(uid)).cloned().collect()
            }
        }
    }
}

fn keep_ours(metadata: &mut ObjectMeta) {
    metadata.labels = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name.starts_with(contract::PREFIX));
    }
}

fn prune_deployment(deployment: &mut Deployment) {
    keep_ours(&mut deployment.metadata);
    if let Some(spec) = &mut deployment.spec {
        spec.template.spec = None;
        if let Some(metadata) = &mut spec.template.metadata {
            keep_ours(metadata);
        }
    }
}

fn prune_stateful_set(set: &mut StatefulSet) {
    keep_ours(&mut set.metadata);
    if let Some(spec) = &mut set.spec {
        spec.template.spec = None;
        spec.volume_claim_templates = None;
        if let Some(metadata) = &mut spec.template.metadata {
            keep_ours(metadata);
        }
    }
}

fn prune_replica_set(set: &mut ReplicaSet) {
    set.metadata.labels = None;
    set.metadata.annotations = None;
    set.spec = None;
    set.status = None;
}

fn prune_autoscaler(autoscaler: &mut HorizontalPodAutoscaler) {
    keep_ours(&mut autoscaler.metadata);
    autoscaler.status = None;
    if let Some(spec) = &mut autoscaler.spec {
        spec.metrics = None;
        spec.behavior = None;
    }
}

fn prune_pod(pod: &mut Pod) {
    pod.metadata.labels = None;
    pod.metadata.finalizers = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| name == contract::pods::DELETION_COST);
    }
    // Of the containers the names alone are needed, and most pods are none of ours.
    if let Some(spec) = pod.spec.take() {
        let has_sidecar = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .any(|container| container.name == contract::pods::SIDECAR_CONTAINER);
        let sidecar = k8s_openapi::api::core::v1::Container {
            name: contract::pods::SIDECAR_CONTAINER.to_owned(),
            ..Default::default()
        };
        pod.spec = Some(PodSpec {
            containers: if has_sidecar { vec![sidecar] } else { Vec::new() },
            ..PodSpec::default()
        });
    }
    if let Some(status) = &mut pod.status {
        status.pod_ips = None;
        status.host_ips = None;
    }
}
