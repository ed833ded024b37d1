//! The introduction: what a worker is told before its first message, and what its answer means.

use crate::domain::answer::Answer;
use crate::domain::outcome::Outcome;
use crate::domain::request::Target;
use bytes::Bytes;
use serde_json::json;

/// How the introduction went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Introduced {
    /// The worker takes messages now.
    Ready,
    /// It does not know the path: it takes messages all the same.
    Unsupported,
    /// It takes none yet; with the reason, for people.
    NotYet(String),
}

/// What a worker is told besides what its requests say.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Where and how messages are posted.
    pub target: &'a Target,
    /// Messages with it at once.
    pub concurrency: u16,
    /// The longest answer that becomes a reply, in bytes.
    pub reply_max_bytes: usize,
    /// How many seconds it may defer a message for.
    pub max_defer_seconds: u64,
}

/// The document.
pub fn document(work: Work<'_>) -> Bytes {
    let document = json!({
        "version": 1,
        "queue": work.target.queue,
        "path": work.target.path.to_string(),
        "concurrency": work.concurrency,
        "max_attempts": work.target.max_attempts,
        "timeout_seconds": work.target.timeout.as_secs_f64(),
        "max_defer_seconds": work.max_defer_seconds,
        "reply_max_bytes": work.reply_max_bytes,
    });
    Bytes::from(document.to_string())
}

/// What came of it.
pub fn judge(outcome: &Outcome) -> Introduced {
    let Outcome::Answered(Answer { status, excerpt, .. }) = outcome else {
        return Introduced::NotYet(format!("it ended as {}", outcome.as_str()));
    };
    match status.as_u16() {
        200..=299 => Introduced::Ready,
        404 | 405 | 501 => Introduced::Unsupported,
        code if excerpt.is_empty() => Introduced::NotYet(format!("the worker answers {code}")),
        code => Introduced::NotYet(format!(
            "the worker answers {code}: {}",
            String::from_utf8_lossy(&excerpt[..excerpt.len().min(160)])
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn every_answer_lets_messages_through_or_says_why_not() {
        for status in 100..=999 {
            let outcome = Outcome::Answered(Answer {
                status: StatusCode::from_u16(status).unwrap(),
                explicit: None,
                retry_after: None,
                deferred: None,
                excerpt: Bytes::from_static(b"the model is loading"),
                content: None,
            });
            let expected = match status {
                200..=299 => Introduced::Ready,
                404 | 405 | 501 => Introduced::Unsupported,
                _ => Introduced::NotYet(format!("the worker answers {status}: the model is loading")),
            };
            assert_eq!(judge(&outcome), expected);
        }
        assert_eq!(
            judge(&Outcome::TimedOut),
            Introduced::NotYet("it ended as timed_out".into())
        );
    }
}
