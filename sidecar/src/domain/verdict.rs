//! From what happened on the wire to what is done with the message. The operators' table in
//! `docs/reference/verdicts.md` has the same rows.

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

/// Why a verdict was given. The word is a log field, a metric label, the `x-kubedaemon-reason` of a dead letter and a
/// row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// 2xx.
    Succeeded,
    /// The worker said `ack`.
    ExplicitAck,
    /// The worker said `retry`.
    ExplicitRetry,
    /// The worker said `reject`.
    ExplicitReject,
    /// The worker gave a verdict that is none of the known words.
    UnknownVerdict,
    /// 429 or 503 with Retry-After.
    Throttled,
    /// 408.
    RequestTimeout,
    /// 425.
    TooEarly,
    /// 429 without Retry-After.
    TooManyRequests,
    /// 5xx.
    ServerError,
    /// 4xx other than those above.
    Rejected,
    /// 3xx: redirects are not followed.
    Redirected,
    /// A status outside 200–599.
    UnknownStatus,
    /// 202 with `X-Defer`, which is not supported yet.
    DeferUnsupported,
    /// No complete answer within the timeout.
    TimedOut,
    /// The connection broke before the answer was complete.
    Reset,
    /// What came back is not HTTP.
    NotHttp,
    /// The worker died while it held the message.
    CrashedWorker,
    /// The last allowed attempt failed.
    AttemptsExhausted,
    /// Nobody listens on the worker's port.
    WorkerUnreachable,
    /// The worker went away while the sidecar was draining.
    Draining,
}

impl Reason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 21] = [
        Self::Succeeded,
        Self::ExplicitAck,
        Self::ExplicitRetry,
        Self::ExplicitReject,
        Self::UnknownVerdict,
        Self::Throttled,
        Self::RequestTimeout,
        Self::TooEarly,
        Self::TooManyRequests,
        Self::ServerError,
        Self::Rejected,
        Self::Redirected,
        Self::UnknownStatus,
        Self::DeferUnsupported,
        Self::TimedOut,
        Self::Reset,
        Self::NotHttp,
        Self::CrashedWorker,
        Self::AttemptsExhausted,
        Self::WorkerUnreachable,
        Self::Draining,
    ];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::ExplicitAck => "explicit_ack",
            Self::ExplicitRetry => "explicit_retry",
            Self::ExplicitReject => "explicit_reject",
            Self::UnknownVerdict => "unknown_verdict",
            Self::Throttled => "throttled",
            Self::RequestTimeout => "request_timeout",
            Self::TooEarly => "too_early",
            Self::TooManyRequests => "too_many_requests",
            Self::ServerError => "server_error",
            Self::Rejected => "rejected",
            Self::Redirected => "redirected",
            Self::UnknownStatus => "unknown_status",
            Self::DeferUnsupported => "defer_unsupported",
            Self::TimedOut => "timed_out",
            Self::Reset => "reset",
            Self::NotHttp => "not_http",
            Self::CrashedWorker => "crashed_worker",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::WorkerUnreachable => "worker_unreachable",
            Self::Draining => "draining",
        }
    }
}

