//! How many replicas a demand deserves: the numbers that a user sets, and nothing learnt.

use std::num::NonZeroU32;
use std::time::Duration;

/// The bounds and the aim of one target. Its rules hold from construction on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    min_replicas: u32,
    max_replicas: u32,
    messages_per_replica: NonZeroU32,
    cool_down: Duration,
}

/// Why numbers make no policy. `Display` is one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// `max_replicas` is 0.
    #[error("max-replicas is 0, but at least 1 is needed for anything to run")]
    MaxIsZero,
    /// `min_replicas` is above `max_replicas`.
    #[error("min-replicas is {min}, but it cannot be above max-replicas, which is {max}")]
    MinAboveMax {
        /// The value of min-replicas.
        min: u32,
        /// The value of max-replicas.
        max: u32,
    },
    /// `messages_per_replica` is 0.
    #[error("messages-per-replica is 0, but a replica must be worth at least 1 message")]
    MessagesPerReplicaIsZero,
}

impl Policy {
    /// Checks the numbers: `min_replicas` ≤ `max_replicas`, `max_replicas` ≥ 1, `messages_per_replica` ≥ 1.
    /// `cool_down` is how long a lower demand must last before replicas go; zero = at once.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn try_new(
        min_replicas: u32,
        max_replicas: u32,
        messages_per_replica: u32,
        cool_down: Duration,
    ) -> Result<Self, PolicyError> {
        if max_replicas == 0 {
            return Err(PolicyError::MaxIsZero);
        }
        if min_replicas > max_replicas {
            return Err(PolicyError::MinAboveMax {
                min: min_replicas,
                max: max_replicas,
            });
        }
        let messages_per_replica =
            NonZeroU32::new(messages_per_replica).ok_or(PolicyError::MessagesPerReplicaIsZero)?;
        Ok(Self {
            min_replicas,
            max_replicas,
            messages_per_replica,
            cool_down,
        })
    }

    /// Never fewer replicas than this.
    pub fn min_replicas(&self) -> u32 {
        self.min_replicas
    }

    /// Never more replicas than this.
    pub fn max_replicas(&self) -> u32 {
        self.max_replicas
    }

    /// How many messages one replica is worth.
    pub fn messages_per_replica(&self) -> u32 {
        self.messages_per_replica.get()
    }

    /// How long a lower demand must last before replicas go.
    pub fn cool_down(&self) -> Duration {
        self.cool_down
    }

    /// What `depth` messages (ready and in flight) and `calls` (waiting and in flight) ask for, before the bounds:
    /// one replica for each `messages_per_replica`, rounded up, and at least one while there is a call.
    pub fn asked(&self, depth: u64, calls: u32) -> u64 {
        depth
            .div_ceil(u64::from(self.messages_per_replica.get()))
            .max(u64::from(calls > 0))
    }

    /// What was asked, within the bounds.
    pub fn bounded(&self, asked: u64) -> u32 {
        u32::try_from(asked)
            .unwrap_or(u32::MAX)
            .clamp(self.min_replicas, self.max_replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(min: u32, max: u32, per_replica: u32) -> Result<Policy, PolicyError> {
        Policy::try_new(min, max, per_replica, Duration::from_mins(1))
    }

    #[test]
    fn numbers_that_make_no_policy_are_refused_with_a_sentence() {
        assert_eq!(policy(0, 0, 1), Err(PolicyError::MaxIsZero));
        assert_eq!(policy(0, 1, 0), Err(PolicyError::MessagesPerReplicaIsZero));
        let sentence = policy(3, 2, 1).unwrap_err().to_string();
        assert_eq!(
            sentence,
            "min-replicas is 3, but it cannot be above max-replicas, which is 2"
        );
    }

    #[test]
    fn replicas_asked_for() {
        // messages per replica, depth, calls, asked, bounded to 0..=5
        let rows = [
            (10, 0, 0, 0, 0),
            (10, 1, 0, 1, 1),
            (10, 10, 0, 1, 1),
            (10, 11, 0, 2, 2),
            (1, 5, 0, 5, 5),
            (1, 6, 0, 6, 5),
            (10, 0, 1, 1, 1),
            (10, 0, 500, 1, 1),
            (10, 35, 7, 4, 4),
            (1, u64::MAX, 0, u64::MAX, 5),
        ];
        for (per_replica, depth, calls, asked, bounded) in rows {
            let policy = policy(0, 5, per_replica).unwrap();
            assert_eq!(policy.asked(depth, calls), asked, "{per_replica} {depth} {calls}");
            assert_eq!(policy.bounded(asked), bounded, "{per_replica} {depth} {calls}");
        }
        assert_eq!(policy(2, 5, 10).unwrap().bounded(0), 2);
    }
}
