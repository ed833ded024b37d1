//! What workers answer, to the verdict and to what is said to the broker.
//!
//! An input is an answer as text: a line with the status, header lines, an empty line, the body. Lines that are no
//! headers are passed over, as an HTTP client would never let them through.

use crate::Target;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sidecar::domain::answer::{Answer, Body, Explicit, RETRY_AFTER_CAP, Wanted};
use sidecar::domain::delivery::{History, Message};
use sidecar::domain::fields::Fields;
use sidecar::domain::outcome::Outcome;
use sidecar::domain::reply::Address;
use sidecar::domain::retry::Policy;
use sidecar::domain::settlement::{ANSWER_BYTES, Case, Destination, Settlement, Value, plan};
use sidecar::domain::verdict::{Circumstances, Reason, Verdict, judge};
use std::time::Duration;

pub(crate) const TARGET: Target = Target {
    name: "answer",
    what: "answers of workers: one verdict each, delays within bounds, a dead letter that can be carried",
    run,
};

pub(super) const NOW: Duration = Duration::from_hours(489_922);
const MAX_ATTEMPTS: u32 = 3;
/// Above the longest delay: retry-backoff's end, or an hour of Retry-After.
const LONGEST: Duration = Duration::from_hours(1);
/// Bytes that a reply may have; few, so that inputs come to lie on both sides.
const REPLY_BYTES: usize = 512;
/// Bytes that a replaced byte takes in UTF-8.
const REPLACED: usize = 3;

fn run(input: &[u8]) {
    let (status, headers, body) = read(input);
    for caller in [None, Some(Address::Caller("replies".to_owned()))] {
        check_answer(status, &headers, &body, caller.as_ref());
    }
}

fn check_answer(status: StatusCode, headers: &HeaderMap, body: &Bytes, caller: Option<&Address>) {
    let answer = answer(status, headers, body, caller.map(|_| REPLY_BYTES), NOW);
    let outcome = Outcome::Answered(answer.clone());
    for attempts in [0, 1, MAX_ATTEMPTS - 1, u32::MAX] {
        for crashes in [0, 1] {
            let history = History {
                attempts,
                crashes,
                ..History::default()
            };
            check_verdict(&answer, &outcome, history, caller);
        }
    }
}

/// An answer that was read to its end, with what every answer keeps.
pub(super) fn answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &Bytes,
    reply: Option<usize>,
    now: Duration,
) -> Answer {
    let read = Body {
        bytes: body.clone(),
        is_whole: true,
    };
    let wanted = Wanted {
        excerpt: ANSWER_BYTES,
        reply,
    };
    let answer = Answer::read(status, Fields::new(&Fields::of(headers)), &read, wanted, now);
    assert!(answer.retry_after.unwrap_or_default() <= RETRY_AFTER_CAP);
    assert!(answer.excerpt.len() <= ANSWER_BYTES && body.starts_with(&answer.excerpt));
    assert!(answer.deferred.is_none() || answer.status == StatusCode::ACCEPTED);
    answer
}

fn check_verdict(answer: &Answer, outcome: &Outcome, history: History, caller: Option<&Address>) {
    let circumstances = Circumstances {
        history: &history,
        max_attempts: MAX_ATTEMPTS,
        backoff: Policy {
            min: Duration::from_secs(1),
            max: Duration::from_mins(5),
        },
        draining: false,
        alone: true,
        draw: 0.5,
    };
    let verdict = judge(outcome, circumstances);
    assert!(Reason::ALL.contains(&verdict.reason()));
    let is_last = history.attempt() >= MAX_ATTEMPTS;
    let is_cut = answer
        .content
        .as_ref()
        .is_some_and(|content| content.body.is_none());
    match (answer.explicit, verdict) {
        // Whoever waits must not get a part for the whole.
        (Some(Explicit::Ack), verdict) if is_cut => {
            assert!(matches!(
                verdict,
                Verdict::DeadLetter {
                    reason: Reason::ReplyTooLong,
                    ..
                }
            ));
        }
        (Some(Explicit::Ack), verdict) => assert_eq!(verdict, Verdict::Accepted(Reason::ExplicitAck)),
        (None, Verdict::Accepted(_)) => {
            assert!(
                answer.status.is_success() && answer.deferred.is_none(),
                "{answer:?}"
            );
        }
        (_, Verdict::Accepted(_)) => panic!("taken for a yes: {answer:?}"),
        (_, Verdict::Retry { delay, counts, .. }) => {
            assert!(!(counts && is_last), "an attempt too many: {answer:?}");
            assert!(delay <= LONGEST && delay > Duration::ZERO, "waits {delay:?}");
            if counts || answer.retry_after.is_some() {
                assert!(delay >= answer.retry_after.unwrap_or_default().min(LONGEST));
            }
        }
        (_, Verdict::DeadLetter { reason, .. }) => {
            assert!(reason != Reason::AttemptsExhausted || is_last);
        }
        (_, Verdict::Released(_)) => panic!("an answered message was given back: {answer:?}"),
    }
    let message = Message {
        history,
        ..Message::default()
    };
    let case = Case {
        message: &message,
        message_id: "m",
        queue: "orders",
        reply_to: caller,
        outcome,
        now: NOW,
    };
    match (verdict, plan(&verdict, case)) {
        (Verdict::Accepted(_), Settlement::Ack) => assert_eq!(caller, None),
        (Verdict::Accepted(_), Settlement::ReplyThenAck(reply)) => {
            assert_eq!(Some(&reply.to), caller);
            assert!(reply.body.len() <= REPLY_BYTES);
            check_values(reply.set.into_iter().map(|(_, value)| value));
        }
        (Verdict::Retry { delay, .. }, Settlement::CopyThenAck { copy, reply: None }) => {
            assert_eq!(copy.to, Destination::Retry(delay));
            check_values(copy.set.into_iter().map(|(_, value)| value));
        }
        // A caller is told that nothing will come.
        (Verdict::DeadLetter { .. }, Settlement::CopyThenAck { copy, reply }) => {
            assert_eq!(copy.to, Destination::DeadLetter);
            check_values(copy.set.into_iter().map(|(_, value)| value));
            assert_eq!(reply.as_ref().map(|reply| &reply.to), caller);
        }
        (verdict, settlement) => panic!("{verdict:?} became {settlement:?}"),
    }
}

/// What is set on a copy is bounded, and journal lines are lines.
fn check_values(values: impl Iterator<Item = Value>) {
    for value in values {
        match value {
            Value::Text(text) => assert!(text.len() <= ANSWER_BYTES * REPLACED),
            Value::Lines(lines) => {
                for line in lines {
                    assert!(line.len() < 2048 && !line.contains(['\n', '\r']), "{line:?}");
                }
            }
            Value::Number(_) => {}
        }
    }
}

fn read(input: &[u8]) -> (StatusCode, HeaderMap, Bytes) {
    let mut rest = input;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (line, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        (line.strip_suffix(b"\r").unwrap_or(line), end.is_some())
    };
    let status = StatusCode::from_bytes(line().0).unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    loop {
        let (header, is_whole) = line();
        if header.is_empty() || !is_whole {
            break;
        }
        let at = header
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(header.len());
        let value = header.get(at + 1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&header[..at]),
            HeaderValue::from_bytes(value),
        ) {
            headers.append(name, value);
        }
    }
    (status, headers, Bytes::copy_from_slice(rest))
}
