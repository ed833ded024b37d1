//! One decision for one sample.
//!
//! Up is immediate, down is patient: more replicas are started as soon as a sample asks for them; fewer are kept only
//! when the highest count of the trailing cool-down is lower ([`Window`]). Down is drain-first: idle replicas are
//! drained, drained ones are removed when nothing is in flight on them, and they are resumed before new ones are
//! started when the load comes back.
//!
//! Invariants, whatever the history:
//! - a replica with work is never drained or removed;
//! - nothing goes while the queue or the fleet is unknown; what is known to be needed still comes;
//! - the last replica stays while anything is ready, in flight or called for;
//! - no decision asks for more than the maximum.

use crate::domain::decision::{Decision, DownReason, HoldReason, UpReason};
use crate::domain::policy::Policy;
use crate::domain::sample::{Counts, QueueSample, Sample, last_work};
use crate::domain::victims;
use crate::domain::window::Window;
use crate::target::{Fleet, Phase, ReplicaId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a resumed replica may stay draining before it is taken for one that cannot come back (its process is
/// ending), and a new one is started in its place.
const RESUME_PATIENCE: Duration = Duration::from_secs(1);
/// How long at least replicas stay that somebody else started: an activator that wakes a target for a call tells of the
/// call within a second.
const RAISED: Duration = Duration::from_secs(2);

/// A decision with the numbers that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// What is to be done.
    pub decision: Decision,
    /// How many replicas demand asks for now, before the bounds. While something is not known: at least this.
    pub asked: u64,
    /// `asked` within min-replicas and max-replicas.
    pub desired: u32,
    /// The replicas; `None` when they are not known.
    pub counts: Option<Counts>,
    /// Messages that wait for delivery; `None` when it is not known or there is no queue.
    pub ready: Option<u64>,
    /// Calls that wait or are being answered.
    pub calls: u32,
    /// Why something is not known, or no replica may go, in a sentence.
    pub unknown: Option<String>,
}

/// What the past ticks of one target left behind.
#[derive(Debug, Clone)]
pub struct Memory {
    window: Window,
    /// Draining replicas that were resumed, and when first.
    resumed: BTreeMap<ReplicaId, Instant>,
    /// How many replicas there are if nobody else changes that.
    expected: Option<u32>,
    /// When somebody else had started replicas, and how many were active then.
    raised: Option<(Instant, u32)>,
}

impl Memory {
    /// The memory of a target that was never looked at.
    pub fn new(policy: &Policy) -> Self {
        Self {
            window: Window::new(policy.cool_down()),
            resumed: BTreeMap::new(),
            expected: None,
            raised: None,
        }
    }

    /// Whoever starts replicas beside us knows why: they stay for a cool-down.
    fn note_others(&mut self, counts: Counts, now: Instant) {
        if self.expected.is_some_and(|expected| counts.total() > expected) {
            self.raised = Some((now, counts.active()));
        }
        self.expected = Some(counts.total());
    }

    /// How many replicas somebody else has asked for.
    fn raised(&self, cool_down: Duration, now: Instant) -> u32 {
        self.raised
            .filter(|(at, _)| now.saturating_duration_since(*at) < cool_down.max(RAISED))
            .map_or(0, |(_, active)| active)
    }

    /// Counts every sign of demand in `sample`, in the past too, towards the cool-down.
    fn note_demand(&mut self, sample: &Sample, ready: Option<u64>) {
        // Calls of which nothing is known do not count towards the cool-down, but only a replica that is there can
        // have them.
        let may_have_calls = !sample.is_calls_known
            && sample
                .fleet
                .as_ref()
                .is_ok_and(|fleet| !fleet.replicas.is_empty());
        if sample.called || sample.calls > 0 || may_have_calls || ready.is_some_and(|ready| ready > 0) {
            self.window.demand(sample.at);
        }
        if let Some(at) = sample
            .fleet
            .as_ref()
            .ok()
            .and_then(|fleet| last_work(&fleet.replicas, sample.at))
        {
            self.window.demand(at);
        }
    }

    fn forget_resumed(&mut self, fleet: &Fleet) {
        self.resumed.retain(|id, _| {
            fleet
                .replicas
                .iter()
                .any(|replica| replica.phase == Phase::Draining && replica.id == *id)
        });
    }

    fn may_resume(&self, id: &ReplicaId, now: Instant) -> bool {
        self.resumed
            .get(id)
            .is_none_or(|first| now.saturating_duration_since(*first) < RESUME_PATIENCE)
    }
}

/// Decides what to do about `sample` and remembers what later decisions need of it.
pub fn decide(memory: &mut Memory, policy: &Policy, sample: &Sample) -> Assessment {
    let (ready, unknown) = match &sample.queue {
        QueueSample::NoQueue => (None, None),
        QueueSample::Known(depth) => (Some(depth.ready), None),
        QueueSample::Unknown(error) => (None, Some(error.to_string())),
    };
    memory.note_demand(sample, ready);
    let (fleet, counts) = match &sample.fleet {
        Ok(fleet) => (fleet, Some(Counts::of(fleet))),
        Err(_) => (&Fleet::default(), None),
    };
    let in_flight = counts.unwrap_or_default().in_flight;
    // Replicas hold what is in flight already: while the queue is unknown more of them would help calls alone.
    let depth = if unknown.is_some() {
        0
    } else {
        ready.unwrap_or(0).saturating_add(in_flight)
    };
    let asked = policy.asked(depth, sample.calls);
    let desired = policy.bounded(asked);
    let decision = match counts {
        None => Decision::Hold {
            reason: HoldReason::FleetUnknown,
        },
        Some(counts) => {
            let is_known = unknown.is_none();
            let is_calls_known = sample.is_calls_known;
            Situation {
                policy,
                now: sample.at,
                fleet,
                counts,
                depth,
                asked,
                desired,
                is_known,
                is_calls_known,
            }
            .decide(memory)
        }
    };
    let kept = match decision {
        Decision::Hold {
            reason: HoldReason::Kept,
        } => fleet.kept.clone(),
        _ => None,
    };
    let unknown = sample
        .fleet
        .as_ref()
        .err()
        .map(ToString::to_string)
        .or(unknown)
        .or(kept);
    Assessment {
        decision,
        asked,
        desired,
        counts,
        ready,
        calls: sample.calls,
        unknown,
    }
}

/// A sample with a known fleet, in numbers.
struct Situation<'a> {
    policy: &'a Policy,
    now: Instant,
    fleet: &'a Fleet,
    counts: Counts,
    depth: u64,
    asked: u64,
    desired: u32,
    /// Whether `asked` is all that messages ask for, and not only the least.
    is_known: bool,
    /// Whether there are no calls but those that are known of.
    is_calls_known: bool,
}

