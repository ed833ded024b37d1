//! One row a reason, and the promises one by one. Random histories are in `tests/invariants.rs`.

use super::*;
use crate::domain::sample::{Depth, QueueName, SampleError};
use crate::domain::sentence;
use crate::target::{Replica, TargetError};
use crate::testing::some_instant;

const COOL_DOWN: u64 = 60;

fn policy(min: u32, max: u32) -> Policy {
    Policy::try_new(min, max, 10, Duration::from_secs(COOL_DOWN)).unwrap()
}

/// A target with a clock of its own. Every tick takes the fleet as it is.
struct Target {
    start: Instant,
    second: u64,
    policy: Policy,
    memory: Memory,
    queue: QueueSample,
    calls: u32,
    is_calls_known: bool,
    called: bool,
    fleet: Result<Fleet, TargetError>,
}

fn target(min: u32, max: u32) -> Target {
    let policy = policy(min, max);
    Target {
        start: some_instant(),
        second: 0,
        policy,
        memory: Memory::new(&policy),
        queue: QueueSample::Known(Depth::default()),
        calls: 0,
        is_calls_known: true,
        called: false,
        fleet: Ok(Fleet::default()),
    }
}

impl Target {
    fn at(&self) -> Instant {
        self.start + Duration::from_secs(self.second)
    }

    fn after(mut self, seconds: u64) -> Self {
        self.second += seconds;
        self
    }

    fn ready(mut self, messages: u64) -> Self {
        self.queue = QueueSample::Known(Depth {
            ready: messages,
            consumers: 0,
        });
        self
    }

    fn queue_unknown(mut self) -> Self {
        self.queue = QueueSample::Unknown(SampleError::BrokerUnreachable("the broker is away".to_owned()));
        self
    }

    fn calls(mut self, calls: u32) -> Self {
        self.calls = calls;
        self
    }

    fn calls_unknown(mut self) -> Self {
        self.is_calls_known = false;
        self
    }

    fn kept(mut self) -> Self {
        if let Ok(fleet) = &mut self.fleet {
            fleet.kept = Some("a rollout is under way".to_owned());
        }
        self
    }

    /// Replaces the fleet. `r` ready and idle since the start, `R` ready and busy, `s` starting, `d` drained, `D`
    /// draining and busy, `?` ready with no status.
    fn fleet(mut self, replicas: &str) -> Self {
        let replica = |(index, letter): (usize, char)| {
            let (phase, in_flight) = match letter {
                'r' | '?' => (Phase::Ready, 0),
                'R' => (Phase::Ready, 1),
                's' => (Phase::Starting, 0),
                'd' => (Phase::Draining, 0),
                'D' => (Phase::Draining, 1),
                other => panic!("no replica is written {other}"),
            };
            let idle_since = matches!(letter, 'r' | 'd').then_some(self.start);
            Replica {
                id: ReplicaId(format!("{letter}{index}")),
                phase,
                in_flight,
                idle_since,
            }
        };
        self.fleet = Ok(Fleet {
            replicas: replicas.chars().enumerate().map(replica).collect(),
            kept: None,
        });
        self
    }

    fn fleet_unknown(mut self) -> Self {
        self.fleet = Err(TargetError {
            reason: "the API server is away".to_owned(),
        });
        self
    }

    fn assess(&mut self) -> Assessment {
        let sample = Sample {
            at: self.at(),
            queue: self.queue.clone(),
            calls: self.calls,
            is_calls_known: self.is_calls_known,
            called: self.called,
            fleet: self.fleet.clone(),
        };
        decide(&mut self.memory, &self.policy, &sample)
    }

    /// Ticks once and goes on.
    fn ticked(mut self) -> Self {
        self.assess();
        self
    }

    fn decides(mut self) -> String {
        let assessment = self.assess();
        let sentence = sentence::of(&assessment, &self.policy);
        assert!(!sentence.is_empty() && !sentence.ends_with('.'), "{sentence}");
        words(&assessment.decision)
    }
}

fn words(decision: &Decision) -> String {
    let ids = |ids: &[ReplicaId]| ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(",");
    let what = match decision {
        Decision::ScaleUp { to, .. } => format!(" {to}"),
        Decision::Resume { replicas, .. } | Decision::Remove { replicas } => format!(" {}", ids(replicas)),
        Decision::Drain { victims, .. } => format!(" {}", ids(victims)),
        Decision::Hold { .. } => String::new(),
    };
    format!("{}{what}: {}", decision.as_str(), decision.reason())
}

