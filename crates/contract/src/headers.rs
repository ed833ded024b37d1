//! Header names: AMQP headers on the copies that we publish, HTTP headers between sidecar and worker.

/// Attempts already counted when the copy was published; a signed 64-bit integer.
pub const ATTEMPTS: &str = "x-kubedaemon-attempts";
/// When the message was first seen; milliseconds since the epoch, a signed 64-bit integer.
pub const FIRST_SEEN: &str = "x-kubedaemon-first-seen";
/// Why a message was given up, on dead letters; a `snake_case` word. Causes of retries are in the journal.
pub const REASON: &str = "x-kubedaemon-reason";
/// On replies: `accepted` with the worker's answer, or `dead_letter` when there will be none.
pub const VERDICT: &str = "x-kubedaemon-verdict";
/// On replies: how many headers of the answer were left out because there were too many, or they were too long.
pub const HEADERS_DROPPED: &str = "x-kubedaemon-headers-dropped";
/// The HTTP status that the worker answered, when it answered.
pub const STATUS: &str = "x-kubedaemon-status";
/// The first bytes of the worker's answer.
pub const ANSWER: &str = "x-kubedaemon-answer";
/// One entry for each attempt: when, where, and how it ended.
pub const JOURNAL: &str = "x-kubedaemon-journal";
/// How many times the worker crashed while it held this message.
pub const CRASHES: &str = "x-kubedaemon-crashes";
/// The exchange that the message was first published to.
pub const EXCHANGE: &str = "x-kubedaemon-exchange";
/// The routing key that the message was first published with.
pub const ROUTING_KEY: &str = "x-kubedaemon-routing-key";
/// The queue that the message was taken from.
pub const QUEUE: &str = "x-kubedaemon-queue";
/// The message's own `expiration`, kept here because the broker would apply it to the copy.
pub const EXPIRATION: &str = "x-kubedaemon-expiration";
/// The message's own `user-id`, kept here because the broker refuses one that is not the connection's user.
pub const USER_ID: &str = "x-kubedaemon-user-id";
/// The message's own `CC` header, kept here because the broker would route the copy by it.
pub const CC: &str = "x-kubedaemon-cc";
/// The message's own `x-death` header, kept here because the broker counts in it.
pub const DEATH: &str = "x-kubedaemon-x-death";

/// HTTP headers of `POST /message` and of its answer, in lower case as HTTP/2 has them.
pub mod http {
    /// The message's id.
    pub const MESSAGE_ID: &str = "x-message-id";
    /// AMQP `correlation-id`.
    pub const CORRELATION_ID: &str = "x-correlation-id";
    /// Which attempt this is; 1-based.
    pub const DELIVERY_ATTEMPT: &str = "x-delivery-attempt";
    /// After how many attempts the message is given up.
    pub const MAX_ATTEMPTS: &str = "x-max-attempts";
    /// When the message was first seen; RFC 3339.
    pub const FIRST_SEEN: &str = "x-first-seen";
    /// When the sidecar stops waiting for the answer; RFC 3339.
    pub const DEADLINE: &str = "x-deadline";
    /// The queue that the message was taken from.
    pub const QUEUE: &str = "x-queue";
    /// The exchange that it was published to; empty for the default exchange.
    pub const EXCHANGE: &str = "x-exchange";
    /// The routing key that it was published with.
    pub const ROUTING_KEY: &str = "x-routing-key";
    /// `true` when the broker delivered the message before.
    pub const REDELIVERED: &str = "x-redelivered";
    /// The session that the message belongs to.
    pub const SESSION_ID: &str = "x-session-id";
    /// AMQP `reply-to`.
    pub const REPLY_TO: &str = "x-reply-to";
    /// AMQP `type`.
    pub const TYPE: &str = "x-type";
    /// AMQP `app-id`.
    pub const APP_ID: &str = "x-app-id";
    /// AMQP `user-id`.
    pub const USER_ID: &str = "x-user-id";
    /// AMQP `timestamp`; RFC 3339.
    pub const ENQUEUED_AT: &str = "x-enqueued-at";
    /// AMQP `priority`.
    pub const PRIORITY: &str = "x-priority";
    /// AMQP `expiration`; milliseconds.
    pub const EXPIRATION: &str = "x-expiration";
    /// The same for every attempt of one message, so that a worker can tell a repetition.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// How many application headers were left out because there were too many, or they were too long.
    pub const HEADERS_DROPPED: &str = "x-headers-dropped";
    /// What application headers of the message are prefixed with.
    pub const AMQP_PREFIX: &str = "x-amqp-";
    /// Where the worker settles a message that it answered with 202 and [`DEFER`].
    pub const CALLBACK_URL: &str = "x-callback-url";
    /// On an answer with 202: for how many seconds the worker may work on and settle later.
    pub const DEFER: &str = "x-defer";
    /// On an answer: the verdict, which then outweighs the status.
    pub const VERDICT: &str = "x-message-verdict";
}

/// The media type of an answer whose body is a verdict in JSON.
pub const VERDICT_MEDIA_TYPE: &str = "application/vnd.kubedaemon.verdict+json";
