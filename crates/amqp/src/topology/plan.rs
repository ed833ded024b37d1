//! How the queues that we make are declared.

use contract::names;
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;

/// How much longer than its delay a retry queue lives after it was last declared: 30 days.
///
/// `x-expires` deletes a queue with what is in it. Whoever publishes to one declares it again long before, so only
/// messages whose target refuses them for all that time could be lost; and a queue that nobody has used for a month
/// is litter. RabbitMQ accepts no more than 2^32 - 1 ms, which is 49 days.
///
/// Source: <https://www.rabbitmq.com/docs/ttl#queue-ttl>.
pub const RETRY_QUEUE_SPARE: Duration = Duration::from_hours(30 * 24);

/// A queue that must be there.
///
/// All are durable quorum queues: they survive a node, keep order, and can dead-letter at least once. That needs
/// `overflow: reject-publish`, so that a full target pushes back instead of dropping
/// (<https://www.rabbitmq.com/docs/quorum-queues#dead-lettering>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePlan {
    name: String,
    purpose: Purpose,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Worker { dead_letter: String },
    DeadLetter,
    Response,
    Retry { queue: String, delay: Duration },
}

/// How often a message may come back before the broker itself gives it up, which it does without reason and journal.
/// Messages come back when sidecars drain or are killed; attempts are counted by the sidecar. Since RabbitMQ 4.0 the
/// limit is 20 where none is said; -1, which means none there, is read by 3.10 as a limit of no return at all.
pub(super) const DELIVERY_LIMIT: i64 = 1_000_000_000;

impl QueuePlan {
    /// The queue that a worker takes its messages from, and where the broker itself puts those that it gives up.
    pub fn worker(name: impl Into<String>, dead_letter: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            purpose: Purpose::Worker {
                dead_letter: dead_letter.into(),
            },
        }
    }

    /// Where messages end that no attempt can help.
    pub fn dead_letter(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            purpose: Purpose::DeadLetter,
        }
    }

    /// Where a worker's answers go that no message asked for.
    pub fn response(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            purpose: Purpose::Response,
        }
    }

    /// Holds messages for `delay` (whole milliseconds) and gives them back to `queue`. One queue a delay, because
    /// messages expire only at the head of a queue.
    pub fn retry(queue: impl Into<String>, delay: Duration) -> Self {
        let queue = queue.into();
        Self {
            name: names::retry_queue(&queue, delay),
            purpose: Purpose::Retry { queue, delay },
        }
    }

    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Only queues that a user may have made can hold surprises.
    pub(super) fn is_worth_inspecting(&self) -> bool {
        !matches!(self.purpose, Purpose::Retry { .. })
    }

    /// What it is declared with.
    pub fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        match &self.purpose {
            Purpose::Worker { dead_letter } => {
                dead_letter_to(&mut arguments, dead_letter);
                arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
            }
            Purpose::DeadLetter | Purpose::Response => {}
            Purpose::Retry { queue, delay } => {
                dead_letter_to(&mut arguments, queue);
                arguments.insert("x-message-ttl".into(), milliseconds(*delay));
                arguments.insert("x-expires".into(), milliseconds(*delay + RETRY_QUEUE_SPARE));
            }
        }
        arguments
    }
}

fn dead_letter_to(arguments: &mut FieldTable, queue: &str) {
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn milliseconds(duration: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
