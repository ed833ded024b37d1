//! What came of a tick, for whoever shows it.

use crate::domain::{Assessment, Counts, Decision};

/// The last tick of one target in numbers and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was decided.
    pub decision: Decision,
    /// The decision in one sentence, lower case, without a final period.
    pub sentence: String,
    /// How many replicas demand asks for, within min-replicas and max-replicas. While something is not known: at
    /// least this.
    pub desired: u32,
    /// The replicas as they were before the decision was applied; `None` when they were not known.
    pub replicas: Option<Counts>,
    /// Messages that waited for delivery; `None` when that was not known or there is no queue.
    pub ready: Option<u64>,
    /// Calls that waited or were being answered.
    pub calls: u32,
    /// Why the decision could not be applied, in a sentence; it is decided anew at the next tick.
    pub trouble: Option<String>,
}

impl Report {
    pub(crate) fn new(assessment: Assessment, sentence: String, trouble: Option<String>) -> Self {
        Self {
            decision: assessment.decision,
            sentence,
            desired: assessment.desired,
            replicas: assessment.counts,
            ready: assessment.ready,
            calls: assessment.calls,
            trouble,
        }
    }

    /// Whether it is known that no replica takes messages or soon will: what comes now has to wake one.
    pub(crate) fn is_at_zero(&self) -> bool {
        self.replicas.is_some_and(|counts| counts.active() == 0)
    }
}
