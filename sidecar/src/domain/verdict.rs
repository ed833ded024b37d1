//! From what happened on the wire to what is done with the message. The operators' table in
//! `docs/reference/verdicts.md` has the same rows.

mod reason;

pub use reason::Reason;

use crate::domain::answer::{Answer, Explicit};
use crate::domain::delivery::History;
use crate::domain::outcome::Outcome;
use crate::domain::retry;
use http::StatusCode;
use std::time::Duration;

/// What is done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done: acknowledged.
    Accepted(Reason),
    /// Another attempt after `delay`.
    Retry {
        /// Why.
        reason: Reason,
        /// How long it waits.
        delay: Duration,
        /// Whether this attempt counts towards the limit.
        counts: bool,
    },
    /// No further attempt: parked in the dead-letter queue.
    DeadLetter {
        /// Why there is no further attempt.
        reason: Reason,
        /// What was wrong with this one; the same as `reason` unless the attempts are exhausted.
        cause: Reason,
    },
    /// Given back to the broker at once, as if it had never been here.
    Released(Reason),
}

impl Verdict {
    /// The word of one that is accepted.
    pub const ACCEPTED: &str = "accepted";
    /// The word of one that is given up.
    pub const DEAD_LETTER: &str = "dead_letter";

    /// A stable word for labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => Self::ACCEPTED,
            Self::Retry { .. } => "retry",
            Self::DeadLetter { .. } => Self::DEAD_LETTER,
            Self::Released(_) => "released",
        }
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Accepted(reason)
            | Self::Retry { reason, .. }
            | Self::DeadLetter { reason, .. }
            | Self::Released(reason) => *reason,
        }
    }
}

/// What the verdict depends on besides the outcome.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// What earlier attempts left behind.
    pub history: &'a History,
    /// The last attempt that is allowed, 1-based.
    pub max_attempts: u32,
    /// How retries wait.
    pub backoff: retry::Policy,
    /// Whether intake has stopped because this sidecar is going away.
    pub draining: bool,
    /// Whether no other message was with the worker at the time.
    pub alone: bool,
    /// A random draw in `[0, 1)`.
    pub draw: f64,
}

/// Decides. Total: every outcome has exactly one verdict.
pub fn judge(outcome: &Outcome, circumstances: Circumstances<'_>) -> Verdict {
    match outcome {
        Outcome::Answered(answer) => judge_answer(answer, circumstances),
        Outcome::TimedOut => failed(Reason::TimedOut, None, circumstances),
        Outcome::BodyTooLarge => dead(Reason::BodyTooLarge),
        Outcome::DeferExpired => failed(Reason::DeferExpired, None, circumstances),
        Outcome::NotHttp => failed(Reason::NotHttp, None, circumstances),
        Outcome::Refused => Verdict::Released(Reason::WorkerUnreachable),
        // While draining the worker may be told to stop as well: its going away says nothing about the message.
        Outcome::Reset | Outcome::Crashed if circumstances.draining => Verdict::Released(Reason::Draining),
        Outcome::Reset => failed(Reason::Reset, None, circumstances),
        // A suspect that was alone when the worker died again is the killer.
        Outcome::Crashed if circumstances.history.is_suspect() && circumstances.alone => {
            dead(Reason::CrashedWorker)
        }
        // One of several did it. Each may prove its innocence alone, even if that is one attempt more than allowed.
        Outcome::Crashed if !circumstances.history.is_suspect() && !circumstances.alone => {
            again(Reason::CrashedWorker, None, circumstances)
        }
        Outcome::Crashed => failed(Reason::CrashedWorker, None, circumstances),
    }
}

fn judge_answer(answer: &Answer, circumstances: Circumstances<'_>) -> Verdict {
    let verdict = judge_as_said(answer, circumstances);
    let is_cut = answer
        .content
        .as_ref()
        .is_some_and(|content| content.body.is_none());
    match verdict {
        // Whoever waits for it must not get a part for the whole, and another attempt would bring the same.
        Verdict::Accepted(_) if is_cut => dead(Reason::ReplyTooLong),
        verdict => verdict,
    }
}

fn judge_as_said(answer: &Answer, circumstances: Circumstances<'_>) -> Verdict {
    match answer.explicit {
        Some(Explicit::Ack) => return Verdict::Accepted(Reason::ExplicitAck),
        Some(Explicit::Reject) => return dead(Reason::ExplicitReject),
        Some(Explicit::Retry) => return failed(Reason::ExplicitRetry, answer.retry_after, circumstances),
        Some(Explicit::Unknown) => return failed(Reason::UnknownVerdict, answer.retry_after, circumstances),
        None => {}
    }
    // Nobody could have waited for the end of it: to take a deferral for a yes would lose the message.
    if answer.deferred.is_some() {
        return dead(Reason::DeferUnsupported);
    }
    match (answer.status, answer.retry_after) {
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(hint)) => Verdict::Retry {
            reason: Reason::Throttled,
            delay: retry::hinted(hint),
            counts: false,
        },
        (status, hint) => match by_status(status) {
            Ok(verdict) => verdict,
            Err(reason) => failed(reason, hint, circumstances),
        },
    }
}

/// A final verdict, or the reason of a failed attempt.
fn by_status(status: StatusCode) -> Result<Verdict, Reason> {
    match status.as_u16() {
        200..=299 => Ok(Verdict::Accepted(Reason::Succeeded)),
        300..=399 => Ok(dead(Reason::Redirected)),
        408 => Err(Reason::RequestTimeout),
        425 => Err(Reason::TooEarly),
        429 => Err(Reason::TooManyRequests),
        400..=499 => Ok(dead(Reason::Rejected)),
        500..=599 => Err(Reason::ServerError),
        _ => Err(Reason::UnknownStatus),
    }
}

fn dead(reason: Reason) -> Verdict {
    Verdict::DeadLetter {
        reason,
        cause: reason,
    }
}

fn failed(reason: Reason, hint: Option<Duration>, circumstances: Circumstances<'_>) -> Verdict {
    let attempt = circumstances.history.attempt();
    if attempt >= circumstances.max_attempts {
        return Verdict::DeadLetter {
            reason: Reason::AttemptsExhausted,
            cause: reason,
        };
    }
    again(reason, hint, circumstances)
}

/// Another attempt, whatever the limit says.
fn again(reason: Reason, hint: Option<Duration>, circumstances: Circumstances<'_>) -> Verdict {
    let attempt = circumstances.history.attempt();
    let delay = retry::delay(circumstances.backoff, attempt, hint, circumstances.draw);
    Verdict::Retry {
        reason,
        delay,
        counts: true,
    }
}

#[cfg(test)]
mod tests;
