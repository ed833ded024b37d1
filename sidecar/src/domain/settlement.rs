//! From a verdict to the broker actions that make it true.

use crate::domain::answer::Answer;
use crate::domain::delivery::Message;
use crate::domain::journal::{self, Entry};
use crate::domain::outcome::Outcome;
use crate::domain::reply::{self, Address, Replied, Reply};
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
    /// A reply is published and confirmed, and only then is the original acknowledged.
    ReplyThenAck(Reply),
    /// A copy is published and confirmed, then a caller who waits is told, and only then is the original acknowledged.
    CopyThenAck {
        /// The copy.
        copy: Copy,
        /// What a caller is told, of a dead letter.
        reply: Option<Reply>,
    },
}

/// One delivery whose verdict is known.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The message.
    pub message: &'a Message,
    /// Its id, or the one made up for it.
    pub message_id: &'a str,
    /// The queue that it came from.
    pub queue: &'a str,
    /// Where its reply goes, if anybody wants one.
    pub reply_to: Option<&'a Address>,
    /// How its attempt ended.
    pub outcome: &'a Outcome,
    /// When its attempt began, since the Unix epoch.
    pub now: Duration,
}

impl<'a> Case<'a> {
    fn answer(&self) -> Option<&'a Answer> {
        match self.outcome {
            Outcome::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    fn replied(&self) -> Replied<'a> {
        Replied {
            message: self.message,
            message_id: self.message_id,
            queue: self.queue,
        }
    }
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

/// Plans the settlement.
pub fn plan(verdict: &Verdict, case: Case<'_>) -> Settlement {
    let Case { message, queue, .. } = case;
    match *verdict {
        Verdict::Accepted(reason) => accepted(reason, case),
        Verdict::Released(_) => Settlement::Release,
        Verdict::Retry {
            reason,
            delay,
            counts,
        } => {
            let mut set = history(case, reason, counts);
            origin(message, &mut set);
            Settlement::CopyThenAck {
                copy: Copy {
                    to: Destination::Retry(delay),
                    set,
                },
                reply: None,
            }
        }
        Verdict::DeadLetter { reason, cause } => {
            let mut set = history(case, cause, true);
            origin(message, &mut set);
            set.push((headers::QUEUE, Value::Text(queue.to_owned())));
            set.push((headers::REASON, Value::Text(reason.as_str().to_owned())));
            if let Some(answer) = case.answer() {
                set.push((headers::STATUS, Value::Number(i64::from(answer.status.as_u16()))));
                set.push((
                    headers::ANSWER,
                    Value::Text(journal::text(&answer.excerpt, ANSWER_BYTES)),
                ));
            }
            Settlement::CopyThenAck {
                copy: Copy {
                    to: Destination::DeadLetter,
                    set,
                },
                reply: error_reply(reason, cause, case),
            }
        }
    }
}

fn accepted(reason: Reason, case: Case<'_>) -> Settlement {
    let content = case
        .answer()
        .and_then(|answer| Some((answer, answer.content.as_ref()?)));
    match (case.reply_to, content) {
        (Some(to), Some((answer, content))) => Settlement::ReplyThenAck(reply::of_answer(
            to.clone(),
            case.replied(),
            answer,
            content,
            reason,
        )),
        _ => Settlement::Ack,
    }
}

/// Only for a caller: who reads the response queue does not wait for this message, and finds what failed in the
/// dead-letter queue.
fn error_reply(reason: Reason, cause: Reason, case: Case<'_>) -> Option<Reply> {
    let to = case.reply_to.filter(|to| matches!(to, Address::Caller(_)))?;
    Some(reply::of_dead_letter(
        to.clone(),
        case.replied(),
        case.answer(),
        reason,
        cause,
    ))
}

/// What the next attempt must know of this one.
fn history(case: Case<'_>, reason: Reason, counts: bool) -> Vec<(&'static str, Value)> {
    let (past, answer, now) = (&case.message.history, case.answer(), case.now);
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
mod tests;
