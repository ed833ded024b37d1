//! Reading a queue's arguments out of the broker's refusals, and which of them lose messages. Pure.

use crate::version::{Intent, Version};
use lapin::types::{AMQPValue, FieldTable};
use std::collections::BTreeMap;
use std::fmt;

/// More rounds of questions than there are arguments that a broker compares.
pub(super) const ARGUMENTS: usize = 16;

/// A limit below this one is worth a word: it is what RabbitMQ 4.0 and later set where nobody says any.
const LOW_DELIVERY_LIMIT: u32 = 20;

/// How a queue was declared, as far as is known. Begins as what we would have declared ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    /// Arguments that differ from ours; `None` = the queue was declared without it.
    arguments: BTreeMap<String, Option<Argument>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Argument {
    value: String,
    /// RabbitMQ's name of the AMQP type; it says none for text in some versions.
    kind: String,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            durable: true,
            auto_delete: false,
            arguments: BTreeMap::new(),
        }
    }
}

impl Observed {
    /// Takes in one refusal, such as `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost
    /// '/': received none but current is the value '1000' of type 'signedint'`. Returns whether it taught anything.
    pub(super) fn learn(&mut self, refusal: &str) -> bool {
        let Some((name, current)) = parse(refusal) else {
            return false;
        };
        match (name, &current) {
            ("durable", Some(argument)) => {
                std::mem::replace(&mut self.durable, argument.value == "true") != self.durable
            }
            ("auto_delete", Some(argument)) => {
                std::mem::replace(&mut self.auto_delete, argument.value == "true") != self.auto_delete
            }
            _ => self.arguments.insert(name.to_owned(), current.clone()) != Some(current),
        }
    }

    /// Our own arguments with everything replaced that is known to differ.
    pub(super) fn arguments_like(&self, ours: &FieldTable) -> FieldTable {
        let mut table = ours.inner().clone();
        for (name, argument) in &self.arguments {
            match argument.as_ref().map(Argument::to_amqp) {
                Some(value) => table.insert(name.as_str().into(), value),
                None => table.remove(name.as_str()),
            };
        }
        table.into()
    }

    /// Whether the queue feeds one consumer at a time.
    pub(super) fn is_single_active(&self) -> bool {
        let argument = self.arguments.get("x-single-active-consumer");
        argument.is_some_and(|argument| argument.as_ref().is_some_and(|argument| argument.value == "true"))
    }

    /// What in it loses messages. `ours` are the arguments with which we would have declared it, `version` is that of the
    /// broker if it is a RabbitMQ of a known one.
    pub(super) fn risks(&self, ours: &FieldTable, version: Option<Version>) -> Vec<Risk> {
        let value = |name: &str| match self.arguments.get(name) {
            Some(argument) => argument.as_ref().map(|argument| argument.value.clone()),
            None => ours.inner().get(name).map(text_of),
        };
        let is = |name: &str, wanted: &str| value(name).is_some_and(|value| value == wanted);
        let mut risks = Vec::new();
        if !self.durable {
            risks.push(Risk::Transient);
        }
        if self.auto_delete {
            risks.push(Risk::AutoDelete);
        }
        if let Some(ttl) = value("x-expires") {
            risks.push(Risk::Expires(ttl));
        }
        if let Some(ttl) = value("x-message-ttl") {
            risks.push(Risk::MessageTtl(ttl));
        }
        let bounded = value("x-max-length").or_else(|| value("x-max-length-bytes"));
        // Where nothing is said about overflow the head is dropped.
        if let Some(limit) = bounded
            && value("x-overflow").is_none_or(|overflow| overflow == "drop-head")
        {
            risks.push(Risk::DropsHead(limit));
        }
        // Ours is far above; what is no number, or none, is the broker's own affair.
        let limit = value("x-delivery-limit").and_then(|limit| limit.parse::<u32>().ok());
        if let Some(limit) = limit.filter(|limit| *limit < LOW_DELIVERY_LIMIT) {
            risks.push(Risk::DeliveryLimit(limit));
        }
        let has_none = ours.inner().contains_key("x-delivery-limit") && value("x-delivery-limit").is_none();
        if let Some(version) = version
            && let Some(limit) = version.default_delivery_limit()
            && has_none
            && is("x-queue-type", "quorum")
        {
            risks.push(Risk::DefaultDeliveryLimit {
                limit,
                giving_back_counts: version.settling(Intent::GiveBack).counts,
            });
        }
        // What nobody dead-letters from is fine without.
        if ours.inner().contains_key("x-dead-letter-exchange") {
            // A classic queue does not know the strategy.
            let is_sure = is("x-queue-type", "quorum") && is("x-dead-letter-strategy", "at-least-once");
            match value("x-dead-letter-exchange") {
                None => risks.push(Risk::NoDeadLetter),
                Some(_) if is_sure => {}
                Some(_) => risks.push(Risk::DeadLettersAtMostOnce),
            }
        }
        if !is("x-queue-type", "quorum") {
            risks.push(Risk::NotReplicated);
        }
        risks
    }
}

