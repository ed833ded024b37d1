//! One observation of one target: what is known at a moment, and what is not. Not knowing is never zero.

use crate::target::{Fleet, Phase, Replica, TargetError};
use std::fmt;
use std::time::{Duration, Instant};

/// The name of a queue in the broker's vhost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(String);

impl QueueName {
    /// Takes any text; the broker refuses what is longer than 255 bytes.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as the broker knows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a passive declare tells of a queue. Messages in flight are not in it.
///
/// Source: AMQP 0-9-1 reference, `queue.declare-ok`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait for delivery.
    pub ready: u64,
    /// Consumers that could take them.
    pub consumers: u32,
}

/// Why the depth of a queue is not known. `Display` is one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The broker has no queue of this name. A message published to it now is dropped or returned.
    #[error("there is no queue \"{0}\" on the broker: declare it, or check its name and the vhost")]
    QueueMissing(QueueName),
    /// The broker answered, but refuses to tell about this queue.
    #[error("queue \"{queue}\" cannot be asked for its depth: {cause}")]
    Refused {
        /// Which queue.
        queue: QueueName,
        /// What the broker said.
        cause: String,
    },
    /// Nothing is known of any queue of this broker.
    #[error("{0}")]
    BrokerUnreachable(String),
    /// No answer came in time.
    #[error("the broker did not tell the depth of queue \"{queue}\" within {} ms", .within.as_millis())]
    TimedOut {
        /// Which queue.
        queue: QueueName,
        /// How long was waited.
        within: Duration,
    },
}

impl SampleError {
    /// A bounded word for labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::QueueMissing(_) => "queue_missing",
            Self::Refused { .. } => "refused",
            Self::BrokerUnreachable(_) => "broker_unreachable",
            Self::TimedOut { .. } => "timed_out",
        }
    }

    /// Whether waiting may help without anyone doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::BrokerUnreachable(_) | Self::TimedOut { .. } => true,
            Self::QueueMissing(_) | Self::Refused { .. } => false,
        }
    }
}

/// What is known of a target's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueSample {
    /// The target has no queue; calls alone are its demand.
    NoQueue,
    /// The broker's answer.
    Known(Depth),
    /// There is a queue, and its depth is not known.
    Unknown(SampleError),
}

/// What the activators tell of a target: calls that wait or are being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// All of them have told: so many.
    Known(u32),
    /// Not all have told: at least so many.
    AtLeast(u32),
}

impl Calls {
    /// How many are known of.
    pub fn count(self) -> u32 {
        match self {
            Self::Known(count) | Self::AtLeast(count) => count,
        }
    }

    /// Whether there are no others.
    pub fn is_known(self) -> bool {
        matches!(self, Self::Known(_))
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self::Known(0)
    }
}

/// Everything a decision is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When it was complete.
    pub at: Instant,
    /// Taken before `fleet`, so that a message on its way from one to the other is counted twice rather than not
    /// at all.
    pub queue: QueueSample,
    /// Calls that wait or are being answered, as far as is known.
    pub calls: u32,
    /// Whether `calls` is all of them, and not only the least.
    pub is_calls_known: bool,
    /// Whether a call came or went since the sample before, also when `calls` is 0 again.
    pub called: bool,
    /// The target's replicas, or why they are not known.
    pub fleet: Result<Fleet, TargetError>,
}

/// A fleet in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Replicas that are asked for and not ready yet.
    pub starting: u32,
    /// Replicas that take messages.
    pub ready: u32,
    /// Replicas that finish what they hold.
    pub draining: u32,
    /// Messages and calls in flight on all of them.
    pub in_flight: u64,
}

impl Counts {
    /// Counts a fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let mut counts = Self::default();
        for replica in &fleet.replicas {
            match replica.phase {
                Phase::Starting => counts.starting += 1,
                Phase::Ready => counts.ready += 1,
                Phase::Draining => counts.draining += 1,
            }
            counts.in_flight += u64::from(replica.in_flight);
        }
        counts
    }

    /// Replicas that take messages or soon will.
    pub fn active(&self) -> u32 {
        self.starting + self.ready
    }

    /// All replicas, draining ones too.
    pub fn total(&self) -> u32 {
        self.active() + self.draining
    }
}

/// The latest moment at which a replica is known to have been at work.
pub(crate) fn last_work(replicas: &[Replica], now: Instant) -> Option<Instant> {
    replicas
        .iter()
        .filter_map(|replica| {
            if replica.in_flight > 0 {
                Some(now)
            } else {
                replica.idle_since
            }
        })
        .max()
}