impl Verdict {
    /// A stable word for labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Retry { .. } => "retry",
            Self::DeadLetter { .. } => "dead_letter",
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
    match answer.explicit {
        Some(Explicit::Ack) => return Verdict::Accepted(Reason::ExplicitAck),
        Some(Explicit::Reject) => return dead(Reason::ExplicitReject),
        Some(Explicit::Retry) => return failed(Reason::ExplicitRetry, answer.retry_after, circumstances),
        Some(Explicit::Unknown) => return failed(Reason::UnknownVerdict, None, circumstances),
        None => {}
    }
    // To take a deferral for a yes would lose the message.
    if answer.deferred {
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
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const BACKOFF: retry::Policy = retry::Policy {
        min: Duration::from_secs(1),
        max: Duration::from_mins(5),
    };

    fn answered(status: u16) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            explicit: None,
            retry_after: None,
            deferred: false,
            excerpt: Bytes::new(),
        }
    }

    fn circumstances(history: &History) -> Circumstances<'_> {
        Circumstances {
            history,
            max_attempts: 5,
            backoff: BACKOFF,
            draining: false,
            alone: true,
            draw: 0.5,
        }
    }

    fn first(outcome: &Outcome) -> (&'static str, &'static str, bool) {
        let verdict = judge(outcome, circumstances(&History::default()));
        let counts = matches!(verdict, Verdict::Retry { counts: true, .. });
        (verdict.as_str(), verdict.reason().as_str(), counts)
    }

    #[test]
    fn every_status_has_its_verdict() {
        for status in 100..=999 {
            let expected = match status {
                200..=299 => ("accepted", "succeeded", false),
                300..=399 => ("dead_letter", "redirected", false),
                408 => ("retry", "request_timeout", true),
                425 => ("retry", "too_early", true),
                429 => ("retry", "too_many_requests", true),
                400..=499 => ("dead_letter", "rejected", false),
                500..=599 => ("retry", "server_error", true),
                _ => ("retry", "unknown_status", true),
            };
            assert_eq!(first(&Outcome::Answered(answered(status))), expected, "{status}");
        }
    }

    #[test]
    fn an_explicit_verdict_outranks_every_status() {
        for status in [200, 404, 500, 503] {
            for (explicit, expected) in [
                (Explicit::Ack, ("accepted", "explicit_ack", false)),
                (Explicit::Retry, ("retry", "explicit_retry", true)),
                (Explicit::Reject, ("dead_letter", "explicit_reject", false)),
                (Explicit::Unknown, ("retry", "unknown_verdict", true)),
            ] {
                let answer = Answer {
                    explicit: Some(explicit),
                    ..answered(status)
                };
                assert_eq!(
                    first(&Outcome::Answered(answer)),
                    expected,
                    "{status} {explicit:?}"
                );
            }
        }
    }

    #[test]
    fn retry_after_counts_only_where_it_means_throttling() {
        let hint = Some(Duration::from_secs(7));
        for (status, counts, reason) in [
            (429, false, "throttled"),
            (503, false, "throttled"),
            (500, true, "server_error"),
            (408, true, "request_timeout"),
        ] {
            let verdict = judge(
                &Outcome::Answered(Answer {
                    retry_after: hint,
                    ..answered(status)
                }),
                circumstances(&History::default()),
            );
            let Verdict::Retry {
                reason: why,
                delay,
                counts: counted,
            } = verdict
            else {
                panic!("{status}: {verdict:?}")
            };
            assert_eq!((why.as_str(), counted), (reason, counts), "{status}");
            assert_eq!(delay, Duration::from_secs(7), "{status}");
        }
    }

    #[test]
    fn throttling_is_never_the_last_attempt() {
        let history = History {
            attempts: 4,
            ..History::default()
        };
        let answer = Answer {
            retry_after: Some(Duration::ZERO),
            ..answered(503)
        };
        assert_eq!(
            judge(&Outcome::Answered(answer), circumstances(&history)).as_str(),
            "retry"
        );
    }

    #[test]
    fn the_last_attempt_dead_letters_and_keeps_its_cause() {
        for (attempts, expected) in [(3, "retry"), (4, "dead_letter"), (5, "dead_letter")] {
            let history = History {
                attempts,
                ..History::default()
            };
            let verdict = judge(&Outcome::Answered(answered(500)), circumstances(&history));
            assert_eq!(verdict.as_str(), expected, "{attempts}");
            if let Verdict::DeadLetter { reason, cause } = verdict {
                assert_eq!((reason, cause), (Reason::AttemptsExhausted, Reason::ServerError));
            }
        }
    }

    #[test]
    fn what_happens_on_the_wire_has_its_verdict() {
        assert_eq!(first(&Outcome::TimedOut), ("retry", "timed_out", true));
        assert_eq!(first(&Outcome::Reset), ("retry", "reset", true));
        assert_eq!(first(&Outcome::NotHttp), ("retry", "not_http", true));
        assert_eq!(first(&Outcome::Crashed), ("retry", "crashed_worker", true));
        assert_eq!(
            first(&Outcome::Refused),
            ("released", "worker_unreachable", false)
        );
    }

    #[test]
    fn a_suspect_that_crashes_the_worker_alone_is_the_killer() {
        let suspect = History {
            attempts: 1,
            crashes: 1,
            ..History::default()
        };
        let alone = circumstances(&suspect);
        assert_eq!(judge(&Outcome::Crashed, alone), dead(Reason::CrashedWorker));
        assert_eq!(
            judge(
                &Outcome::Crashed,
                Circumstances {
                    alone: false,
                    ..alone
                }
            )
            .as_str(),
            "retry"
        );
    }

    #[test]
    fn a_crash_among_several_gives_each_one_attempt_alone_even_beyond_the_limit() {
        let (first, suspect) = (
            History::default(),
            History {
                attempts: 1,
                crashes: 1,
                ..History::default()
            },
        );
        let among_several = |history| Circumstances {
            alone: false,
            max_attempts: 1,
            ..circumstances(history)
        };
        assert_eq!(judge(&Outcome::Crashed, among_several(&first)).as_str(), "retry");
        assert_eq!(
            judge(&Outcome::Crashed, among_several(&suspect)).as_str(),
            "dead_letter"
        );
    }

    #[test]
    fn a_worker_that_goes_away_while_draining_costs_no_attempt() {
        let history = History::default();
        for outcome in [Outcome::Reset, Outcome::Crashed] {
            let verdict = judge(
                &outcome,
                Circumstances {
                    draining: true,
                    ..circumstances(&history)
                },
            );
            assert_eq!(verdict, Verdict::Released(Reason::Draining));
        }
    }

    #[test]
    fn a_deferral_is_never_taken_for_a_yes() {
        let answer = Answer {
            deferred: true,
            ..answered(202)
        };
        assert_eq!(
            first(&Outcome::Answered(answer)),
            ("dead_letter", "defer_unsupported", false)
        );
    }

    proptest! {
        #[test]
        fn no_failure_is_accepted_and_attempts_are_bounded(
            status in 300_u16..1000, attempts in 0_u32..100, max_attempts in 1_u32..50, crashes in 0_u32..3, draining: bool, alone: bool, draw in 0.0..1.0,
            wire in 0_usize..6,
        ) {
            let history = History { attempts, crashes, ..History::default() };
            let outcome = [
                Outcome::Answered(answered(status)), Outcome::TimedOut, Outcome::Refused, Outcome::Reset, Outcome::Crashed, Outcome::NotHttp,
            ][wire].clone();
            let circumstances = Circumstances { history: &history, max_attempts, backoff: BACKOFF, draining, alone, draw };
            match judge(&outcome, circumstances) {
                Verdict::Accepted(_) => prop_assert!(false, "{outcome:?} was accepted"),
                // The one attempt alone that a crash among several grants comes once, for it makes a suspect.
                Verdict::Retry { reason: Reason::CrashedWorker, .. } if !alone => {
                    prop_assert!(crashes == 0 || attempts + 1 < max_attempts);
                }
                Verdict::Retry { counts: true, .. } => prop_assert!(attempts + 1 < max_attempts),
                Verdict::Retry { .. } | Verdict::DeadLetter { .. } | Verdict::Released(_) => {}
            }
        }
    }
}
