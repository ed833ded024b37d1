//! The oracle: which of the published messages arrived, which came again, which were not ours or not whole.

use crate::body;
use crate::line::{End, Line};
use std::time::Duration;

/// What is expected to arrive.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Messages with the numbers from 0 to this, not included.
    pub messages: u64,
    /// After how many distinct ones the clocks start.
    pub warm_up: u64,
    /// Bytes of each body.
    pub body_bytes: usize,
    /// The seed of the bodies.
    pub seed: u64,
}

/// Notes arrivals. Each number is one bit.
#[derive(Debug)]
pub struct Ledger {
    expected: Expected,
    seen: Vec<u64>,
    distinct: u64,
    duplicates: u64,
    corrupt: u64,
    foreign: u64,
    /// Of first arrivals after the warm-up, microseconds.
    latencies: Vec<u32>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(expected: Expected) -> Self {
        let words = usize::try_from(expected.messages.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            expected,
            seen: vec![0; words],
            distinct: 0,
            duplicates: 0,
            corrupt: 0,
            foreign: 0,
            latencies: Vec::new(),
        }
    }

    /// Notes a body that arrived at `now` (since the Unix epoch). Returns what is to be told of it, if anything: that
    /// it was the first, the last of the warm-up or the last of all.
    pub fn note(&mut self, body: &[u8], now: Duration) -> Option<Line> {
        let Some(stamp) = body::check(self.expected.seed, self.expected.body_bytes, body) else {
            self.corrupt += 1;
            return None;
        };
        if stamp.id >= self.expected.messages {
            self.foreign += 1;
            return None;
        }
        let bit = 1 << (stamp.id % 64);
        let word = usize::try_from(stamp.id / 64)
            .ok()
            .and_then(|at| self.seen.get_mut(at))?;
        if *word & bit != 0 {
            self.duplicates += 1;
            return None;
        }
        *word |= bit;
        self.distinct += 1;
        if self.distinct > self.expected.warm_up {
            let latency = now.saturating_sub(stamp.due).as_micros();
            self.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
        // A workload may have no warm-up, or one message only: the later moment includes the earlier ones.
        match self.distinct {
            all if all == self.expected.messages => Some(Line::All { now }),
            warm if warm == self.expected.warm_up => Some(Line::Warm { now }),
            1 => Some(Line::First { now }),
            _ => None,
        }
    }

    /// How many distinct messages have arrived.
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// Everything at the end.
    pub fn end(&self) -> End {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let at = |share: usize| {
            let last = latencies.len().checked_sub(1)?;
            latencies.get(last * share / 1000).copied()
        };
        End {
            distinct: self.distinct,
            lost: self.expected.messages - self.distinct,
            duplicates: self.duplicates,
            corrupt: self.corrupt,
            foreign: self.foreign,
            p50_us: at(500),
            p99_us: at(990),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Expected, Ledger};
    use crate::body::make;
    use crate::line::Line;
    use proptest::prelude::*;
    use std::time::Duration;

    const EXPECTED: Expected = Expected {
        messages: 100,
        warm_up: 10,
        body_bytes: 64,
        seed: 3,
    };

    fn body(id: u64) -> Vec<u8> {
        make(3, id, Duration::from_millis(1), 64)
    }

    #[test]
    fn tells_the_first_the_warm_and_the_last() {
        let mut ledger = Ledger::new(EXPECTED);
        let now = Duration::from_millis(3);
        let told: Vec<(u64, Line)> = (0..100)
            .rev()
            .filter_map(|id| Some((id, ledger.note(&body(id), now)?)))
            .collect();
        assert_eq!(
            told,
            [
                (99, Line::First { now }),
                (90, Line::Warm { now }),
                (0, Line::All { now })
            ]
        );
        let end = ledger.end();
        assert_eq!((end.distinct, end.lost, end.duplicates), (100, 0, 0));
        assert_eq!((end.p50_us, end.p99_us), (Some(2000), Some(2000)));
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let mut ledger = Ledger::new(EXPECTED);
        ledger.note(&body(100), Duration::ZERO);
        ledger.note(&make(4, 1, Duration::ZERO, 64), Duration::ZERO);
        ledger.note(b"", Duration::ZERO);
        let end = ledger.end();
        assert_eq!((end.distinct, end.foreign, end.corrupt, end.lost), (0, 1, 2, 100));
    }

    proptest! {
        /// Whatever comes in whatever order: distinct, duplicates and lost are those of a plain set.
        #[test]
        fn counts_as_a_set_does(ids in prop::collection::vec(0_u64..100, 0..300)) {
            let mut ledger = Ledger::new(EXPECTED);
            for id in &ids {
                ledger.note(&body(*id), Duration::ZERO);
            }
            let set: std::collections::BTreeSet<u64> = ids.iter().copied().collect();
            let end = ledger.end();
            prop_assert_eq!(end.distinct, set.len() as u64);
            prop_assert_eq!(end.lost, 100 - set.len() as u64);
            prop_assert_eq!(end.duplicates, (ids.len() - set.len()) as u64);
        }
    }
}
