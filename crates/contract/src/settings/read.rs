//! From a source to [`Settings`]: every value is read, every problem is collected, and only then is it refused.

use super::kind::Value;
use super::table as t;
use super::{Kind, Problem, Problems, SETTINGS, Setting, Source};
use crate::broker::{BrokerUrl, redact};
use crate::names::dead_letter_queue;
use crate::quantity::format_duration;
use std::time::Duration;

/// The pause before a failed message is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBackoff {
    /// Before the second attempt; at least 1 ms.
    pub min: Duration,
    /// The longest; at least `min`, at most 24 h.
    pub max: Duration,
}

/// Every setting's value, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the broker is, with the `vhost` setting already applied.
    pub broker: BrokerUrl,
    /// The worker's queue; `None` for a worker that is only called over HTTP.
    pub queue: Option<String>,
    /// The worker's TCP port; never 0.
    pub port: u16,
    /// The path that messages are posted to; begins with `/`.
    pub path: String,
    /// The path at which the worker is introduced to its work, if any; begins with `/`.
    pub init_path: Option<String>,
    /// Messages in flight in one replica; 1 to 1000.
    pub concurrency: u16,
    /// Messages that the broker hands over to one replica before the first is settled, when it was said; not less than
    /// `concurrency`, at most 2000. [`default_prefetch`] otherwise.
    pub prefetch: Option<u16>,
    /// How long the worker may take for one message; above zero, at most 24 h.
    pub timeout: Duration,
    /// Attempts before a message is given up; 1 to 1000.
    pub max_attempts: u32,
    /// The pause between two attempts.
    pub retry_backoff: RetryBackoff,
    /// The queue for messages that are given up, never the same as `queue`; `None` only when there is no queue and
    /// none was named.
    pub dead_letter: Option<String>,
    /// The queue for answers to messages without a reply-to; never the same as `queue` or `dead_letter`.
    pub response_queue: Option<String>,
    /// The longest message that the worker gets, in bytes.
    pub max_body_bytes: u32,
    /// The longest answer that becomes a reply, in bytes; 1 to 16 MiB.
    pub reply_max_bytes: u32,
    /// How long a message may be deferred; 1 s to 24 h.
    pub max_defer: Duration,
    /// How many accepted messages each sidecar remembers; 0 to 100000.
    pub remember_completed: u32,
    /// The lowest replica count; not more than `max_replicas`.
    pub min_replicas: u32,
    /// The highest replica count; at least 1.
    pub max_replicas: u32,
    /// For how many messages there is one replica; 1 to 100000.
    pub messages_per_replica: u32,
    /// How long there must be nothing to do before the last replicas are removed; at most 24 h.
    pub cool_down: Duration,
}

impl Settings {
    /// Every setting with the value that is in force, as it would be written, in the table's order, without the
    /// broker's password. What has no value is left out. For showing, not for handing on.
    pub fn effective(&self) -> Vec<(&'static Setting, String)> {
        SETTINGS
            .iter()
            .filter_map(|setting| Some((setting, self.value(setting)?)))
            .collect()
    }

    fn value(&self, setting: &Setting) -> Option<String> {
        Some(match setting.name {
            "broker" => self.broker.to_string(),
            "vhost" => self.broker.vhost.clone(),
            "queue" => self.queue.clone()?,
            "port" => self.port.to_string(),
            "path" => self.path.clone(),
            "init-path" => self.init_path.clone()?,
            "concurrency" => self.concurrency.to_string(),
            "prefetch" => self.prefetch?.to_string(),
            "timeout" => format_duration(self.timeout),
            "max-attempts" => self.max_attempts.to_string(),
            "retry-backoff" => {
                let RetryBackoff { min, max } = self.retry_backoff;
                format!("{}..{}", format_duration(min), format_duration(max))
            }
            "dead-letter" => self.dead_letter.clone()?,
            "response-queue" => self.response_queue.clone()?,
            "max-body-bytes" => self.max_body_bytes.to_string(),
            "reply-max-bytes" => self.reply_max_bytes.to_string(),
            "max-defer" => format_duration(self.max_defer),
            "remember-completed" => self.remember_completed.to_string(),
            "min-replicas" => self.min_replicas.to_string(),
            "max-replicas" => self.max_replicas.to_string(),
            "messages-per-replica" => self.messages_per_replica.to_string(),
            "cool-down" => format_duration(self.cool_down),
            _ => return None,
        })
    }
}

