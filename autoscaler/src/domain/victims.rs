//! Which replicas may go, and which come back first. A busy replica is never among them.

use crate::target::{Phase, Replica, ReplicaId};
use std::cmp::Reverse;

/// Up to `surplus` active replicas to drain.
///
/// Replicas that are still starting go first: they hold nothing, and what remains is then as many ready replicas as
/// possible (a `ReplicaSet` deletes pods that are not ready first too). Then ready ones, idle for longest first.
/// Replicas with work, or of which it is not known since when they are idle, are never chosen, so there may be fewer
/// than `surplus`.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset>.
pub fn choose(replicas: &[Replica], surplus: u32) -> Vec<ReplicaId> {
    let mut idle: Vec<&Replica> = replicas.iter().filter(|replica| is_idle(replica)).collect();
    // Names break ties, so that one sample always gives one answer.
    idle.sort_by_key(|replica| (replica.phase != Phase::Starting, replica.idle_since, &replica.id));
    idle.into_iter()
        .take(surplus as usize)
        .map(|replica| replica.id.clone())
        .collect()
}

fn is_idle(replica: &Replica) -> bool {
    match replica.phase {
        Phase::Starting => replica.in_flight == 0,
        Phase::Ready => replica.in_flight == 0 && replica.idle_since.is_some(),
        Phase::Draining => false,
    }
}

/// Draining replicas that have finished.
pub fn finished(replicas: &[Replica]) -> Vec<ReplicaId> {
    let finished = replicas
        .iter()
        .filter(|replica| replica.phase == Phase::Draining && replica.in_flight == 0);
    finished.map(|replica| replica.id.clone()).collect()
}

/// Up to `needed` draining replicas to resume, out of those that `may` be: the busiest first (they stay anyway), then
/// the ones that were at work last.
pub fn to_resume(replicas: &[Replica], needed: u32, may: impl Fn(&ReplicaId) -> bool) -> Vec<ReplicaId> {
    let mut draining: Vec<&Replica> = replicas
        .iter()
        .filter(|replica| replica.phase == Phase::Draining && may(&replica.id))
        .collect();
    draining.sort_by_key(|replica| {
        (
            Reverse(replica.in_flight),
            Reverse(replica.idle_since),
            &replica.id,
        )
    });
    draining
        .into_iter()
        .take(needed as usize)
        .map(|replica| replica.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::some_instant;
    use std::time::Duration;

    fn fleet() -> Vec<Replica> {
        let start = some_instant();
        let replica = |name: &str, phase, in_flight, idle: Option<u64>| Replica {
            id: ReplicaId(name.to_owned()),
            phase,
            in_flight,
            idle_since: idle.map(|second| start + Duration::from_secs(second)),
        };
        vec![
            replica("idle-since-30", Phase::Ready, 0, Some(30)),
            replica("busy", Phase::Ready, 1, None),
            replica("idle-since-10", Phase::Ready, 0, Some(10)),
            replica("unknown", Phase::Ready, 0, None),
            replica("starting", Phase::Starting, 0, None),
            replica("draining-busy", Phase::Draining, 2, None),
            replica("draining-40", Phase::Draining, 0, Some(40)),
            replica("draining-50", Phase::Draining, 0, Some(50)),
        ]
    }

    fn names(ids: &[ReplicaId]) -> Vec<&str> {
        ids.iter().map(|id| id.0.as_str()).collect()
    }

    #[test]
    fn starting_ones_go_first_then_the_longest_idle_and_never_a_busy_one() {
        let fleet = fleet();
        assert!(choose(&fleet, 0).is_empty());
        assert_eq!(names(&choose(&fleet, 1)), ["starting"]);
        assert_eq!(names(&choose(&fleet, 2)), ["starting", "idle-since-10"]);
        assert_eq!(
            names(&choose(&fleet, 99)),
            ["starting", "idle-since-10", "idle-since-30"]
        );
    }

    #[test]
    fn only_drained_replicas_are_finished() {
        assert_eq!(names(&finished(&fleet())), ["draining-40", "draining-50"]);
    }

    #[test]
    fn the_warmest_come_back_first() {
        let fleet = fleet();
        assert_eq!(
            names(&to_resume(&fleet, 2, |_| true)),
            ["draining-busy", "draining-50"]
        );
        assert_eq!(
            names(&to_resume(&fleet, 9, |id| id.0 != "draining-busy")),
            ["draining-50", "draining-40"]
        );
    }
}
