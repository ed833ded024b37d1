//! A Deployment or a StatefulSet, as far as scaling it goes.

use contract::annotations::{ORIGINAL_REPLICAS, SCALING};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::BTreeMap;
use std::fmt;

/// The kinds of workloads that are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }

    pub(super) fn read(kind: &str) -> Option<Self> {
        [Self::Deployment, Self::StatefulSet]
            .into_iter()
            .find(|known| known.as_str() == kind)
    }
}

/// Which workload. Displays as `namespace/name`, for a StatefulSet with its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    /// As activators name it.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Deployment => write!(f, "{}/{}", self.namespace, self.name),
            Kind::StatefulSet => write!(f, "{}/statefulset/{}", self.namespace, self.name),
        }
    }
}

/// What is known of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) key: Key,
    pub(super) uid: String,
    /// The workload's own annotations.
    pub(super) own: BTreeMap<String, String>,
    /// Those of its pod template.
    pub(super) template: BTreeMap<String, String>,
    /// `spec.replicas`.
    pub(super) replicas: u32,
    /// Whether pods of an old revision are being replaced.
    pub(super) is_rolling: bool,
    /// Why pods cannot be made (a quota, an admission webhook), as its controller says.
    pub(super) failure: Option<String>,
    /// It is being deleted.
    pub(super) is_ending: bool,
}

impl Workload {
    pub(super) fn of_deployment(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let status = deployment.status.as_ref();
        let generation = deployment.metadata.generation.unwrap_or_default();
        let observed = status
            .and_then(|status| status.observed_generation)
            .unwrap_or_default();
        let (pods, updated) = status.map_or((0, 0), |status| {
            (
                status.replicas.unwrap_or_default(),
                status.updated_replicas.unwrap_or_default(),
            )
        });
        let failure = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default()
            .iter()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
            .and_then(|condition| condition.message.clone());
        Self {
            is_rolling: observed < generation || updated != pods,
            failure,
            ..Self::new(
                Kind::Deployment,
                &deployment.metadata,
                spec.and_then(|spec| spec.template.metadata.as_ref()),
                spec.and_then(|spec| spec.replicas),
            )
        }
    }

    pub(super) fn of_stateful_set(set: &StatefulSet) -> Self {
        let spec = set.spec.as_ref();
        let status = set.status.as_ref();
        let generation = set.metadata.generation.unwrap_or_default();
        let observed = status
            .and_then(|status| status.observed_generation)
            .unwrap_or_default();
        // With OnDelete or a partition old pods stay for as long as somebody likes.
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        let is_automatic = strategy.is_none_or(|strategy| {
            let partition = strategy
                .rolling_update
                .as_ref()
                .and_then(|rolling| rolling.partition);
            strategy.type_.as_deref() != Some("OnDelete") && partition.unwrap_or_default() == 0
        });
        let is_between = status.is_some_and(|status| {
            status.update_revision.is_some() && status.update_revision != status.current_revision
        });
        Self {
            is_rolling: observed < generation || (is_automatic && is_between),
            ..Self::new(
                Kind::StatefulSet,
                &set.metadata,
                spec.and_then(|spec| spec.template.metadata.as_ref()),
                spec.and_then(|spec| spec.replicas),
            )
        }
    }

    fn new(
        kind: Kind,
        metadata: &kube::core::ObjectMeta,
        template: Option<&kube::core::ObjectMeta>,
        replicas: Option<i32>,
    ) -> Self {
        Self {
            key: Key {
                kind,
                namespace: metadata.namespace.clone().unwrap_or_default(),
                name: metadata.name.clone().unwrap_or_default(),
            },
            uid: metadata.uid.clone().unwrap_or_default(),
            own: metadata.annotations.clone().unwrap_or_default(),
            template: template
                .and_then(|template| template.annotations.clone())
                .unwrap_or_default(),
            // The API server fills 1 in; a count is never negative.
            replicas: replicas.map_or(1, |replicas| u32::try_from(replicas).unwrap_or_default()),
            is_rolling: false,
            failure: None,
            is_ending: metadata.deletion_timestamp.is_some(),
        }
    }

    /// How many replicas there were before it was taken over, if it was; as written.
    pub(super) fn original(&self) -> Option<&str> {
        self.own.get(ORIGINAL_REPLICAS).map(String::as_str)
    }

    /// Whether it carries anything that we wrote.
    pub(super) fn is_marked(&self) -> bool {
        self.own.contains_key(ORIGINAL_REPLICAS) || self.own.contains_key(SCALING)
    }

    /// What Events are about.
    pub(super) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some(self.key.kind.as_str().to_owned()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}