/// Reads every setting from the source; what is not in it gets its default.
///
/// # Errors
/// Every problem, one sentence each: values that cannot be read or are out of range, and values that contradict each
/// other.
pub fn parse(source: &(impl Source + ?Sized)) -> Result<Settings, Problems> {
    let mut reader = Reader {
        source,
        problems: Vec::new(),
        wrong: Vec::new(),
    };
    let queue = reader.optional(&t::QUEUE);
    let broker: BrokerUrl = reader.value(&t::BROKER);
    let settings = Settings {
        broker: match reader.optional::<String>(&t::VHOST) {
            Some(vhost) => broker.with_vhost(vhost),
            None => broker,
        },
        port: reader.value(&t::PORT),
        path: reader.value(&t::PATH),
        init_path: reader.optional(&t::INIT_PATH),
        concurrency: reader.value(&t::CONCURRENCY),
        prefetch: reader.optional(&t::PREFETCH),
        timeout: reader.value(&t::TIMEOUT),
        max_attempts: reader.value(&t::MAX_ATTEMPTS),
        retry_backoff: reader.value(&t::RETRY_BACKOFF),
        dead_letter: reader
            .optional(&t::DEAD_LETTER)
            .or_else(|| queue.as_deref().map(dead_letter_queue)),
        queue,
        response_queue: reader.optional(&t::RESPONSE_QUEUE),
        max_body_bytes: reader.value(&t::MAX_BODY_BYTES),
        reply_max_bytes: reader.value(&t::REPLY_MAX_BYTES),
        max_defer: reader.value(&t::MAX_DEFER),
        remember_completed: reader.value(&t::REMEMBER_COMPLETED),
        min_replicas: reader.value(&t::MIN_REPLICAS),
        max_replicas: reader.value(&t::MAX_REPLICAS),
        messages_per_replica: reader.value(&t::MESSAGES_PER_REPLICA),
        cool_down: reader.value(&t::COOL_DOWN),
    };
    reader.check_across(&settings);
    if reader.problems.is_empty() {
        Ok(settings)
    } else {
        Err(Problems(reader.problems))
    }
}

/// The prefetch when none is said: what the worker can take, and a spare that covers acknowledgements on their way to the
/// broker. With a concurrency of 1 there is no spare: a message must not wait behind a slow one while another replica is
/// idle.
pub fn default_prefetch(concurrency: u16) -> u16 {
    concurrency + concurrency.saturating_sub(1).min(64)
}

struct Reader<'a, S: ?Sized> {
    source: &'a S,
    problems: Vec<Problem>,
    /// Settings whose value could not be read: nothing is concluded from them.
    wrong: Vec<&'static str>,
}

impl<S: Source + ?Sized> Reader<'_, S> {
    /// The value when there is one and it can be read; a problem is kept when it cannot.
    fn optional<T: Value>(&mut self, setting: &'static Setting) -> Option<T> {
        let text = self.source.get(setting)?;
        match T::read(&setting.kind, &text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.refuse(setting, &text, &why, &setting.accepted());
                None
            }
        }
    }

    /// The value, or the default when there is none or it cannot be read.
    fn value<T: Value>(&mut self, setting: &'static Setting) -> T {
        self.optional(setting).unwrap_or_else(|| {
            let default = setting.default.expect("invariant: the setting has a default");
            T::read(&setting.kind, default).expect("invariant: every default can be read")
        })
    }

    fn refuse(&mut self, setting: &'static Setting, text: &str, why: &str, accepted: &str) {
        let shown = if setting.kind == Kind::Broker {
            redact(text)
        } else {
            text.to_owned()
        };
        self.wrong.push(setting.name);
        self.problems
            .push(Problem::wrong(self.source.name(setting), &shown, why, accepted));
    }

    /// Rules between settings. The order of the two durations in `retry-backoff` is part of reading it.
    fn check_across(&mut self, settings: &Settings) {
        let Settings {
            concurrency,
            prefetch,
            min_replicas,
            max_replicas,
            queue,
            dead_letter,
            response_queue,
            ..
        } = settings;
        if min_replicas > max_replicas && self.can_compare(&t::MIN_REPLICAS, &t::MAX_REPLICAS) {
            let max = self.source.name(&t::MAX_REPLICAS);
            self.refuse(
                &t::MIN_REPLICAS,
                &min_replicas.to_string(),
                &format!("is more than {max} ({max_replicas})"),
                &format!("a whole number from 0 to {max_replicas}, or raise {max}"),
            );
        }
        if let Some(prefetch) = prefetch
            && prefetch < concurrency
            && self.can_compare(&t::PREFETCH, &t::CONCURRENCY)
        {
            let name = self.source.name(&t::CONCURRENCY);
            self.refuse(
                &t::PREFETCH,
                &prefetch.to_string(),
                &format!("is less than {name} ({concurrency})"),
                &format!("a whole number from {concurrency} to 2000, or lower {name}"),
            );
        }
        if let (Some(queue), Some(dead)) = (queue, dead_letter)
            && queue == dead
        {
            let why = format!("is the same as {}", self.source.name(&t::QUEUE));
            self.refuse(&t::DEAD_LETTER, dead, &why, "the name of another queue");
        }
        // Answers would come back as messages, for ever, or lie among those that were given up.
        for (other, setting) in [(queue, &t::QUEUE), (dead_letter, &t::DEAD_LETTER)] {
            if let (Some(response), Some(other)) = (response_queue, other)
                && response == other
            {
                let why = format!("is the same as {}", self.source.name(setting));
                self.refuse(&t::RESPONSE_QUEUE, response, &why, "the name of another queue");
            }
        }
    }

    fn can_compare(&self, a: &Setting, b: &Setting) -> bool {
        !self.wrong.contains(&a.name) && !self.wrong.contains(&b.name)
    }
}