/// Our own arguments are texts and whole numbers.
fn text_of(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

impl Argument {
    fn to_amqp(&self) -> AMQPValue {
        let number = self.value.parse::<i64>();
        match (self.kind.as_str(), number) {
            ("bool", _) => AMQPValue::Boolean(self.value == "true"),
            ("longstr" | "", _) | (_, Err(_)) => AMQPValue::LongString(self.value.as_str().into()),
            (_, Ok(number)) => AMQPValue::LongLongInt(number),
        }
    }
}

/// The name of the argument and what the queue has: `received X but current is (none | 'v' | the value 'v' of type
/// 't')`.
fn parse(refusal: &str) -> Option<(&str, Option<Argument>)> {
    let (_, rest) = refusal.split_once("inequivalent arg '")?;
    let (name, rest) = rest.split_once('\'')?;
    let (_, current) = rest.rsplit_once("but current is ")?;
    if current.trim_start().starts_with("none") {
        return Some((name, None));
    }
    let mut quoted = current.split('\'').skip(1).step_by(2);
    let value = quoted.next()?.to_owned();
    let kind = quoted.next().unwrap_or_default().to_owned();
    Some((name, Some(Argument { value, kind })))
}

/// A setting of a queue with which messages can be lost. `Display` is a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Risk {
    /// `durable: false`.
    Transient,
    /// `auto-delete: true`.
    AutoDelete,
    /// `x-expires`, in ms.
    Expires(String),
    /// `x-message-ttl`, in ms.
    MessageTtl(String),
    /// A length limit with `overflow: drop-head`, RabbitMQ's default.
    DropsHead(String),
    /// A low `x-delivery-limit`.
    DeliveryLimit(u32),
    /// No `x-delivery-limit`, at a broker that has one of its own.
    DefaultDeliveryLimit {
        /// The broker's own.
        limit: u32,
        /// Whether what the sidecar gives back counts, too.
        giving_back_counts: bool,
    },
    /// No `x-dead-letter-exchange`.
    NoDeadLetter,
    /// Dead-lettering without the at-least-once strategy.
    DeadLettersAtMostOnce,
    /// A classic queue lives on one node.
    NotReplicated,
}

impl Risk {
    /// A stable word for labels and tests.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::AutoDelete => "auto_delete",
            Self::Expires(_) => "expires",
            Self::MessageTtl(_) => "message_ttl",
            Self::DropsHead(_) => "drops_head",
            Self::DeliveryLimit(_) => "delivery_limit",
            Self::DefaultDeliveryLimit { .. } => "default_delivery_limit",
            Self::NoDeadLetter => "no_dead_letter",
            Self::DeadLettersAtMostOnce => "dead_letters_at_most_once",
            Self::NotReplicated => "not_replicated",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient => f.write_str("it is not durable: a restart of the broker deletes it with its messages"),
            Self::AutoDelete => f.write_str(
                "it is auto-delete: it is deleted with its messages when its last consumer leaves, which is what \
                 scaling to zero does",
            ),
            Self::Expires(ttl) => write!(
                f,
                "x-expires={ttl} ms: it is deleted with its messages after that long without a consumer, which is \
                 what scaling to zero means"
            ),
            Self::MessageTtl(ttl) => {
                write!(f, "x-message-ttl={ttl} ms: messages that wait longer, also while scaled to zero, are given up")
            }
            Self::DropsHead(limit) => {
                write!(f, "length limit {limit} with overflow drop-head: when it is full its oldest messages are dropped")
            }
            Self::DeliveryLimit(limit) => write!(
                f,
                "x-delivery-limit={limit}: the broker itself gives a message up when drains, lost connections or \
                 killed sidecars have brought it back so often"
            ),
            Self::DefaultDeliveryLimit {
                limit,
                giving_back_counts,
            } => {
                let counted = if *giving_back_counts { "drains, " } else { "" };
                write!(
                    f,
                    "it has no x-delivery-limit: unless a policy says otherwise the broker itself gives a message up when \
                     {counted}lost connections or killed sidecars have brought it back more than {limit} times"
                )
            }
            Self::NoDeadLetter => {
                f.write_str("it has no x-dead-letter-exchange: messages that the broker itself gives up are dropped")
            }
            Self::DeadLettersAtMostOnce => f.write_str(
                "it dead-letters at most once: what the broker itself dead-letters can be lost on the way",
            ),
            Self::NotReplicated => f.write_str("it is not a quorum queue: its messages are on one node only"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::QueuePlan;

    fn observed(refusals: &[&str]) -> Observed {
        let mut observed = Observed::default();
        for refusal in refusals {
            assert!(observed.learn(refusal), "{refusal} taught nothing");
            assert!(!observed.learn(refusal), "{refusal} taught something twice");
        }
        observed
    }

    /// The risks of a worker's queue.
    fn words(observed: &Observed) -> Vec<&'static str> {
        words_of(observed, &QueuePlan::worker("q", "q.dead"))
    }

