//! What kinds of values there are, what each accepts, and how each is read.

use super::RetryBackoff;
use crate::broker::BrokerUrl;
use crate::names::{MAX_NAME_BYTES, MAX_QUEUE_BYTES};
use crate::quantity::{format_duration, parse_duration};
use std::time::Duration;

/// The kind of a value and its range. Ranges include both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The address of a broker, see [`BrokerUrl`].
    Broker,
    /// The name of a virtual host.
    Vhost,
    /// The name of a queue that retry and dead-letter queues are named after.
    Queue,
    /// The name of a queue that nothing is named after.
    PlainQueue,
    /// The path of an HTTP request, with or without a query.
    Path,
    /// A whole number.
    Whole {
        /// Smallest accepted.
        min: u32,
        /// Largest accepted.
        max: u32,
        /// What is counted, in words; empty when nothing is.
        unit: &'static str,
    },
    /// A duration.
    Duration {
        /// Shortest accepted.
        min: Duration,
        /// Longest accepted.
        max: Duration,
    },
    /// Two durations, `min..max`; one alone is the first, and the second is then as in the default, or the same when
    /// the first is longer than that.
    DurationRange {
        /// Shortest accepted, of both.
        min: Duration,
        /// Longest accepted, of both.
        max: Duration,
        /// The second duration when only one is written.
        default_end: Duration,
    },
}

/// The longest path, in bytes; a bound, far above what anybody needs.
const MAX_PATH_BYTES: usize = 1024;

impl Kind {
    /// What stands for the value in a usage line.
    pub fn value_name(&self) -> &'static str {
        match self {
            Self::Broker => "URL",
            Self::Vhost => "NAME",
            Self::Queue | Self::PlainQueue => "QUEUE",
            Self::Path => "PATH",
            Self::Whole { .. } => "N",
            Self::Duration { .. } => "DURATION",
            Self::DurationRange { .. } => "MIN..MAX",
        }
    }

    /// The kind's name in the reference.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Broker => "address",
            Self::Vhost | Self::Queue | Self::PlainQueue => "name",
            Self::Path => "path",
            Self::Whole { .. } => "whole number",
            Self::Duration { .. } => "duration",
            Self::DurationRange { .. } => "range of durations",
        }
    }

    /// The unit that a value is counted in, in words; empty when it has none.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Broker | Self::Vhost | Self::Queue | Self::PlainQueue | Self::Path => "",
            Self::Whole { unit, .. } => unit,
            Self::Duration { .. } | Self::DurationRange { .. } => "ms, s, m, h (written with the number)",
        }
    }

    /// The accepted form, in words.
    pub fn accepted(&self) -> String {
        match self {
            Self::Broker => "amqp://USER:PASSWORD@HOST:PORT/VHOST or the same with amqps://".to_owned(),
            Self::Vhost => format!("a virtual host's name of 1 to {MAX_NAME_BYTES} bytes"),
            Self::Queue => {
                format!("a queue's name of 1 to {MAX_QUEUE_BYTES} bytes that does not begin with amq.")
            }
            Self::PlainQueue => {
                format!("a queue's name of 1 to {MAX_NAME_BYTES} bytes that does not begin with amq.")
            }
            Self::Path => {
                format!("a path of at most {MAX_PATH_BYTES} bytes that begins with /, such as /message")
            }
            Self::Whole { min, max, .. } => format!("a whole number from {min} to {max}"),
            Self::Duration { min, max } => format!(
                "a duration from {} to {}, such as 30s or 1m30s",
                format_duration(*min),
                format_duration(*max)
            ),
            Self::DurationRange { min, max, .. } => format!(
                "MIN..MAX such as 1s..5m, or MIN alone, each a duration from {} to {}",
                format_duration(*min),
                format_duration(*max)
            ),
        }
    }
}

/// What is wrong with a value, as the rest of a sentence that begins with the value.
pub(super) type Why = String;

/// A type that values are read into.
pub(super) trait Value: Sized {
    /// Reads `text`, which was written for a setting of this kind.
    fn read(kind: &Kind, text: &str) -> Result<Self, Why>;
}

