//! A decision in words, for people who watch or read a log.

use crate::domain::decide::Assessment;
use crate::domain::decision::{Decision, DownReason, HoldReason, UpReason};
use crate::domain::policy::Policy;
use crate::domain::sample::Counts;

/// One sentence, lower case, without a final period.
pub fn of(assessment: &Assessment, policy: &Policy) -> String {
    let counts = assessment.counts.unwrap_or_default();
    let demand = demand(assessment, counts);
    match &assessment.decision {
        Decision::ScaleUp { to, reason } => {
            let what = format!(
                "starting {}, to {to}",
                replicas(to.saturating_sub(counts.total()))
            );
            because(&what, *reason, &demand, policy)
        }
        Decision::Resume {
            replicas: resumed,
            reason,
        } => because(
            &format!("taking back {} that drained", replicas(len(resumed))),
            *reason,
            &demand,
            policy,
        ),
        Decision::Drain { victims, reason } => {
            let left = u64::from(counts.active()).saturating_sub(len(victims));
            let what = format!("draining {}, to {left}", replicas(len(victims)));
            drain(&what, *reason, policy)
        }
        Decision::Remove { replicas: removed } => {
            format!(
                "removing {} with nothing in flight after draining",
                replicas(len(removed))
            )
        }
        Decision::Hold { reason } => hold(*reason, assessment, policy, counts, &demand),
    }
}

fn because(what: &str, reason: UpReason, demand: &str, policy: &Policy) -> String {
    match reason {
        UpReason::Activation | UpReason::TargetPerReplica => {
            format!("{what}: {demand} at {} a replica", policy.messages_per_replica())
        }
        UpReason::CallsWaiting => format!("{what}: {demand}"),
        UpReason::AtMin => format!("{what}: min-replicas is {}", policy.min_replicas()),
        UpReason::AtMax => {
            let per_replica = policy.messages_per_replica();
            format!(
                "{what}: {demand} at {per_replica} a replica; max-replicas is {}",
                policy.max_replicas()
            )
        }
    }
}

fn drain(what: &str, reason: DownReason, policy: &Policy) -> String {
    let cool_down = policy.cool_down();
    match reason {
        DownReason::CoolDownOver => {
            format!("{what}: nothing was to be done for the cool-down of {cool_down:?}")
        }
        DownReason::TargetPerReplica => {
            let per_replica = messages(policy.messages_per_replica().into());
            format!(
                "{what}: no more were needed in the cool-down of {cool_down:?} at {per_replica} a replica"
            )
        }
        DownReason::AtMax => format!("{what}: max-replicas is {}", policy.max_replicas()),
    }
}

fn hold(
    reason: HoldReason,
    assessment: &Assessment,
    policy: &Policy,
    counts: Counts,
    demand: &str,
) -> String {
    let unknown = assessment.unknown.as_deref().unwrap_or("something is not known");
    match reason {
        HoldReason::NoChange => format!("{} for {demand}", replicas(counts.active())),
        HoldReason::AtMin => format!(
            "nothing to do, at min-replicas, which is {}",
            policy.min_replicas()
        ),
        HoldReason::AtMax => format!(
            "{demand} at {} a replica ask for {}; max-replicas is {}",
            policy.messages_per_replica(),
            replicas(assessment.asked),
            policy.max_replicas()
        ),
        HoldReason::CoolDown => format!(
            "{demand}; {} stay until fewer were enough for the cool-down of {:?}",
            replicas(counts.active()),
            policy.cool_down()
        ),
        HoldReason::SampleUnknown => format!("holding at {}: {unknown}", replicas(counts.active())),
        HoldReason::FleetUnknown => format!("holding, the replicas are not known: {unknown}"),
        HoldReason::CallsUnknown => format!(
            "holding at {}: an activator has not told whether there are calls",
            replicas(counts.total())
        ),
        HoldReason::Kept => format!(
            "fewer than {} are needed, but none may go now: {unknown}",
            replicas(counts.total())
        ),
        HoldReason::Starting => {
            format!(
                "waiting for {} of {} to be ready",
                counts.starting,
                replicas(counts.active())
            )
        }
        HoldReason::DrainingBusy => {
            format!(
                "waiting for {} to finish what is in flight and go",
                replicas(counts.draining)
            )
        }
        HoldReason::ReplicasBusy => {
            format!(
                "{} are more than needed, but each has work",
                replicas(counts.active())
            )
        }
    }
}

fn demand(assessment: &Assessment, counts: Counts) -> String {
    let ready = assessment
        .ready
        .filter(|ready| *ready > 0)
        .map(|ready| format!("{} ready", messages(ready)));
    let in_flight = (counts.in_flight > 0).then(|| format!("{} in flight", counts.in_flight));
    let calls = (assessment.calls > 0).then(|| plural(assessment.calls.into(), "call"));
    let parts: Vec<String> = [ready, in_flight, calls].into_iter().flatten().collect();
    if parts.is_empty() {
        "nothing to do".to_owned()
    } else {
        parts.join(" and ")
    }
}

fn messages(count: u64) -> String {
    plural(count, "message")
}

fn replicas(count: impl Into<u64>) -> String {
    plural(count.into(), "replica")
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

fn len<T>(items: &[T]) -> u64 {
    items.len() as u64
}
