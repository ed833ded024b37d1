//! The table. A row here is all it takes to add a setting to annotations, variables, flags and the reference; its
//! value gets a field in [`Settings`](super::Settings).

use super::Component::{Activator, Autoscaler, Sidecar};
use super::{Kind, Setting};
use crate::names::MAX_RETRY_DELAY;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Where the broker is.
pub const BROKER: Setting = Setting {
    name: "broker",
    kind: Kind::Broker,
    default: Some("amqp://127.0.0.1:5672"),
    default_note: "",
    sentence: "The address of the RabbitMQ broker; user, password, port and virtual host may be left out (guest, guest, 5672 or 5671 with amqps, /)",
    when: "Almost always. Give a password through the environment variable from a Secret rather than through an annotation or a flag, which others can read",
    components: &[Sidecar, Autoscaler, Activator],
};

/// The virtual host, over the one in the address.
pub const VHOST: Setting = Setting {
    name: "vhost",
    kind: Kind::Vhost,
    default: None,
    default_note: "the one in the broker's address",
    sentence: "The virtual host on the broker, in place of the one in its address",
    when: "When several virtual hosts share one broker address, for example one for each team",
    components: &[Sidecar, Autoscaler, Activator],
};

/// The worker's queue.
pub const QUEUE: Setting = Setting {
    name: "queue",
    kind: Kind::Queue,
    default: None,
    default_note: "none: the worker is only called over HTTP",
    sentence: "The queue whose messages the worker gets",
    when: "Always, for a worker that is fed from a queue. A queue that does not exist is made; one that does is used as it is",
    components: &[Sidecar, Autoscaler, Activator],
};

/// The worker's port.
pub const PORT: Setting = Setting {
    name: "port",
    kind: Kind::Whole {
        min: 1,
        max: 65_535,
        unit: "TCP port",
    },
    default: Some("8080"),
    default_note: "",
    sentence: "The TCP port on which the worker listens; as an annotation it may be left out when the first container names its containerPort",
    when: "When the worker listens somewhere else",
    components: &[Sidecar, Activator],
};

/// The path that messages are posted to.
pub const PATH: Setting = Setting {
    name: "path",
    kind: Kind::Path,
    default: Some("/message"),
    default_note: "",
    sentence: "The path that messages are posted to",
    when: "When an existing service is to be fed whose endpoint has another path",
    components: &[Sidecar],
};

/// The path at which the worker is introduced to its work.
pub const INIT_PATH: Setting = Setting {
    name: "init-path",
    kind: Kind::Path,
    default: None,
    default_note: "none: the first that a worker gets is a message",
    sentence: "The path that the worker is called at after each of its starts; it gets no message before it has answered with 2xx, or with 404, 405 or 501 for not knowing the path",
    when: "When a worker has to make itself ready after its port is open, or wants to know its queue and its limits",
    components: &[Sidecar],
};

/// Messages at a time in one replica.
pub const CONCURRENCY: Setting = Setting {
    name: "concurrency",
    kind: Kind::Whole {
        min: 1,
        max: 1_000,
        unit: "messages in flight in one replica",
    },
    default: Some("1"),
    default_note: "",
    sentence: "How many messages one replica works on at the same time",
    when: "Raise it when the worker handles requests in parallel or mostly waits for others",
    components: &[Sidecar],
};

/// Messages that one replica holds at a time, with those that it works on.
pub const PREFETCH: Setting = Setting {
    name: "prefetch",
    kind: Kind::Whole {
        min: 1,
        max: 2_000,
        unit: "messages handed over to one replica",
    },
    default: None,
    default_note: "concurrency, and as many again less one, but at most 64",
    sentence: "How many messages the broker hands over to one replica before the first of them is settled: those that it works on, and those that are next; not less than concurrency",
    when: "Set it to 2 or more when the worker takes one message at a time, and each for milliseconds: then the next is there before the broker has heard of the one before. Set it to the concurrency when messages take long: what is next in one replica waits there while another is idle",
    components: &[Sidecar],
};

/// How long the worker may take for one message.
pub const TIMEOUT: Setting = Setting {
    name: "timeout",
    kind: Kind::Duration {
        min: MILLISECOND,
        max: DAY,
    },
    default: Some("60s"),
    default_note: "",
    sentence: "How long the worker may take for one message before the attempt counts as failed",
    when: "Set it well above the longest time that a message properly takes; terminationGracePeriodSeconds should be longer still",
    components: &[Sidecar],
};

/// Attempts before a message is given up.
pub const MAX_ATTEMPTS: Setting = Setting {
    name: "max-attempts",
    kind: Kind::Whole {
        min: 1,
        max: 1_000,
        unit: "attempts",
    },
    default: Some("5"),
    default_note: "",
    sentence: "After how many failed attempts a message goes to the dead-letter queue",
    when: "Raise it when failures pass by themselves, set it to 1 when a message must not be tried again",
    components: &[Sidecar],
};

/// The pause between two attempts.
pub const RETRY_BACKOFF: Setting = Setting {
    name: "retry-backoff",
    kind: Kind::DurationRange {
        min: MILLISECOND,
        max: MAX_RETRY_DELAY,
        default_end: Duration::from_mins(5),
    },
    default: Some("1s..5m"),
    default_note: "",
    sentence: "The pause before a failed message is tried again: the first pause and the longest, growing in between",
    when: "Lengthen it when what fails needs longer to recover. One duration alone is the first pause; the longest is then 5m, or the same when the first is longer than that",
    components: &[Sidecar],
};

