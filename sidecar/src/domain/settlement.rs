//! From a verdict to the broker actions that make it true.

use crate::domain::delivery::Message;
use crate::domain::journal::{self, Entry};
use crate::domain::outcome::Outcome;
use crate::domain::verdict::{Reason, Verdict};
use contract::headers;
use std::time::Duration;

/// Bytes of the worker's answer that a dead letter carries.
pub const ANSWER_BYTES: usize = 4096;

/// What is said to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// `basic.ack`.
    Ack,
    /// `basic.nack` with requeue.
    Release,
    /// A copy is published and confirmed, and only then is the original acknowledged.
    CopyThenAck(Copy),
}

/// Where a copy goes and how its headers differ from the original's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where it goes.
    pub to: Destination,
    /// Headers to set, by name.
    pub set: Vec<(&'static str, Value)>,
}

/// Where a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Back to the queue after a delay.
    Retry(Duration),
    /// To the dead-letter queue.
    DeadLetter,
}

/// The value of a header that we set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Several texts, in order.
    Lines(Vec<String>),
}

/// Plans the settlement of `message`, which came from `queue` and was dispatched at `now` (since the Unix epoch) with
/// this `outcome`.
pub fn plan(
    verdict: &Verdict,
    outcome: &Outcome,
    message: &Message,
    queue: &str,
    now: Duration,
) -> Settlement {
    match *verdict {
        Verdict::Accepted(_) => Settlement::Ack,
        Verdict::Released(_) => Settlement::Release,
        Verdict::Retry {
            reason,
            delay,
            counts,
        } => {
            let mut set = history(outcome, message, reason, counts, now);
            origin(message, &mut set);
            Settlement::CopyThenAck(Copy {
                to: Destination::Retry(delay),
                set,
            })
        }
        Verdict::DeadLetter { reason, cause } => {
            let mut set = history(outcome, message, cause, true, now);
            origin(message, &mut set);
            set.push((headers::QUEUE, Value::Text(queue.to_owned())));
            set.push((headers::REASON, Value::Text(reason.as_str().to_owned())));
            if let Outcome::Answered(answer) = outcome {
                set.push((headers::STATUS, Value::Number(i64::from(answer.status.as_u16()))));
                set.push((
                    headers::ANSWER,
                    Value::Text(journal::text(&answer.excerpt, ANSWER_BYTES)),
                ));
            }
            Settlement::CopyThenAck(Copy {
                to: Destination::DeadLetter,
                set,
            })
        }
    }
}

/// What the next attempt must know of this one.
fn history(
    outcome: &Outcome,
    message: &Message,
    reason: Reason,
    counts: bool,
    now: Duration,
) -> Vec<(&'static str, Value)> {
    let past = &message.history;
    let answer = match outcome {
        Outcome::Answered(answer) => Some(answer),
        _ => None,
    };
    let entry = Entry {
        attempt: past.attempt(),
        at: now,
        reason,
        status: answer.map(|answer| answer.status),
        answer: answer.map_or(&[], |answer| &answer.excerpt),
    };
    // A suspect that was tried and did not take the worker down is cleared.
    let crashes = if reason == Reason::CrashedWorker {
        past.crashes.saturating_add(1)
    } else {
        0
    };
    let attempts = past.attempts.saturating_add(u32::from(counts));
    let first_seen = past.first_seen.unwrap_or(now);
    vec![
        (headers::ATTEMPTS, Value::Number(i64::from(attempts))),
        (
            headers::FIRST_SEEN,
            Value::Number(i64::try_from(first_seen.as_millis()).unwrap_or(i64::MAX)),
        ),
        (headers::CRASHES, Value::Number(i64::from(crashes))),
        (
            headers::JOURNAL,
            Value::Lines(journal::with(&past.journal, entry)),
        ),
    ]
}

