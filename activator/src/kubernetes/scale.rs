//! The one write to a replica count: from zero to its least, never down.

use super::FIELD_MANAGER;
use super::workload::{Kind, Workload};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// How often a conflict is tried again at once. Each is another writer's doing, and the status of a workload that is
/// on its way down is written a few times.
const TRIES: usize = 8;

/// What has come of a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// It was at zero and is not any more.
    Scaled,
    /// Somebody else was first.
    AlreadyUp,
}

/// Scales `workload`, which was at zero when it was last seen, to what a wake asks for. Changes nothing when it is not
/// at zero any more: the write carries the version at which it was.
///
/// # Errors
/// A sentence.
pub(crate) async fn wake(client: &kube::Client, workload: &Workload) -> Result<Wake, String> {
    let namespace = &workload.name.namespace;
    match workload.kind {
        Kind::Deployment => {
            let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            wake_in(&api, workload).await
        }
        Kind::StatefulSet => {
            let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
            wake_in(&api, workload).await
        }
    }
}

async fn wake_in<K>(api: &Api<K>, workload: &Workload) -> Result<Wake, String>
where
    K: Clone + DeserializeOwned + Debug,
{
    let name = &workload.name.name;
    let by_us = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let mut version = workload.version.clone();
    for _ in 0..TRIES {
        let patch = serde_json::json!({
            "metadata": { "resourceVersion": version },
            "spec": { "replicas": workload.wakes_to },
        });
        match api.patch_scale(name, &by_us, &Patch::Merge(patch)).await {
            Ok(_) => return Ok(Wake::Scaled),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(k8s::sentence(&error)),
        }
        let now = api.get_scale(name).await.map_err(|error| k8s::sentence(&error))?;
        if replicas(&now) != 0 {
            return Ok(Wake::AlreadyUp);
        }
        version = now.metadata.resource_version.unwrap_or_default();
    }
    Err("others kept changing it at the same time".to_owned())
}

/// An absent number is zero: the API server leaves it out then.
fn replicas(scale: &Scale) -> i32 {
    scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
}
