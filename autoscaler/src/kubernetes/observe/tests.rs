use super::*;
use crate::domain::Counts;
use crate::domain::victims::choose;
use crate::testing::some_instant;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use serde_json::json;

fn deployment(replicas: u32) -> Workload {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"replicas": replicas, "selector": {}, "template": {}},
    }))
    .unwrap();
    Workload::of_deployment(&deployment)
}

fn stateful_set(replicas: u32) -> Workload {
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"replicas": replicas, "selector": {}, "template": {}},
    }))
    .unwrap();
    Workload::of_stateful_set(&set)
}

fn status(state: &str, in_flight: u32, idle: u32) -> Status {
    Status {
        state: state.to_owned(),
        in_flight,
        connections: Some(0),
        idle_seconds: (in_flight == 0).then_some(idle.into()),
        draining: false,
    }
}

/// Pods `orders-0`, `orders-1`, …: `r` idle, longer the later it comes, `R` busy, `c` with a connection, `s` waiting
/// for its worker, `p` pending, `?` silent, `d` drained, `D` drained and ready still, `x` about to have drained.
fn pods(letters: &str) -> Vec<Seen> {
    let pod = |(index, letter): (usize, char)| {
        let status = match letter {
            'r' => Some(status("consuming", 0, u32::try_from(index).unwrap() * 10)),
            'R' => Some(status("consuming", 1, 0)),
            'c' => Some(Status {
                connections: Some(1),
                ..status("consuming", 0, 10)
            }),
            's' => Some(status("waiting_for_worker", 0, 10)),
            'd' | 'D' => Some(status("drained", 0, 10)),
            'x' => Some(status("draining", 0, 10)),
            'p' | '?' => None,
            other => panic!("no pod is written {other}"),
        };
        Seen {
            name: format!("orders-{index}"),
            is_running: letter != 'p',
            is_ready: "rRc?D".contains(letter),
            status,
        }
    };
    letters.chars().enumerate().map(pod).collect()
}

fn observed(workload: &Workload, letters: &str) -> Fleet {
    fleet(workload, &pods(letters), &HashSet::new(), some_instant())
}

fn counts(workload: &Workload, letters: &str) -> (u32, u32, u32, u64) {
    let Counts {
        starting,
        ready,
        draining,
        in_flight,
    } = Counts::of(&observed(workload, letters));
    (starting, ready, draining, in_flight)
}

fn victims(workload: &Workload, letters: &str, surplus: u32) -> String {
    let chosen = choose(&observed(workload, letters).replicas, surplus);
    let names: Vec<&str> = chosen
        .iter()
        .map(|id| id.0.trim_start_matches("orders-"))
        .collect();
    names.join(" ")
}

#[test]
fn every_pod_has_the_phase_that_its_sidecar_tells() {
    assert_eq!(counts(&deployment(8), "rRcsp?dx"), (2, 4, 2, 2));
    // A worker that was ready stays so while the broker is away.
    let lost = |is_ready| Seen {
        is_ready,
        status: Some(status("connecting", 0, 1)),
        ..pods("r").remove(0)
    };
    let phase =
        |seen: Seen| fleet(&deployment(1), &[seen], &HashSet::new(), some_instant()).replicas[0].phase;
    assert_eq!(
        (phase(lost(true)), phase(lost(false))),
        (Phase::Ready, Phase::Starting)
    );
}

#[test]
fn busy_and_silent_pods_are_never_chosen() {
    assert_eq!(victims(&deployment(5), "rRc?r", 9), "4 0");
    assert_eq!(victims(&deployment(3), "rps", 9), "1 2 0");
}

#[test]
fn what_a_sidecar_does_not_know_is_not_zero() {
    let read = |text: &str| serde_json::from_str::<Status>(text).unwrap();
    let known =
        read(r#"{"state": "drained", "in_flight": 0, "idle_seconds": 1.5, "connections": 0, "more": []}"#);
    assert!(known.is_finished());
    let unknown = read(r#"{"state": "drained", "in_flight": 0, "idle_seconds": 1.5, "connections": null}"#);
    assert!(!unknown.is_finished() && unknown.idle_since(some_instant()).is_none());
    let early = read(r#"{"state": "consuming", "in_flight": 0, "idle_seconds": 1.5, "draining": true}"#);
    assert!(early.is_draining() && !early.is_finished());
    let busy = read(r#"{"state": "consuming", "in_flight": 1, "idle_seconds": null}"#);
    assert_eq!((busy.load(), busy.idle_since(some_instant())), (1, None));
}

#[test]
fn there_are_as_many_replicas_as_are_asked_for() {
    // A quota keeps two from having a pod.
    assert_eq!(counts(&deployment(3), "R"), (2, 1, 0, 1));
    // Pods beyond the count go by themselves, and those that nobody would miss first.
    assert_eq!(counts(&deployment(1), "pRd"), (0, 1, 0, 1));
    assert_eq!(counts(&deployment(0), "Rr"), (0, 0, 0, 0));
    assert_eq!(counts(&stateful_set(1), "rR"), (0, 1, 0, 0));
}

#[test]
fn what_has_no_pod_or_does_not_run_is_set_aside_to_drain() {
    let aside = HashSet::from(["orders-0".to_owned(), "#0".to_owned()]);
    let fleet = fleet(&deployment(2), &pods("p"), &aside, some_instant());
    assert!(
        fleet
            .replicas
            .iter()
            .all(|replica| replica.phase == Phase::Draining)
    );
    assert_eq!(fleet.kept, None);
    // One that was started meanwhile is what its sidecar says.
    let started = super::fleet(&deployment(2), &pods("r"), &aside, some_instant());
    assert_eq!(Counts::of(&started).ready, 1);
}

#[test]
fn drained_pods_wait_until_a_replica_set_would_choose_them() {
    let kept = |workload: &Workload, letters: &str| observed(workload, letters).kept;
    assert_eq!(kept(&deployment(2), "dR"), None);
    assert!(
        kept(&deployment(2), "DR")
            .unwrap()
            .contains("orders-0 has drained")
    );
    assert!(
        kept(&deployment(2), "xR")
            .unwrap()
            .contains("about to have drained")
    );
    assert_eq!(
        kept(&deployment(2), "Dd"),
        None,
        "when all go there is nothing to choose"
    );
    assert_eq!(kept(&stateful_set(2), "RD"), None);
    let rolling = Workload {
        is_rolling: true,
        ..deployment(2)
    };
    assert!(kept(&rolling, "rr").unwrap().contains("rollout"));
}

#[test]
fn only_the_highest_of_a_stateful_set_are_chosen_from_the_top() {
    let set = stateful_set(4);
    // Which is idle for longest does not matter.
    assert_eq!(victims(&set, "rrrr", 1), "3");
    assert_eq!(victims(&set, "rrrr", 2), "3 2");
    assert_eq!(victims(&set, "rrRr", 9), "3");
    assert_eq!(victims(&set, "rrr?", 9), "");
    assert_eq!(victims(&set, "rrrd", 1), "2");
    assert_eq!(
        victims(&set, "rsrr", 9),
        "3 2",
        "one that starts in between stays"
    );
    assert_eq!(victims(&set, "rrss", 9), "3", "one after the other");
    assert_eq!(victims(&set, "rr", 1), "#0");
    assert_eq!(counts(&set, "rsrr"), (0, 4, 0, 0));
}

#[test]
fn a_long_number_is_no_smaller_than_a_short_one() {
    assert!(ordinal("orders-10") > ordinal("orders-9"));
}
