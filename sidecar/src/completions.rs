//! The record of messages that this process has seen through; what it is for is told in
//! `domain/completed.rs`.

use crate::domain::completed::{Completed, Key};
use crate::domain::delivery::Message;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Remembers messages by the id that their publisher gave them, and their bodies.
#[derive(Debug)]
pub(crate) struct Completions {
    /// Keyed at random, so that no publisher can make two messages look alike.
    hashing: RandomState,
    completed: Mutex<Completed>,
}

impl Completions {
    /// A record of at most so many; 0 turns it off.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            hashing: RandomState::new(),
            completed: Mutex::new(Completed::new(most)),
        }
    }

    /// Whether the broker delivers again what was accepted before. Without its word for it, the same id and body are a
    /// new message.
    pub(crate) fn has(&self, message: &Message, now: Duration) -> bool {
        message.redelivered
            && self
                .key(message)
                .is_some_and(|key| self.completed().knows(key, now))
    }

    /// The message was accepted, and everything that is published for it is confirmed.
    pub(crate) fn remember(&self, message: &Message, now: Duration) {
        if let Some(key) = self.key(message) {
            self.completed().remember(key, now);
        }
    }

    /// `None` when there is nothing to tell it by, or nothing to remember it for.
    fn key(&self, message: &Message) -> Option<Key> {
        let id = message.message_id.as_deref()?;
        if !self.completed().is_on() {
            return None;
        }
        let mut hasher = self.hashing.build_hasher();
        hasher.write(id.as_bytes());
        let of_id = hasher.finish();
        hasher.write_usize(id.len());
        hasher.write(&message.body);
        Some((of_id, hasher.finish()))
    }

    fn completed(&self) -> MutexGuard<'_, Completed> {
        self.completed.lock().expect("invariant: no holder panics")
    }
}