impl Value for BrokerUrl {
    fn read(_: &Kind, text: &str) -> Result<Self, Why> {
        text.parse()
            .map_err(|error: crate::broker::BrokerUrlError| error.why().to_owned())
    }
}

impl Value for String {
    fn read(kind: &Kind, text: &str) -> Result<Self, Why> {
        match kind {
            Kind::Vhost => check_name(text, MAX_NAME_BYTES)?,
            Kind::Queue => check_queue(text, MAX_QUEUE_BYTES)?,
            Kind::PlainQueue => check_queue(text, MAX_NAME_BYTES)?,
            Kind::Path => check_path(text)?,
            Kind::Broker | Kind::Whole { .. } | Kind::Duration { .. } | Kind::DurationRange { .. } => {}
        }
        Ok(text.to_owned())
    }
}

impl Value for u32 {
    fn read(kind: &Kind, text: &str) -> Result<Self, Why> {
        let Kind::Whole { min, max, .. } = kind else {
            return Err("is not a whole number".to_owned());
        };
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("is not a whole number".to_owned());
        }
        if text.len() > digits.len() {
            return Err("is negative".to_owned());
        }
        match text.parse() {
            Ok(number) if number < *min => Err(format!("is less than {min}")),
            Ok(number) if number <= *max => Ok(number),
            // Digits that do not fit are too many.
            _ => Err(format!("is more than {max}")),
        }
    }
}

impl Value for u16 {
    fn read(kind: &Kind, text: &str) -> Result<Self, Why> {
        Self::try_from(u32::read(kind, text)?).map_err(|_| format!("is more than {}", Self::MAX))
    }
}

impl Value for Duration {
    fn read(kind: &Kind, text: &str) -> Result<Self, Why> {
        let (Kind::Duration { min, max } | Kind::DurationRange { min, max, .. }) = kind else {
            return Err("is not a duration".to_owned());
        };
        let duration = parse_duration(text).map_err(|error| error.why().to_owned())?;
        if duration < *min {
            return Err(format!("is shorter than {}", format_duration(*min)));
        }
        if duration > *max {
            return Err(format!("is longer than {}", format_duration(*max)));
        }
        Ok(duration)
    }
}

impl Value for RetryBackoff {
    fn read(kind: &Kind, text: &str) -> Result<Self, Why> {
        let Kind::DurationRange { default_end, .. } = kind else {
            return Err("is not a range of durations".to_owned());
        };
        let Some((min, max)) = text.split_once("..") else {
            let min = Duration::read(kind, text)?;
            return Ok(Self {
                min,
                max: min.max(*default_end),
            });
        };
        let min = Duration::read(kind, min).map_err(|why| format!("has a first duration that {why}"))?;
        let max = Duration::read(kind, max).map_err(|why| format!("has a second duration that {why}"))?;
        if min > max {
            return Err("has a first duration that is longer than the second".to_owned());
        }
        Ok(Self { min, max })
    }
}

/// `RabbitMQ` drops CR and LF from names, so a name with them would silently be another one.
fn check_name(name: &str, max_bytes: usize) -> Result<(), Why> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > max_bytes {
        return Err(format!("is {} bytes long", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character in it".to_owned());
    }
    Ok(())
}

/// Names that begin with `amq.` belong to the broker (AMQP 0-9-1, `queue.declare`).
fn check_queue(name: &str, max_bytes: usize) -> Result<(), Why> {
    check_name(name, max_bytes)?;
    if name.starts_with("amq.") {
        return Err("begins with amq., which is reserved for the broker".to_owned());
    }
    Ok(())
}

/// A path must be sent as it is in a request line (RFC 9112, 3.2), and a fragment is never sent (RFC 3986, 3.5).
fn check_path(path: &str) -> Result<(), Why> {
    if !path.starts_with('/') {
        return Err(if path.is_empty() {
            "is empty"
        } else {
            "does not begin with /"
        }
        .to_owned());
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("is {} bytes long", path.len()));
    }
    if path.contains('#') {
        return Err("has a # in it, and what follows a # is never sent".to_owned());
    }
    match path
        .chars()
        .find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c))
    {
        Some(' ') => Err("has a space in it that is not written as %20".to_owned()),
        Some(_) => Err("has a character in it that must be percent-encoded".to_owned()),
        None => Ok(()),
    }
}
