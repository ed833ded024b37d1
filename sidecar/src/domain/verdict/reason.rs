//! Why a verdict was given.

/// Why a verdict was given. The word is a log field, a metric label, the `x-kubedaemon-reason` of a dead letter and a
/// row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// 2xx.
    Succeeded,
    /// It was accepted before, and the broker delivers it again because it did not hear of it.
    AlreadyCompleted,
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
    /// 202 with `X-Defer`, while there is no address to settle it at.
    DeferUnsupported,
    /// The message is longer than the worker may get.
    BodyTooLarge,
    /// Deferred, and not settled in time.
    DeferExpired,
    /// A yes whose answer is to become a reply and is longer than replies may be.
    ReplyTooLong,
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
    pub const ALL: [Self; 25] = [
        Self::Succeeded,
        Self::AlreadyCompleted,
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
        Self::BodyTooLarge,
        Self::DeferExpired,
        Self::ReplyTooLong,
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
            Self::AlreadyCompleted => "already_completed",
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
            Self::BodyTooLarge => "body_too_large",
            Self::DeferExpired => "defer_expired",
            Self::ReplyTooLong => "reply_too_long",
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
