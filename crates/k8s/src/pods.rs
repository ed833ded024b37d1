//! What keeps pods from running, in sentences that are the same for a caller who waits and for an Event.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

/// What keeps one of a pod's containers from running, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It has ended badly once. The kubelet starts it again at once, so it may well run in a moment.
    Ended(String),
    /// It does not come to run, and will not by itself.
    Stuck(String),
}

impl Failure {
    /// The sentence.
    pub fn into_sentence(self) -> String {
        match self {
            Self::Ended(sentence) | Self::Stuck(sentence) => sentence,
        }
    }
}

/// Every container that the kubelet tells of, those that run before the others first.
pub fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let others = status.and_then(|status| status.container_statuses.as_ref());
    init.into_iter().chain(others).flatten()
}

/// The first thing that keeps one of the pod's containers from running, as the kubelet tells it; `None` when nothing
/// does.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states>.
pub fn failure(pod: &Pod) -> Option<Failure> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    container_statuses(pod).find_map(|container| of_container(name, container))
}

fn of_container(pod: &str, status: &ContainerStatus) -> Option<Failure> {
    let state = status.state.as_ref()?;
    let container = format!("container {} of pod {pod}", status.name);
    let keeps_ending = |last: Option<&ContainerState>| {
        Failure::Stuck(format!(
            "{container} keeps ending: {} (CrashLoopBackOff)",
            ending(last)
        ))
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref()?;
        let why = waiting
            .message
            .as_deref()
            .map_or("the node does not say why", bare);
        return match reason {
            "ContainerCreating" | "PodInitializing" => None,
            "CrashLoopBackOff" => Some(keeps_ending(status.last_state.as_ref())),
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                Some(Failure::Stuck(format!(
                    "the image of {container} cannot be had ({reason}): {why}"
                )))
            }
            _ => Some(Failure::Stuck(format!(
                "{container} cannot be started ({reason}): {why}"
            ))),
        };
    }
    // An init container that has ended well has done what it is for.
    let has_failed = state.terminated.as_ref()?.exit_code != 0;
    has_failed.then(|| {
        // From its first restart on it waits for the next one, though the kubelet may say so a minute late.
        if status.restart_count > 0 {
            keeps_ending(Some(state))
        } else {
            Failure::Ended(format!("{container} has ended: {}", ending(Some(state))))
        }
    })
}

/// How a container has ended.
fn ending(state: Option<&ContainerState>) -> String {
    let Some(ended) = state.and_then(|state| state.terminated.as_ref()) else {
        return "how is not known".to_owned();
    };
    match ended.reason.as_deref() {
        Some("OOMKilled") => format!(
            "it needed more memory than its limit allows (OOMKilled, exit code {})",
            ended.exit_code
        ),
        _ => format!("exit code {}", ended.exit_code),
    }
}

/// Why no node takes the pod, in a sentence; `None` when one does.
pub fn unscheduled(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let condition =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let cause = condition.message.as_deref().or(condition.reason.as_deref());
    Some(format!(
        "no node can take pod {name}: {}",
        bare(cause.unwrap_or("the scheduler does not say why"))
    ))
}

/// A message of Kubernetes as part of a sentence.
pub fn bare(message: &str) -> &str {
    message.trim().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": status })).unwrap()
    }

    /// Of a container that was started again so many times and has ended with 3 before.
    fn of_state(state: &Value, restarts: u32) -> Option<Failure> {
        failure(&pod(&json!({ "containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": restarts, "image": "x", "imageID": "x",
            "state": state, "lastState": { "terminated": { "exitCode": 3 } },
        }] })))
    }

    fn stuck(sentence: &str) -> Failure {
        Failure::Stuck(sentence.to_owned())
    }

    #[test]
    fn containers_that_are_being_made_or_run_or_have_done_their_work_are_well() {
        for state in [
            json!({}),
            json!({ "running": {} }),
            json!({ "waiting": { "reason": "ContainerCreating" } }),
            json!({ "waiting": { "reason": "PodInitializing" } }),
            json!({ "terminated": { "exitCode": 0 } }),
        ] {
            assert_eq!(of_state(&state, 4), None, "{state}");
        }
    }

    #[test]
    fn what_cannot_be_started_is_told_with_the_words_of_the_node() {
        let waiting =
            |reason: &str| of_state(&json!({ "waiting": { "reason": reason, "message": "so. " } }), 0);
        for reason in [
            "ErrImagePull",
            "ImagePullBackOff",
            "InvalidImageName",
            "ErrImageNeverPull",
        ] {
            let said = format!("the image of container worker of pod p cannot be had ({reason}): so");
            assert_eq!(waiting(reason).unwrap(), stuck(&said));
        }
        let said = "container worker of pod p cannot be started (CreateContainerConfigError): so";
        assert_eq!(waiting("CreateContainerConfigError").unwrap(), stuck(said));
    }

    #[test]
    fn what_keeps_ending_is_the_same_whether_it_has_just_ended_or_waits_for_its_next_start() {
        let waits = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let has_ended = json!({ "terminated": { "exitCode": 3 } });
        let said = "container worker of pod p keeps ending: exit code 3 (CrashLoopBackOff)";
        assert_eq!(of_state(&waits, 1).unwrap(), stuck(said));
        assert_eq!(of_state(&has_ended, 1).unwrap(), stuck(said));
        let once = "container worker of pod p has ended: exit code 3";
        assert_eq!(of_state(&has_ended, 0), Some(Failure::Ended(once.to_owned())));
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        assert_eq!(
            of_state(&killed, 0).unwrap().into_sentence(),
            "container worker of pod p has ended: it needed more memory than its limit allows (OOMKilled, exit code 137)"
        );
    }

    #[test]
    fn a_pod_that_no_node_takes_is_told() {
        let scheduled = |status: &str| {
            unscheduled(&pod(&json!({ "conditions": [
                { "type": "PodScheduled", "status": status, "reason": "Unschedulable", "message": "0/1 nodes." },
            ] })))
        };
        assert_eq!(scheduled("True"), None);
        assert_eq!(scheduled("False").unwrap(), "no node can take pod p: 0/1 nodes");
    }
}
