//! One worker with all its processes, as its status line shows it.

use super::life::State;
use std::fmt;

/// What became of the messages that a worker was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Accepted by the worker and acknowledged.
    pub(crate) done: u64,
    /// Put back for another attempt.
    pub(crate) retried: u64,
    /// Moved to the dead-letter queue.
    pub(crate) dead: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.retried += other.retried;
        self.dead += other.dead;
    }
}

/// What is known of one replica for the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// What its process is doing.
    pub(crate) state: State,
    /// Its intake was stopped.
    pub(crate) is_draining: bool,
    /// Messages that it works on.
    pub(crate) in_flight: u32,
    /// What became of its messages so far.
    pub(crate) counts: Counts,
}

/// What a worker is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// No process; the next message or call wakes it.
    Zero,
    /// Processes are being started and none is ready.
    Starting,
    /// At least one process takes work.
    Ready,
    /// All processes finish what they hold and are then stopped.
    Draining,
    /// No process is ready and at least one ended again and again.
    CrashLoop,
}

impl Condition {
    /// As the status line and `/status` write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::CrashLoop => "crash-loop",
        }
    }
}

/// The numbers of a status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// What the worker is doing as a whole.
    pub(crate) condition: Condition,
    /// Processes, whatever they are doing.
    pub(crate) replicas: usize,
    /// Processes that take work.
    pub(crate) ready: usize,
    /// Messages and calls that are being worked on or wait for a process.
    pub(crate) in_flight: u64,
    /// Totals since the start, those of stopped processes included.
    pub(crate) counts: Counts,
}

impl Summary {
    /// Whether the replicas are as they were, and only messages and calls have moved.
    pub(crate) fn differs_in_counts_only(&self, other: &Self) -> bool {
        let replicas = |summary: &Self| (summary.condition, summary.replicas, summary.ready);
        replicas(self) == replicas(other)
    }
}

/// Adds up the replicas of one worker. `calls` are HTTP calls under way, `past` the counts of replicas that are gone.
pub(crate) fn summarize(members: &[Member], calls: u32, past: Counts) -> Summary {
    let mut counts = past;
    let mut in_flight = u64::from(calls);
    for member in members {
        counts += member.counts;
        in_flight += u64::from(member.in_flight);
    }
    let ready = members
        .iter()
        .filter(|member| member.state == State::Ready && !member.is_draining)
        .count();
    let condition = if members.is_empty() {
        Condition::Zero
    } else if ready > 0 {
        Condition::Ready
    } else if members
        .iter()
        .all(|member| member.is_draining || member.state == State::Stopping)
    {
        Condition::Draining
    } else if members.iter().any(|member| member.state == State::CrashLoop) {
        Condition::CrashLoop
    } else {
        Condition::Starting
    };
    Summary {
        condition,
        replicas: members.len(),
        ready,
        in_flight,
        counts,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            condition,
            replicas,
            ready,
            in_flight,
            counts,
        } = self;
        let Counts { done, retried, dead } = counts;
        let condition = condition.as_str();
        write!(
            f,
            "state={condition} replicas={replicas} ready={ready} in-flight={in_flight} done={done} \
             retried={retried} dead={dead}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: State) -> Member {
        Member {
            state,
            is_draining: false,
            in_flight: 1,
            counts: Counts {
                done: 10,
                retried: 2,
                dead: 1,
            },
        }
    }

    #[test]
    fn the_condition_follows_the_best_replica() {
        let draining = Member {
            is_draining: true,
            ..member(State::Ready)
        };
        let rows: [(&[Member], Condition); 8] = [
            (&[], Condition::Zero),
            (&[member(State::Starting)], Condition::Starting),
            (&[member(State::Restarting)], Condition::Starting),
            (
                &[member(State::CrashLoop), member(State::Starting)],
                Condition::CrashLoop,
            ),
            (
                &[member(State::CrashLoop), member(State::Ready)],
                Condition::Ready,
            ),
            (&[draining, member(State::Stopping)], Condition::Draining),
            (&[draining, member(State::Starting)], Condition::Starting),
            (&[draining, member(State::Ready)], Condition::Ready),
        ];
        for (members, condition) in rows {
            assert_eq!(
                summarize(members, 0, Counts::default()).condition,
                condition,
                "{members:?}"
            );
        }
    }

    #[test]
    fn numbers_add_up_over_living_and_gone_replicas() {
        let past = Counts {
            done: 100,
            retried: 0,
            dead: 5,
        };
        let line = summarize(&[member(State::Ready), member(State::Starting)], 3, past).to_string();
        assert_eq!(
            line,
            "state=ready replicas=2 ready=1 in-flight=5 done=120 retried=4 dead=7"
        );
    }
}