#[test]
fn up_has_a_row_for_every_reason() {
    for reason in [
        UpReason::Activation,
        UpReason::TargetPerReplica,
        UpReason::CallsWaiting,
        UpReason::AtMin,
        UpReason::AtMax,
    ] {
        let (target, expected) = match reason {
            UpReason::Activation => (target(0, 10).ready(35), "scale_up 4: activation"),
            UpReason::TargetPerReplica => (
                target(0, 10).ready(34).fleet("R"),
                "scale_up 4: target_per_replica",
            ),
            UpReason::CallsWaiting => (target(0, 10).calls(7), "scale_up 1: calls_waiting"),
            UpReason::AtMin => (target(2, 10).ready(1), "scale_up 2: at_min"),
            UpReason::AtMax => (target(0, 3).ready(500).fleet("R"), "scale_up 3: at_max"),
        };
        assert_eq!(target.decides(), expected);
    }
}

#[test]
fn down_has_a_row_for_every_reason() {
    for reason in [
        DownReason::CoolDownOver,
        DownReason::TargetPerReplica,
        DownReason::AtMax,
    ] {
        let (target, expected) = match reason {
            DownReason::CoolDownOver => (
                target(0, 10).fleet("rr").ticked().after(60),
                "drain r0,r1: cool_down_over",
            ),
            DownReason::TargetPerReplica => (
                target(0, 10).ready(5).fleet("rrr").ticked().after(60),
                "drain r0,r1: target_per_replica",
            ),
            DownReason::AtMax => (target(0, 2).ready(500).fleet("rrrr"), "drain r0,r1: at_max"),
        };
        assert_eq!(target.decides(), expected);
    }
}

#[test]
fn hold_has_a_row_for_every_reason() {
    for reason in [
        HoldReason::NoChange,
        HoldReason::AtMin,
        HoldReason::AtMax,
        HoldReason::CoolDown,
        HoldReason::SampleUnknown,
        HoldReason::FleetUnknown,
        HoldReason::CallsUnknown,
        HoldReason::Kept,
        HoldReason::Starting,
        HoldReason::DrainingBusy,
        HoldReason::ReplicasBusy,
    ] {
        let target = match reason {
            HoldReason::NoChange => target(0, 10).ready(15).fleet("RR"),
            HoldReason::AtMin => target(0, 10),
            HoldReason::AtMax => target(0, 2).ready(500).fleet("RR"),
            HoldReason::CoolDown => target(0, 10).fleet("rrr"),
            HoldReason::SampleUnknown => target(0, 10).queue_unknown().fleet("rrr").after(9999),
            HoldReason::FleetUnknown => target(0, 10).ready(500).calls(1).fleet_unknown(),
            HoldReason::CallsUnknown => target(0, 10).calls_unknown().fleet("r").ticked().after(9999),
            HoldReason::Kept => target(0, 10).fleet("rr").kept().ticked().after(60),
            HoldReason::Starting => target(0, 10).ready(15).fleet("Rs"),
            HoldReason::DrainingBusy => target(0, 10).ready(5).fleet("RD"),
            HoldReason::ReplicasBusy => target(0, 10).fleet("RRR").ticked().after(60),
        };
        assert_eq!(target.decides(), format!("hold: {}", reason.as_str()));
    }
}

#[test]
fn calls_that_nobody_tells_of_keep_the_last_replica_alone() {
    let target = || target(0, 10).calls_unknown();
    assert_eq!(target().decides(), "hold: at_min", "they wake nobody");
    assert_eq!(target().fleet("d").decides(), "hold: calls_unknown");
    let more = target().fleet("rr").ticked().after(COOL_DOWN);
    assert_eq!(more.decides(), "drain r0: target_per_replica");
    assert_eq!(target().fleet("r").calls(1).decides(), "hold: no_change");
    assert_eq!(target().calls(1).decides(), "scale_up 1: calls_waiting");
    // They do not count towards the cool-down either.
    let mut again = target().fleet("r").ticked().after(600).ticked();
    again.is_calls_known = true;
    assert_eq!(words(&again.assess().decision), "hold: cool_down");
    assert_eq!(again.after(COOL_DOWN).decides(), "drain r0: cool_down_over");
}