/// Where given-up messages go.
pub const DEAD_LETTER: Setting = Setting {
    name: "dead-letter",
    kind: Kind::PlainQueue,
    default: None,
    default_note: "the queue's name with .dead behind it",
    sentence: "The queue that messages go to when they are given up, each with the reason",
    when: "When several queues are to share one dead-letter queue",
    components: &[Sidecar, Autoscaler],
};

/// How long a message may be that the worker gets.
pub const MAX_BODY_BYTES: Setting = Setting {
    name: "max-body-bytes",
    kind: Kind::Whole {
        min: 1,
        max: 512 * 1024 * 1024,
        unit: "bytes",
    },
    default: Some("16777216"),
    default_note: "",
    sentence: "The longest message that the worker gets; a longer one is given up at once",
    when: "Lower it to what the worker can bear. Raise it for larger messages, and the sidecar's memory with it: it holds one whole at least. RabbitMQ itself takes 16 MiB from 4.0 on unless it is told otherwise, and 128 MiB before",
    components: &[Sidecar],
};

/// Where answers go that no message asked for.
pub const RESPONSE_QUEUE: Setting = Setting {
    name: "response-queue",
    kind: Kind::PlainQueue,
    default: None,
    default_note: "none: only a message with reply-to gets a reply",
    sentence: "The queue that the worker's answers go to when the message names no reply-to of its own; not the queue and not its dead-letter queue",
    when: "When somebody is to go on with what the worker answers, for example another worker",
    components: &[Sidecar],
};

/// How long an answer may be that becomes a reply.
pub const REPLY_MAX_BYTES: Setting = Setting {
    name: "reply-max-bytes",
    kind: Kind::Whole {
        min: 1,
        max: 16 * 1024 * 1024,
        unit: "bytes",
    },
    default: Some("1048576"),
    default_note: "",
    sentence: "The longest answer that becomes a reply; a message that is to get a longer one is given up and none is cut",
    when: "Raise it when answers are larger, and the sidecar's memory with it: it holds one for each message in flight. RabbitMQ itself takes 16 MiB from 4.0 on",
    components: &[Sidecar],
};

/// How long a message may be deferred.
pub const MAX_DEFER: Setting = Setting {
    name: "max-defer",
    kind: Kind::Duration {
        min: Duration::from_secs(1),
        max: DAY,
    },
    default: Some("25m"),
    default_note: "",
    sentence: "How long the worker may take for a message that it defers, from its dispatch on, whatever it asks for",
    when: "Raise it for longer work, and the broker's consumer_timeout with it, which takes messages back after 30m; stay some minutes below that",
    components: &[Sidecar],
};

/// How many accepted messages are remembered.
pub const REMEMBER_COMPLETED: Setting = Setting {
    name: "remember-completed",
    kind: Kind::Whole {
        min: 0,
        max: 100_000,
        unit: "messages",
    },
    default: Some("10000"),
    default_note: "",
    sentence: "How many accepted messages with an id each sidecar remembers for an hour, so that one which the broker delivers again is not done again; 0 for none",
    when: "Set it to 0 when publishers use one message-id for different work with the same body",
    components: &[Sidecar],
};

/// The lowest replica count.
pub const MIN_REPLICAS: Setting = Setting {
    name: "min-replicas",
    kind: Kind::Whole {
        min: 0,
        max: 10_000,
        unit: "replicas",
    },
    default: Some("0"),
    default_note: "",
    sentence: "How many replicas there are at least; not more than max-replicas",
    when: "Set it to 1 or more when a cold start takes too long for somebody who waits",
    components: &[Autoscaler],
};

/// The highest replica count.
pub const MAX_REPLICAS: Setting = Setting {
    name: "max-replicas",
    kind: Kind::Whole {
        min: 1,
        max: 10_000,
        unit: "replicas",
    },
    default: Some("10"),
    default_note: "",
    sentence: "How many replicas there are at most",
    when: "Set it to what the worker's database and the cluster can bear",
    components: &[Autoscaler],
};

/// The depth that one replica is for.
pub const MESSAGES_PER_REPLICA: Setting = Setting {
    name: "messages-per-replica",
    kind: Kind::Whole {
        min: 1,
        max: 100_000,
        unit: "messages",
    },
    default: Some("10"),
    default_note: "",
    sentence: "For how many messages, waiting or in flight, there is one replica",
    when: "Lower it when messages take long, raise it when they are quick",
    components: &[Autoscaler],
};

/// How long a worker stays without work.
pub const COOL_DOWN: Setting = Setting {
    name: "cool-down",
    kind: Kind::Duration {
        min: Duration::ZERO,
        max: DAY,
    },
    default: Some("60s"),
    default_note: "",
    sentence: "How long there must be nothing to do before the last replicas are removed",
    when: "Lengthen it when a cold start is expensive and work comes in bursts",
    components: &[Autoscaler],
};

/// Every setting, in the order in which the reference and `--help` show them.
pub static SETTINGS: &[Setting] = &[
    BROKER,
    VHOST,
    QUEUE,
    PORT,
    PATH,
    INIT_PATH,
    CONCURRENCY,
    PREFETCH,
    TIMEOUT,
    MAX_ATTEMPTS,
    RETRY_BACKOFF,
    DEAD_LETTER,
    MAX_BODY_BYTES,
    RESPONSE_QUEUE,
    REPLY_MAX_BYTES,
    MAX_DEFER,
    REMEMBER_COMPLETED,
    MIN_REPLICAS,
    MAX_REPLICAS,
    MESSAGES_PER_REPLICA,
    COOL_DOWN,
];