impl Situation<'_> {
    fn decide(&self, memory: &mut Memory) -> Decision {
        memory.forget_resumed(self.fleet);
        memory.note_others(self.counts, self.now);
        if self.is_known {
            memory.window.record(self.now, self.desired, self.counts.active());
        }
        if self.desired > self.counts.active() {
            self.grow(memory)
        } else if self.is_known {
            self.shrink(memory)
        } else {
            Decision::Hold {
                reason: HoldReason::SampleUnknown,
            }
        }
    }

    /// There are too few: draining replicas come back first, then new ones are started.
    fn grow(&self, memory: &mut Memory) -> Decision {
        let reason = self.up_reason();
        let missing = self.desired - self.counts.active();
        let replicas = victims::to_resume(&self.fleet.replicas, missing, |id| {
            memory.may_resume(id, self.now)
        });
        if !replicas.is_empty() {
            for id in &replicas {
                memory.resumed.entry(id.clone()).or_insert(self.now);
            }
            return Decision::Resume { replicas, reason };
        }
        // Draining replicas that cannot come back still count against the maximum.
        let to = self
            .counts
            .total()
            .saturating_add(missing)
            .min(self.policy.max_replicas());
        if to > self.counts.total() {
            memory.expected = Some(to);
            Decision::ScaleUp { to, reason }
        } else {
            Decision::Hold {
                reason: HoldReason::DrainingBusy,
            }
        }
    }

    /// There are enough: drained replicas go; then idle ones that were not needed for a cool-down are drained.
    fn shrink(&self, memory: &Memory) -> Decision {
        let replicas = victims::finished(&self.fleet.replicas);
        // Calls that nobody tells of ask for one replica, and a draining one may be resumed for them.
        let is_last = self.counts.active() == 0 && !replicas.is_empty();
        if is_last && !self.is_calls_known {
            return hold(HoldReason::CallsUnknown);
        }
        if !replicas.is_empty() {
            return self.unless_kept(Decision::Remove { replicas });
        }
        let before = memory.window.highest(self.now);
        let raised = memory.raised(self.policy.cool_down(), self.now);
        let held = self.asked.max(before.max(raised).into());
        let needed = if self.is_calls_known { held } else { held.max(1) };
        let surplus = self.counts.active().saturating_sub(self.policy.bounded(needed));
        if surplus == 0 {
            return hold(self.hold_reason());
        }
        let victims = victims::choose(&self.fleet.replicas, surplus);
        if victims.is_empty() {
            return self.unless_kept(hold(HoldReason::ReplicasBusy));
        }
        self.unless_kept(Decision::Drain {
            victims,
            reason: self.down_reason(needed),
        })
    }

    fn unless_kept(&self, decision: Decision) -> Decision {
        if self.fleet.kept.is_some() {
            hold(HoldReason::Kept)
        } else {
            decision
        }
    }

    fn up_reason(&self) -> UpReason {
        if self.asked < u64::from(self.policy.min_replicas()) {
            UpReason::AtMin
        } else if self.depth == 0 {
            UpReason::CallsWaiting
        } else if self.counts.active() == 0 {
            UpReason::Activation
        } else if self.asked > u64::from(self.policy.max_replicas()) {
            UpReason::AtMax
        } else {
            UpReason::TargetPerReplica
        }
    }

    fn down_reason(&self, needed: u64) -> DownReason {
        if self.counts.active() > self.policy.max_replicas() {
            DownReason::AtMax
        } else if needed == 0 {
            DownReason::CoolDownOver
        } else {
            DownReason::TargetPerReplica
        }
    }

    fn hold_reason(&self) -> HoldReason {
        if self.asked > u64::from(self.policy.max_replicas()) {
            HoldReason::AtMax
        } else if self.counts.draining > 0 {
            HoldReason::DrainingBusy
        } else if !self.is_calls_known && self.desired == 0 && self.counts.active() == 1 {
            HoldReason::CallsUnknown
        } else if self.desired < self.counts.active() {
            HoldReason::CoolDown
        } else if self.counts.starting > 0 {
            HoldReason::Starting
        } else if self.asked == 0 {
            HoldReason::AtMin
        } else {
            HoldReason::NoChange
        }
    }
}

fn hold(reason: HoldReason) -> Decision {
    Decision::Hold { reason }
}

#[cfg(test)]
mod tests;