/// A copy travels through the default exchange under the name of a queue; the worker should still see how the
/// message was published.
fn origin(message: &Message, set: &mut Vec<(&'static str, Value)>) {
    set.push((headers::EXCHANGE, Value::Text(message.exchange.clone())));
    set.push((headers::ROUTING_KEY, Value::Text(message.routing_key.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::Answer;
    use crate::domain::delivery::History;
    use bytes::Bytes;
    use http::StatusCode;

    /// 2025-11-21T10:00:00Z.
    const NOW: Duration = Duration::from_hours(489_922);

    fn answered() -> Outcome {
        Outcome::Answered(Answer {
            status: StatusCode::IM_A_TEAPOT,
            explicit: None,
            retry_after: None,
            deferred: false,
            excerpt: Bytes::from_static(b"short and stout"),
        })
    }

    fn value<'a>(copy: &'a Copy, name: &str) -> &'a Value {
        &copy
            .set
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("{name} is missing"))
            .1
    }

    fn copied(verdict: Verdict, outcome: &Outcome, message: &Message) -> Copy {
        match plan(&verdict, outcome, message, "orders", NOW) {
            Settlement::CopyThenAck(copy) => copy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_yes_is_acknowledged_without_a_copy() {
        let message = Message::default();
        let plan = |verdict| plan(&verdict, &answered(), &message, "orders", NOW);
        assert_eq!(plan(Verdict::Accepted(Reason::Succeeded)), Settlement::Ack);
        assert_eq!(plan(Verdict::Released(Reason::Draining)), Settlement::Release);
    }

    #[test]
    fn a_dead_letter_says_why_and_where_from() {
        let message = Message {
            exchange: "shop".into(),
            routing_key: "order.new".into(),
            ..Message::default()
        };
        let verdict = Verdict::DeadLetter {
            reason: Reason::Rejected,
            cause: Reason::Rejected,
        };
        let copy = copied(verdict, &answered(), &message);
        assert_eq!(copy.to, Destination::DeadLetter);
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(value(&copy, headers::REASON), &text("rejected"));
        assert_eq!(value(&copy, headers::STATUS), &Value::Number(418));
        assert_eq!(value(&copy, headers::ANSWER), &text("short and stout"));
        assert_eq!(value(&copy, headers::QUEUE), &text("orders"));
        assert_eq!(value(&copy, headers::EXCHANGE), &text("shop"));
        assert_eq!(value(&copy, headers::ROUTING_KEY), &text("order.new"));
        assert_eq!(value(&copy, headers::ATTEMPTS), &Value::Number(1));
    }

    #[test]
    fn attempts_count_only_when_they_count() {
        let first_seen = Some(Duration::from_secs(1));
        let history = History {
            attempts: 2,
            first_seen,
            ..History::default()
        };
        let message = Message {
            history,
            ..Message::default()
        };
        for (counts, expected) in [(true, 3), (false, 2)] {
            let verdict = Verdict::Retry {
                reason: Reason::ServerError,
                delay: Duration::from_secs(1),
                counts,
            };
            let copy = copied(verdict, &answered(), &message);
            assert_eq!(value(&copy, headers::ATTEMPTS), &Value::Number(expected));
            assert_eq!(value(&copy, headers::FIRST_SEEN), &Value::Number(1000));
        }
    }

    #[test]
    fn crashes_add_up_and_are_forgiven_by_any_other_end() {
        let suspect = Message {
            history: History {
                crashes: 1,
                ..History::default()
            },
            ..Message::default()
        };
        let retry = |reason| Verdict::Retry {
            reason,
            delay: Duration::from_secs(1),
            counts: true,
        };
        let crashed = copied(retry(Reason::CrashedWorker), &Outcome::Crashed, &suspect);
        assert_eq!(value(&crashed, headers::CRASHES), &Value::Number(2));
        let cleared = copied(retry(Reason::ServerError), &answered(), &suspect);
        assert_eq!(value(&cleared, headers::CRASHES), &Value::Number(0));
    }
}
