//! Pods and what their sidecars say, as a fleet. No input or output.
//!
//! A fleet has as many replicas as `spec.replicas` says: one that has no pod yet (a quota, a slow controller) is
//! starting; pods beyond the count are about to go, or come on top during a rollout, and are left out.

use super::workload::{Kind, Workload};
use crate::target::{Fleet, Phase, Replica, ReplicaId};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// What a sidecar answers at `/status`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Status {
    state: String,
    in_flight: u32,
    /// `null` where the sidecar cannot tell.
    connections: Option<u32>,
    idle_seconds: Option<f64>,
    #[serde(default)]
    draining: bool,
}

impl Status {
    pub(super) fn is_draining(&self) -> bool {
        self.draining || self.state == "draining" || self.state == "drained"
    }

    /// Messages and connections that it holds.
    pub(super) fn load(&self) -> u32 {
        self.in_flight.saturating_add(self.connections.unwrap_or(0))
    }

    /// Nothing is in flight, and nothing can come any more.
    pub(super) fn is_finished(&self) -> bool {
        self.state == "drained" && self.is_idle()
    }

    /// Whether it certainly holds nothing.
    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.connections == Some(0)
    }

    fn phase(&self, is_ready: bool) -> Phase {
        match self.state.as_str() {
            _ if self.is_draining() => Phase::Draining,
            "waiting_for_worker" => Phase::Starting,
            // The broker may be away: a worker that was ready stays so.
            "connecting" if !is_ready => Phase::Starting,
            _ => Phase::Ready,
        }
    }

    fn idle_since(&self, now: Instant) -> Option<Instant> {
        let idle = Duration::try_from_secs_f64(self.idle_seconds?).ok()?;
        now.checked_sub(idle).filter(|_| self.is_idle())
    }
}

/// A pod that counts, with its sidecar's answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) name: String,
    /// Its containers were started.
    pub(super) is_running: bool,
    /// Its condition `Ready`.
    pub(super) is_ready: bool,
    pub(super) status: Option<Status>,
}

impl Seen {
    pub(super) fn of(pod: &Pod, status: Option<Status>) -> Self {
        Self {
            name: name(pod).to_owned(),
            is_running: is_running(pod),
            is_ready: is_ready(pod),
            status,
        }
    }

    fn replica(&self, aside: &HashSet<String>, now: Instant) -> Replica {
        let (phase, in_flight, idle_since) = match &self.status {
            Some(status) => (status.phase(self.is_ready), status.load(), status.idle_since(now)),
            None if self.is_running => (Phase::Ready, 0, None),
            None if aside.contains(&self.name) => (Phase::Draining, 0, None),
            None => (Phase::Starting, 0, None),
        };
        Replica {
            id: ReplicaId(self.name.clone()),
            phase,
            in_flight,
            idle_since,
        }
    }
}

pub(super) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Whether the pod counts as one of its workload's: it neither ends nor has ended.
pub(super) fn is_alive(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase(pod), "Succeeded" | "Failed")
}

pub(super) fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running"
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the pod, as the view has it, has our sidecar.
pub(super) fn has_sidecar(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| !spec.containers.is_empty())
}

/// Where its sidecar answers; `None` while the pod has no address, or when it has no sidecar.
pub(super) fn sidecar(pod: &Pod) -> Option<SocketAddr> {
    if !has_sidecar(pod) {
        return None;
    }
    let address: IpAddr = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
    Some(SocketAddr::new(address, contract::pods::SIDECAR_ADMIN_PORT))
}

/// What the names of replicas begin with that were asked for and have no pod. It comes before all names that pods can
/// have, so that these are given up first.
pub(super) const MISSING: &str = "#";

/// The place of a pod in its `StatefulSet`: the number that its name ends with.
pub(super) fn ordinal(name: &str) -> u32 {
    let digits = name.rsplit('-').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}

