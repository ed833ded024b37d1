//! Everything that is changed in the cluster. Nothing is once the Lease may be another's.

use super::FIELD_MANAGER;
use super::lease::Leadership;
use super::telemetry::{self, Request};
use super::workload::{Key, Kind};
use crate::target::TargetError;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;

/// How often a write is tried that others' writes came before.
const TRIES: u32 = 8;

/// What writes.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) client: kube::Client,
    pub(super) leadership: Leadership,
}

/// What became of a replica count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaled {
    /// It is this already.
    Already,
    /// It was changed.
    Changed { from: u32, to: u32 },
}

impl Writer {
    /// Changes the replica count of a workload to what `to` makes of the one that is there now; `None` leaves it.
    pub(super) async fn scale(
        &self,
        key: &Key,
        to: impl Fn(u32) -> Option<u32>,
    ) -> Result<Scaled, TargetError> {
        for _ in 0..TRIES {
            let scale = self.ask(Request::Scale, self.get_scale(key)).await?;
            let version = scale.metadata.resource_version.unwrap_or_default();
            let replicas = scale.spec.and_then(|spec| spec.replicas);
            let from = replicas
                .and_then(|replicas| u32::try_from(replicas).ok())
                .unwrap_or_default();
            let Some(to) = to(from).filter(|to| *to != from) else {
                return Ok(Scaled::Already);
            };
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": to}});
            match self.fenced(self.patch_scale(key, &patch)).await? {
                Ok(_) => return Ok(Scaled::Changed { from, to }),
                Err(error) => {
                    telemetry::api_error(Request::Scale, &error);
                    if !is_conflict(&error) {
                        return Err(refused(&error));
                    }
                }
            }
        }
        Err(TargetError {
            reason: "others change the workload all the time; its replica count is tried again".to_owned(),
        })
    }

    /// Merges annotations into the workload's own; `null` removes one.
    pub(super) async fn annotate(&self, key: &Key, annotations: &Value) -> Result<(), TargetError> {
        let patch = json!({"metadata": {"annotations": annotations}});
        let patch = Patch::Merge(&patch);
        let (parameters, name) = (parameters(), key.name.as_str());
        let patched = async {
            match key.kind {
                Kind::Deployment => self
                    .api::<Deployment>(key)
                    .patch(name, &parameters, &patch)
                    .await
                    .map(drop),
                Kind::StatefulSet => self
                    .api::<StatefulSet>(key)
                    .patch(name, &parameters, &patch)
                    .await
                    .map(drop),
            }
        };
        self.write(Request::Annotate, patched).await
    }

    /// Merges annotations into a pod's; `null` removes one.
    pub(super) async fn annotate_pod(
        &self,
        namespace: &str,
        name: &str,
        annotations: &Value,
    ) -> Result<(), TargetError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"annotations": annotations}});
        let (parameters, patch) = (parameters(), Patch::Merge(&patch));
        let patched = async {
            match pods.patch(name, &parameters, &patch).await {
                // It went by itself.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                patched => patched.map(drop),
            }
        };
        self.write(Request::Pods, patched).await
    }

    /// A pod as it is now; `None` when it is gone.
    pub(super) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, TargetError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        self.ask(Request::Pods, pods.get_opt(name)).await
    }

    async fn write<A>(
        &self,
        request: Request,
        answer: impl Future<Output = Result<A, kube::Error>>,
    ) -> Result<A, TargetError> {
        self.fenced(answer).await?.map_err(|error| {
            telemetry::api_error(request, &error);
            refused(&error)
        })
    }

    async fn ask<A>(
        &self,
        request: Request,
        answer: impl Future<Output = Result<A, kube::Error>>,
    ) -> Result<A, TargetError> {
        answer.await.map_err(|error| {
            telemetry::api_error(request, &error);
            refused(&error)
        })
    }

    /// Does it only while the Lease is certainly ours.
    async fn fenced<A>(&self, answer: impl Future<Output = A>) -> Result<A, TargetError> {
        let lost = || TargetError {
            reason: "this autoscaler does not lead any more: the one that does goes on".to_owned(),
        };
        let remaining = self.leadership.remaining();
        if remaining.is_zero() {
            return Err(lost());
        }
        // A renewal meanwhile makes the time longer; what was given up here is done again by the next tick.
        timeout(remaining, answer).await.map_err(|_elapsed| lost())
    }

    async fn get_scale(&self, key: &Key) -> Result<Scale, kube::Error> {
        match key.kind {
            Kind::Deployment => self.api::<Deployment>(key).get_scale(&key.name).await,
            Kind::StatefulSet => self.api::<StatefulSet>(key).get_scale(&key.name).await,
        }
    }

    async fn patch_scale(&self, key: &Key, patch: &Value) -> Result<Scale, kube::Error> {
        let (parameters, patch) = (parameters(), Patch::Merge(patch));
        match key.kind {
            Kind::Deployment => {
                self.api::<Deployment>(key)
                    .patch_scale(&key.name, &parameters, &patch)
                    .await
            }
            Kind::StatefulSet => {
                self.api::<StatefulSet>(key)
                    .patch_scale(&key.name, &parameters, &patch)
                    .await
            }
        }
    }

    fn api<K>(&self, key: &Key) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn refused(error: &kube::Error) -> TargetError {
    TargetError {
        reason: k8s::sentence(error),
    }
}
