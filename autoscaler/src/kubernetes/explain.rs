//! Why pods do not become ready, in a sentence.

use super::workload::Workload;
use k8s::pods::{Failure, failure, unscheduled};
use k8s_openapi::api::core::v1::Pod;

/// The first thing that keeps a replica of the workload from being ready. `pods` are those that are alive.
pub(super) fn explain<'a>(workload: &Workload, pods: impl Iterator<Item = &'a Pod>) -> Option<String> {
    let mut count = 0;
    for pod in pods {
        count += 1;
        // A container that has ended once may run again before anybody reads of it.
        let stuck = match failure(pod) {
            Some(Failure::Stuck(sentence)) => Some(sentence),
            Some(Failure::Ended(_)) | None => None,
        };
        if let Some(why) = stuck.or_else(|| unscheduled(pod)) {
            return Some(why);
        }
    }
    let failure = workload
        .failure
        .as_deref()
        .filter(|_| count < workload.replicas)?;
    let missing = workload.replicas - count;
    Some(format!(
        "{missing} of {} replicas have no pod: {failure}",
        workload.replicas
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    fn workload(replicas: u32, conditions: &Value) -> Workload {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "orders"},
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
            "status": {"conditions": conditions},
        }))
        .unwrap();
        Workload::of_deployment(&deployment)
    }

    fn of_status(status: &Value) -> Option<String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "orders-1"}, "status": status})).unwrap();
        explain(&workload(1, &json!([])), [&pod].into_iter())
    }

    fn of_container(restarts: u32, state: &Value) -> Option<String> {
        of_status(&json!({"containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
        }]}))
    }

    #[test]
    fn containers_that_are_stuck_are_told_with_the_reason() {
        let waiting =
            |reason: &str| of_container(0, &json!({"waiting": {"reason": reason, "message": "not found"}}));
        assert_eq!(waiting("ContainerCreating"), None);
        assert_eq!(
            waiting("ImagePullBackOff").unwrap(),
            "the image of container worker of pod orders-1 cannot be had (ImagePullBackOff): not found"
        );
    }

    #[test]
    fn a_container_that_has_ended_is_told_from_its_first_restart_on() {
        let killed = json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}});
        assert_eq!(of_container(0, &killed), None);
        assert!(of_container(1, &killed).unwrap().contains("OOMKilled"));
    }

    #[test]
    fn pods_without_a_node_and_replicas_without_a_pod_are_told() {
        let said = of_status(&json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes",
        }]}));
        assert_eq!(said.unwrap(), "no node can take pod orders-1: 0/1 nodes");
        let conditions =
            json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}]);
        let said = explain(&workload(3, &conditions), [].into_iter()).unwrap();
        assert_eq!(said, "3 of 3 replicas have no pod: exceeded quota: small");
    }
}
