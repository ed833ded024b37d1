//! What else scales the same workloads: it is told, and not fought.

use super::telemetry::{self, Request};
use super::views::Views;
use super::workload::{Key, Kind};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Between two looks for KEDA's objects.
const EVERY: Duration = Duration::from_secs(15);

/// What scales a workload beside us, by its workload: `HorizontalPodAutoscaler web`.
pub(super) type Conflicts = BTreeMap<Key, String>;

/// All that are known.
pub(super) fn conflicts(views: &Views, scaled_objects: &Conflicts) -> Conflicts {
    let autoscalers = views.autoscalers.all();
    let mut found: Conflicts = autoscalers
        .iter()
        .filter_map(|autoscaler| of_autoscaler(autoscaler))
        .collect();
    // KEDA makes an autoscaler for each of its objects: what the user wrote is told.
    found.extend(scaled_objects.clone());
    found
}

fn of_autoscaler(autoscaler: &HorizontalPodAutoscaler) -> Option<(Key, String)> {
    let target = &autoscaler.spec.as_ref()?.scale_target_ref;
    let key = Key {
        kind: Kind::read(&target.kind)?,
        namespace: autoscaler.metadata.namespace.clone()?,
        name: target.name.clone(),
    };
    let name = autoscaler.metadata.name.as_deref().unwrap_or_default();
    Some((key, format!("HorizontalPodAutoscaler {name}")))
}

/// Looks for KEDA's objects again and again; never ends.
pub(super) async fn follow_keda(
    client: kube::Client,
    namespace: Option<String>,
    found: watch::Sender<Conflicts>,
) {
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
    let resource = ApiResource::from_gvk(&kind);
    let objects: Api<DynamicObject> = match &namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    loop {
        match objects.list(&ListParams::default()).await {
            Ok(list) => {
                let now: Conflicts = list.items.iter().filter_map(of_scaled_object).collect();
                found.send_if_modified(|known| {
                    *known != now && {
                        *known = now;
                        true
                    }
                });
            }
            // KEDA is not there.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                found.send_if_modified(|known| !std::mem::take(known).is_empty());
            }
            Err(error) => telemetry::api_error(Request::Conflicts, &error),
        }
        sleep(EVERY).await;
    }
}

fn of_scaled_object(object: &DynamicObject) -> Option<(Key, String)> {
    let target = object.data.get("spec")?.get("scaleTargetRef")?;
    let kind = target
        .get("kind")
        .and_then(|kind| kind.as_str())
        .unwrap_or("Deployment");
    let key = Key {
        kind: Kind::read(kind)?,
        namespace: object.metadata.namespace.clone()?,
        name: target.get("name")?.as_str()?.to_owned(),
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Some((key, format!("KEDA's ScaledObject {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scaled_objects_name_a_deployment_unless_they_say_otherwise() {
        let of = |target: serde_json::Value| {
            let object: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
                "metadata": {"name": "scaler", "namespace": "shop"},
                "spec": {"scaleTargetRef": target},
            }))
            .unwrap();
            of_scaled_object(&object)
        };
        let (key, what) = of(json!({"name": "orders"})).unwrap();
        assert_eq!(
            (key.to_string().as_str(), what.as_str()),
            ("shop/orders", "KEDA's ScaledObject scaler")
        );
        let (key, _) = of(json!({"kind": "StatefulSet", "name": "orders"})).unwrap();
        assert_eq!(key.kind, Kind::StatefulSet);
        assert_eq!(of(json!({"kind": "Job", "name": "orders"})), None);
    }
}
