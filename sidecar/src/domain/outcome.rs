//! What happened on the wire of one POST.

use crate::domain::answer::Answer;

/// The end of one dispatch. An HTTP answer of any status is never an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The worker answered, by the callback if it had deferred, and the answer was read to its end (or to the bound up to which it is read).
    Answered(Answer),
    /// No complete answer within the timeout.
    TimedOut,
    /// Nobody listens on the worker's port, or nobody has room for a connection: the message never left.
    Refused,
    /// The connection broke after the request was sent and before the answer was complete; the worker's port still
    /// answers.
    Reset,
    /// The same, and nobody listens on the worker's port any more.
    Crashed,
    /// What came back is not HTTP.
    NotHttp,
    /// The message is longer than the worker may get: it was not sent.
    BodyTooLarge,
    /// It was deferred and not settled in time.
    DeferExpired,
}

impl Outcome {
    /// A stable word for labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Crashed => "crashed",
            Self::NotHttp => "not_http",
            Self::BodyTooLarge => "body_too_large",
            Self::DeferExpired => "defer_expired",
        }
    }
}
