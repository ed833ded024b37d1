//! Gives a workload back that is annotated no more.

use super::events::Reason;
use super::intent::{Intent, intent};
use super::keeper::Office;
use super::observe;
use super::target::KubeTarget;
use super::telemetry;
use super::workload::{Key, Workload};
use crate::target::{ReplicaId, ScaleTarget, TargetError};
use contract::annotations::{ORIGINAL_REPLICAS, SCALING};
use contract::broker::BrokerUrl;
use ops::backoff::Backoff;
use serde_json::json;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// Between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Restores the replicas of a workload and removes what we wrote on it. Ends when it is done, when the workload is
/// gone or annotated again, or when we lead no more. The count is left to `rival`, what else scales it.
pub(super) async fn restore(
    office: Office,
    broker: BrokerUrl,
    workload: Workload,
    rival: Option<String>,
) -> Key {
    let key = workload.key.clone();
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let now = office.means.views.workload(&key);
        let is_over = |now: &Workload| {
            now.uid != workload.uid
                || now.is_ending
                || !now.is_marked()
                || intent(now, &broker) != Intent::Absent
        };
        if now.as_ref().is_none_or(is_over) || !office.means.writer.leadership.is_held() {
            return key;
        }
        match attempt(&office, &workload, rival.as_deref()).await {
            Ok(()) => {
                // The view follows in a moment; until then it would be restored again.
                until_unmarked(&office, &workload).await;
                return key;
            }
            Err(error) => telemetry::trying_again("restore the workload", &key, &error.reason),
        }
        sleep(backoff.next_delay()).await;
    }
}

async fn attempt(office: &Office, workload: &Workload, rival: Option<&str>) -> Result<(), TargetError> {
    let key = &workload.key;
    let original: Option<u32> = workload.original().and_then(|text| text.parse().ok());
    let original = original.filter(|_| rival.is_none());
    if let Some(original) = original {
        office.means.writer.scale(key, |_| Some(original)).await?;
    }
    resume(office, workload).await;
    let nothing = json!({ORIGINAL_REPLICAS: null, SCALING: null});
    office.means.writer.annotate(key, &nothing).await?;
    let note = match original {
        Some(original) => format!("annotated no more: back to {original} replicas, as before"),
        None => "annotated no more: the replicas stay as they are".to_owned(),
    };
    office.events.tell(workload, Reason::Restored, &note);
    Ok(())
}

/// Pods that drain take work again; one that cannot be told is replaced by the rollout that follows the annotations.
async fn resume(office: &Office, workload: &Workload) {
    let target = KubeTarget {
        key: workload.key.clone(),
        uid: workload.uid.clone(),
        means: Arc::clone(&office.means),
        aside: Mutex::new(HashSet::new()),
        change: Arc::default(),
    };
    let marked: Vec<ReplicaId> = office
        .means
        .views
        .pods_of(workload)
        .iter()
        .filter(|pod| observe::is_alive(pod) && observe::is_drained_by_us(pod))
        .map(|pod| ReplicaId(observe::name(pod).to_owned()))
        .collect();
    if !marked.is_empty()
        && let Err(error) = target.resume(&marked).await
    {
        telemetry::trying_again("resume a pod", &workload.key, &error.reason);
    }
}

async fn until_unmarked(office: &Office, workload: &Workload) {
    let mut revisions = match workload.key.kind {
        super::workload::Kind::Deployment => office.means.views.deployments.revisions(),
        super::workload::Kind::StatefulSet => office.means.views.stateful_sets.revisions(),
    };
    let gone = async {
        while office
            .means
            .views
            .workload(&workload.key)
            .is_some_and(|now| now.uid == workload.uid && now.is_marked())
        {
            if revisions.changed().await.is_err() {
                return;
            }
        }
    };
    // One who annotates it again meanwhile must not be waited for.
    let _late = tokio::time::timeout(BACKOFF.1, gone).await;
}