/// The fleet. `aside` are the replicas that cannot be told to drain, because nothing runs there yet, and that were.
pub(super) fn fleet(workload: &Workload, seen: &[Seen], aside: &HashSet<String>, now: Instant) -> Fleet {
    let wanted = workload.replicas as usize;
    let mut seen: Vec<(&Seen, Replica)> = seen.iter().map(|seen| (seen, seen.replica(aside, now))).collect();
    match workload.key.kind {
        Kind::Deployment => seen.sort_by_key(|(seen, replica)| leaves_last(seen, replica)),
        Kind::StatefulSet => {
            seen.sort_by_key(|(seen, _)| ordinal(&seen.name));
            keep_all_but_the_highest(&mut seen);
        }
    }
    let kept = if workload.is_rolling {
        Some("a rollout is under way".to_owned())
    } else {
        still_ready(workload, &seen)
    };
    seen.truncate(wanted);
    let absent = (0..wanted.saturating_sub(seen.len())).map(|number| {
        let id = format!("{MISSING}{number}");
        Replica {
            phase: if aside.contains(&id) {
                Phase::Draining
            } else {
                Phase::Starting
            },
            id: ReplicaId(id),
            in_flight: 0,
            idle_since: None,
        }
    });
    let replicas = seen.iter().map(|(_, replica)| replica.clone()).chain(absent);
    Fleet {
        replicas: replicas.collect(),
        kept,
    }
}

/// A `ReplicaSet` with too many pods ends those first that come last here.
fn leaves_last(seen: &Seen, replica: &Replica) -> (bool, bool, u8, String) {
    let phase = match replica.phase {
        Phase::Ready => 0,
        Phase::Draining => 1,
        Phase::Starting => 2,
    };
    (!seen.is_running, !seen.is_ready, phase, seen.name.clone())
}

/// Makes all but the highest replicas, as far as they have nothing to do, stay: a `StatefulSet` removes the highest
/// first. Of these the highest count as idle for longest. `seen` goes from the lowest to the highest.
fn keep_all_but_the_highest(seen: &mut [(&Seen, Replica)]) {
    let mut may_go = true;
    let (mut is_top, mut above): (bool, Option<Instant>) = (true, None);
    for (_, replica) in seen.iter_mut().rev() {
        may_go &= replica.in_flight == 0 && (replica.phase != Phase::Ready || replica.idle_since.is_some());
        if replica.phase == Phase::Draining {
            continue;
        }
        if !may_go {
            replica.idle_since = None;
        } else if let Some(idle) = replica.idle_since {
            let after = above.map_or(idle, |above| idle.max(above + Duration::from_nanos(1)));
            (replica.idle_since, above) = (Some(after), Some(after));
        }
        // Starting replicas are chosen first, wherever they are: all but one on top are not shown as such.
        if replica.phase == Phase::Starting && !(may_go && is_top) {
            (replica.phase, replica.idle_since) = (Phase::Ready, None);
            may_go = false;
        }
        is_top = false;
    }
}

/// Why drained pods have to wait. A `ReplicaSet` ends pods that are not ready first, and a pod that has drained is
/// about to become one. When all of them go, none can go in the place of another.
fn still_ready(workload: &Workload, seen: &[(&Seen, Replica)]) -> Option<String> {
    let may_another_go = seen.iter().any(|(_, replica)| replica.phase != Phase::Draining);
    let drained = seen
        .iter()
        .filter(|(_, replica)| replica.phase == Phase::Draining && replica.in_flight == 0);
    drained.map(|(seen, _)| *seen).find_map(|seen| {
        let name = &seen.name;
        if seen.status.as_ref().is_some_and(|status| !status.is_finished()) {
            return Some(format!("pod {name} is about to have drained"));
        }
        (workload.key.kind == Kind::Deployment && seen.is_ready && may_another_go)
            .then(|| format!("pod {name} has drained and is not yet known to be not ready"))
    })
}

/// Whether we told the pod to drain, as its annotation says.
pub(super) fn is_drained_by_us(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(contract::pods::DELETION_COST))
}

#[cfg(test)]
mod tests;
