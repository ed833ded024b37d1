//! Why pods do not become ready, in a sentence.

use super::observe;
use super::workload::Workload;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

/// What keeps containers from running, of the reasons that the kubelet gives for waiting; others pass by themselves.
const STUCK: [&str; 9] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
];

/// The first thing that keeps a replica of the workload from being ready. `pods` are those that are alive.
pub(super) fn explain<'a>(workload: &Workload, pods: impl Iterator<Item = &'a Pod>) -> Option<String> {
    let mut count = 0;
    for pod in pods {
        count += 1;
        if let Some(why) = pod.status.as_ref().and_then(of_pod) {
            return Some(format!("pod {}: {why}", observe::name(pod)));
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

fn of_pod(status: &PodStatus) -> Option<String> {
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    containers
        .map(of_container)
        .find(Option::is_some)
        .flatten()
        .or_else(|| {
            let unschedulable = status.conditions.iter().flatten().find(|condition| {
                condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
            })?;
            let message = unschedulable.message.as_deref().unwrap_or("no node takes it");
            Some(format!("it is Unschedulable: {message}"))
        })
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let name = &container.name;
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting
        .reason
        .as_deref()
        .filter(|reason| STUCK.contains(reason))?;
    let last = container
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    if let Some(last) = last {
        if last.reason.as_deref() == Some("OOMKilled") {
            return Some(format!(
                "container {name} was OOMKilled, it needs more memory than its limit: {reason}"
            ));
        }
        return Some(format!(
            "container {name} ended with exit code {}: {reason}",
            last.exit_code
        ));
    }
    let message = waiting.message.as_deref().unwrap_or("no more is known");
    Some(format!("container {name} cannot start: {reason}: {message}"))
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

    #[test]
    fn containers_that_are_stuck_are_told_with_the_reason() {
        let waiting = |reason: &str| {
            of_status(&json!({"containerStatuses": [{
                "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": "not found"}},
            }]}))
        };
        assert_eq!(waiting("ContainerCreating"), None);
        assert_eq!(
            waiting("ImagePullBackOff").unwrap(),
            "pod orders-1: container worker cannot start: ImagePullBackOff: not found"
        );
        let oom = of_status(&json!({"containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
        }]}));
        assert!(oom.unwrap().contains("OOMKilled"));
    }

    #[test]
    fn pods_without_a_node_and_replicas_without_a_pod_are_told() {
        let said = of_status(&json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes",
        }]}));
        assert_eq!(said.unwrap(), "pod orders-1: it is Unschedulable: 0/1 nodes");
        let conditions =
            json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}]);
        let said = explain(&workload(3, &conditions), [].into_iter()).unwrap();
        assert_eq!(said, "3 of 3 replicas have no pod: exceeded quota: small");
    }
}
