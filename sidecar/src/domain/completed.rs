//! Which messages were accepted lately. An acknowledgement can be lost with its connection; then the broker delivers the
//! message again, and the worker need not do it again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// For how long a completion is remembered: far longer than a broker takes to deliver again, and not for ever, because
/// publishers reuse ids.
pub const AGE: Duration = Duration::from_hours(1);

/// What tells a message from others: keyed hashes of its id, and of its id and body.
pub type Key = (u64, u64);

/// A bounded memory. Times count from the Unix epoch.
#[derive(Debug)]
pub struct Completed {
    most: usize,
    /// When each was completed last.
    at: HashMap<Key, Duration>,
    /// Oldest first, those that were completed again since among them.
    order: VecDeque<(Key, Duration)>,
}

impl Completed {
    /// A memory for `most` messages; 0 remembers nothing.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            at: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether anything is ever remembered.
    pub fn is_on(&self) -> bool {
        self.most > 0
    }

    /// This message was accepted at `now`.
    pub fn remember(&mut self, key: Key, now: Duration) {
        if !self.is_on() {
            return;
        }
        self.at.insert(key, now);
        self.order.push_back((key, now));
        while let Some((oldest, at)) = self.order.front().copied()
            && (self.order.len() > self.most || is_over(at, now))
        {
            self.order.pop_front();
            if self.at.get(&oldest) == Some(&at) {
                self.at.remove(&oldest);
            }
        }
    }

    /// Whether it was accepted within [`AGE`] before `now`.
    pub fn knows(&self, key: Key, now: Duration) -> bool {
        self.at.get(&key).is_some_and(|at| !is_over(*at, now))
    }
}

fn is_over(at: Duration, now: Duration) -> bool {
    now.saturating_sub(at) > AGE
}

#[cfg(test)]
mod tests;