    fn words_of(observed: &Observed, plan: &QueuePlan) -> Vec<&'static str> {
        observed
            .risks(&plan.arguments(), None)
            .iter()
            .map(Risk::as_str)
            .collect()
    }

    #[test]
    fn a_queue_like_ours_has_no_risk() {
        assert!(words(&Observed::default()).is_empty());
        assert!(words_of(&Observed::default(), &QueuePlan::dead_letter("q.dead")).is_empty());
    }

    #[test]
    fn every_risk_is_read_from_a_refusal() {
        let cases: &[(&str, &[&str])] = &[
            (
                "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
                &["transient"],
            ),
            (
                "inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'false' but current is 'true'",
                &["auto_delete"],
            ),
            (
                "inequivalent arg 'x-expires' for queue 'q' in vhost '/': received none but current is the value '60000' of type 'signedint'",
                &["expires"],
            ),
            (
                "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '1000' of type 'long'",
                &["message_ttl"],
            ),
            (
                "inequivalent arg 'x-dead-letter-exchange' for queue 'it''s' in vhost '/': received the value '' of type 'longstr' but current is none",
                &["no_dead_letter"],
            ),
            (
                "inequivalent arg 'x-dead-letter-strategy' for queue 'q' in vhost '/': received the value 'at-least-once' of type 'longstr' but current is none",
                &["dead_letters_at_most_once"],
            ),
            (
                "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but current is 'classic'",
                &["dead_letters_at_most_once", "not_replicated"],
            ),
        ];
        for (refusal, expected) in cases {
            assert_eq!(words(&observed(&[refusal])), *expected, "{refusal}");
        }
    }

    #[test]
    fn a_length_limit_is_a_risk_only_when_the_head_is_dropped() {
        let limit = "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5' of type 'signedint'";
        let overflow = "inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received the value 'reject-publish' of type 'longstr' but current is none";
        assert!(words(&observed(&[limit])).is_empty());
        assert_eq!(words(&observed(&[limit, overflow])), ["drops_head"]);
        // Nobody dead-letters from a dead-letter queue, and ours says nothing about overflow.
        let plan = QueuePlan::dead_letter("q.dead");
        assert_eq!(words_of(&observed(&[limit]), &plan), ["drops_head"]);
    }

    #[test]
    fn learned_arguments_replace_ours_with_their_type() {
        let observed = observed(&[
            "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '1000' of type 'signedint'",
            "inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received the value 'reject-publish' of type 'longstr' but current is none",
        ]);
        let mut ours = FieldTable::default();
        ours.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        let like = observed.arguments_like(&ours);
        assert_eq!(
            like.inner().get("x-message-ttl"),
            Some(&AMQPValue::LongLongInt(1000))
        );
        assert_eq!(like.inner().get("x-overflow"), None);
    }

    #[test]
    fn no_limit_of_its_own_is_a_risk_where_the_broker_has_one() {
        let none = observed(&[
            "inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received the value '1000000000' of type 'long' but current is none",
        ]);
        let classic = "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but current is 'classic'";
        let ours = QueuePlan::worker("q", "q.dead").arguments();
        let found = |observed: &Observed, version: Option<(u32, u32)>| {
            let version = version.map(|(major, minor)| Version::new(major, minor, 0));
            let risks = observed.risks(&ours, version);
            risks.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(found(&none, None).is_empty());
        assert!(found(&none, Some((3, 13))).is_empty());
        let limited = found(&none, Some((4, 2)));
        assert!(limited[0].ends_with(
            "drains, lost connections or killed sidecars have brought it back more than 20 times"
        ));
        let limited = found(&none, Some((4, 3)));
        assert!(
            limited[0].ends_with(
                "when lost connections or killed sidecars have brought it back more than 20 times"
            )
        );
        // Ours has one, a dead-letter queue needs none, a classic queue knows none.
        assert!(found(&Observed::default(), Some((4, 3))).is_empty());
        let mut is_classic = none;
        assert!(is_classic.learn(classic));
        assert!(
            !found(&is_classic, Some((4, 3)))
                .iter()
                .any(|risk| risk.contains("x-delivery-limit"))
        );
        let letters = QueuePlan::dead_letter("q.dead").arguments();
        assert!(
            Observed::default()
                .risks(&letters, Some(Version::new(4, 3, 0)))
                .is_empty()
        );
    }

    #[test]
    fn other_refusals_teach_nothing() {
        for text in [
            "",
            "PRECONDITION_FAILED",
            "inequivalent arg",
            "inequivalent arg 'x' for queue",
            "ACCESS_REFUSED - no",
        ] {
            assert!(!Observed::default().learn(text), "{text}");
        }
    }
}