#[test]
fn replicas_that_somebody_else_started_stay_for_a_cool_down() {
    let mut target = target(0, 10).after(9999).ticked();
    // An activator wakes the target; its call is told a moment later.
    target = target.fleet("s");
    assert_eq!(words(&target.assess().decision), "hold: cool_down");
    let over = target.after(COOL_DOWN);
    assert_eq!(over.decides(), "drain s0: cool_down_over");
    // Without a cool-down for as long as it takes to tell of the call.
    let mut eager = self::target(0, 10);
    eager.policy = Policy::try_new(0, 10, 10, Duration::ZERO).unwrap();
    eager.memory = Memory::new(&eager.policy);
    let mut eager = eager.ticked().after(5).fleet("s");
    assert_eq!(words(&eager.assess().decision), "hold: cool_down");
    assert_eq!(eager.after(2).decides(), "drain s0: cool_down_over");
    // What we started ourselves goes as soon as it may.
    let mut own = self::target(0, 10);
    own.policy = Policy::try_new(0, 10, 10, Duration::ZERO).unwrap();
    own.memory = Memory::new(&own.policy);
    let own = own.ready(15).ticked().ready(0).fleet("ss").after(1);
    assert_eq!(own.decides(), "drain s0,s1: cool_down_over");
}

#[test]
fn kept_replicas_stay_and_more_may_come() {
    assert_eq!(target(0, 10).fleet("rd").kept().decides(), "hold: kept");
    assert_eq!(
        target(0, 10).fleet("r").kept().ready(25).decides(),
        "scale_up 3: target_per_replica"
    );
}

#[test]
fn a_drained_replica_is_removed_and_a_busy_one_finishes_first() {
    assert_eq!(target(0, 10).fleet("rdDd").decides(), "remove d1,d3: drained");
    assert_eq!(
        target(0, 10).fleet("rD").ready(2).decides(),
        "hold: draining_busy"
    );
}

#[test]
fn a_busy_replica_is_never_a_victim() {
    let target = target(0, 10).fleet("RrR?").ticked().after(COOL_DOWN);
    assert_eq!(target.decides(), "drain r1: target_per_replica");
}

#[test]
fn one_slow_message_and_an_empty_queue_keep_its_replica_for_ever() {
    let mut target = target(0, 10).fleet("R").ticked();
    for _ in 0..600 {
        target = target.after(1);
        assert_eq!(words(&target.assess().decision), "hold: no_change");
    }
}

#[test]
fn draining_replicas_come_back_before_new_ones_start() {
    let target = target(0, 10).ready(35).fleet("rDd");
    assert_eq!(target.decides(), "resume D1,d2: target_per_replica");
}

#[test]
fn a_replica_that_cannot_come_back_is_replaced() {
    let mut target = target(0, 10).ready(1).fleet("d");
    assert_eq!(words(&target.assess().decision), "resume d0: activation");
    target = target.after(1);
    assert_eq!(words(&target.assess().decision), "scale_up 2: activation");
    // At the maximum the new one has to wait until the old one is gone.
    let full = self::target(0, 1).ready(1).fleet("D").ticked().after(1);
    assert_eq!(full.decides(), "hold: draining_busy");
}

#[test]
fn the_last_replica_that_drains_with_work_comes_back() {
    assert_eq!(target(0, 10).fleet("D").decides(), "resume D0: activation");
}

#[test]
fn an_unknown_queue_holds_but_calls_still_wake_from_zero() {
    assert_eq!(
        target(0, 10)
            .queue_unknown()
            .fleet("rrd")
            .ticked()
            .after(9999)
            .decides(),
        "hold: sample_unknown"
    );
    assert_eq!(
        target(0, 10).queue_unknown().calls(3).decides(),
        "scale_up 1: calls_waiting"
    );
    assert_eq!(target(2, 10).queue_unknown().decides(), "scale_up 2: at_min");
}

#[test]
fn an_unknown_time_does_not_count_towards_the_cool_down() {
    let back = target(0, 10)
        .ready(15)
        .fleet("rr")
        .ticked()
        .queue_unknown()
        .after(300)
        .ticked()
        .ready(0);
    assert_eq!(back.decides(), "hold: cool_down");
}

#[test]
fn cool_down_counts_from_the_last_moment_of_demand() {
    let mut target = target(0, 10)
        .ready(1)
        .fleet("R")
        .ticked()
        .after(1)
        .ready(0)
        .fleet("r");
    for second in 1..=COOL_DOWN {
        assert_eq!(
            words(&target.assess().decision),
            "hold: cool_down",
            "second {second}"
        );
        target = target.after(1);
    }
    assert_eq!(target.decides(), "drain r0: cool_down_over");
}

#[test]
fn a_message_between_two_samples_counts_as_demand() {
    let mut target = target(0, 10)
        .fleet("r")
        .ticked()
        .after(COOL_DOWN - 5)
        .ticked()
        .after(10);
    // Nothing was ever seen ready or in flight, but the replica was at work seven seconds ago.
    if let Ok(fleet) = &mut target.fleet {
        fleet.replicas[0].idle_since = Some(target.start + Duration::from_secs(COOL_DOWN - 2));
    }
    assert_eq!(target.decides(), "hold: cool_down");
}

#[test]
fn a_call_between_two_samples_counts_as_demand() {
    let mut target = target(0, 10).fleet("r").ticked().after(COOL_DOWN - 5);
    target.called = true;
    target = target.ticked().after(10);
    target.called = false;
    assert_eq!(target.decides(), "hold: cool_down");
}

#[test]
fn calls_keep_one_replica_and_a_queue_may_ask_for_more() {
    assert_eq!(
        target(0, 10).calls(40).fleet("r").ticked().after(9999).decides(),
        "hold: no_change"
    );
    assert_eq!(
        target(0, 10).calls(40).ready(15).fleet("r").decides(),
        "scale_up 2: target_per_replica"
    );
}

#[test]
fn a_target_without_a_queue_lives_by_its_calls() {
    let no_queue = |mut target: Target| {
        target.queue = QueueSample::NoQueue;
        target
    };
    assert_eq!(no_queue(target(0, 10)).decides(), "hold: at_min");
    assert_eq!(
        no_queue(target(0, 10).calls(1)).decides(),
        "scale_up 1: calls_waiting"
    );
    assert_eq!(
        no_queue(target(0, 10).fleet("r")).ticked().after(60).decides(),
        "drain r0: cool_down_over"
    );
}

#[test]
fn no_cool_down_lets_them_go_at_once() {
    let mut target = target(0, 10).ready(15).fleet("rr").ticked();
    target.policy = Policy::try_new(0, 10, 10, Duration::ZERO).unwrap();
    target.memory = Memory::new(&target.policy);
    assert_eq!(target.ready(0).after(1).decides(), "drain r0,r1: cool_down_over");
}

#[test]
fn decisions_are_told_in_sentences() {
    let rows = [
        (
            target(0, 10).ready(35),
            "starting 4 replicas, to 4: 35 messages ready at 10 a replica",
        ),
        (
            target(0, 3).ready(1000).fleet("R"),
            "starting 2 replicas, to 3: 1000 messages ready and 1 in flight at 10 a replica; max-replicas is 3",
        ),
        (target(0, 10).calls(1), "starting 1 replica, to 1: 1 call"),
        (target(0, 10), "nothing to do, at min-replicas, which is 0"),
        (
            target(0, 10).queue_unknown().fleet("r"),
            "holding at 1 replica: the broker is away",
        ),
        (
            target(0, 10).fleet("rr").ticked().after(60),
            "draining 2 replicas, to 0: nothing was to be done for the cool-down of 60s",
        ),
    ];
    for (mut target, expected) in rows {
        let assessment = target.assess();
        assert_eq!(sentence::of(&assessment, &target.policy), expected);
    }
}

#[test]
fn sample_errors_are_sentences_that_name_the_queue() {
    let queue = QueueName::new("orders");
    let rows = [
        (SampleError::QueueMissing(queue.clone()), "queue_missing", false),
        (
            SampleError::Refused {
                queue: queue.clone(),
                cause: "no".to_owned(),
            },
            "refused",
            false,
        ),
        (
            SampleError::TimedOut {
                queue,
                within: Duration::from_secs(1),
            },
            "timed_out",
            true,
        ),
    ];
    for (error, kind, is_transient) in rows {
        assert!(error.to_string().contains("orders"), "{error}");
        assert_eq!((error.kind(), error.is_transient()), (kind, is_transient));
    }
}
