//! Between AMQP properties and the domain's message, in both directions.

use crate::domain::delivery::{History, Message};
use crate::domain::reply::Reply;
use crate::domain::settlement::{Copy, Value};
use bytes::Bytes;
use contract::headers;
use contract::names::MAX_NAME_BYTES;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use std::ops::Bound;
use std::time::Duration;

/// `delivery-mode: persistent`.
const PERSISTENT: u8 = 2;
/// `delivery-mode: transient`.
const TRANSIENT: u8 = 1;
/// Our own headers, which the worker gets in another form.
const OURS: &str = "x-kubedaemon-";
/// Headers that the broker itself writes.
const BROKERS: [&str; 9] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-acquired-count",
];
/// A header by which the broker routes a message to further queues; on a copy it would do so again.
const CC: &str = "CC";

/// What a copy of a message is made of.
#[derive(Debug, Clone)]
pub struct Original {
    properties: BasicProperties,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// Takes a delivery apart: the tag, the message as the worker sees it, and the original for copies.
pub fn take_apart(delivery: Delivery) -> (u64, Message, Original) {
    let Delivery {
        delivery_tag,
        exchange,
        routing_key,
        redelivered,
        properties,
        data,
        ..
    } = delivery;
    let body = Bytes::from(data);
    let none = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&none);
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
    // What is set aside was a short string. Anything longer somebody else wrote, and no header of ours may be as long.
    let is_copy = has_ours(table);
    let ours = |name: &str| {
        let text = is_copy.then(|| table.inner().get(name).map(as_text)).flatten();
        text.filter(|text| text.len() <= MAX_NAME_BYTES)
    };
    let message = Message {
        body: body.clone(),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        kind: text(properties.kind()),
        app_id: text(properties.app_id()),
        user_id: text(properties.user_id()).or_else(|| ours(headers::USER_ID)),
        priority: *properties.priority(),
        expiration: text(properties.expiration()).or_else(|| ours(headers::EXPIRATION)),
        timestamp: *properties.timestamp(),
        headers: application_headers(table),
        exchange: ours(headers::EXCHANGE).unwrap_or_else(|| exchange.as_str().to_owned()),
        routing_key: ours(headers::ROUTING_KEY).unwrap_or_else(|| routing_key.as_str().to_owned()),
        redelivered,
        history: if is_copy {
            history(table)
        } else {
            History::default()
        },
    };
    (delivery_tag, message, Original { properties, body })
}

/// Whether any header is ours: of most messages none is, and then none need be looked for.
fn has_ours(table: &FieldTable) -> bool {
    let from_ours_on = (Bound::Included(OURS), Bound::Unbounded);
    let first = table.inner().range::<str, _>(from_ours_on).next();
    first.is_some_and(|(name, _)| name.as_str().starts_with(OURS))
}

/// The publisher's headers, the same and in the same order at every attempt, whether or not `CC` was set aside.
fn application_headers(table: &FieldTable) -> Vec<(String, String)> {
    let cc = table.inner().get(CC).or_else(|| table.inner().get(headers::CC));
    let others = table.into_iter().filter(|(name, _)| {
        let name = name.as_str();
        name != CC && !name.starts_with(OURS) && !BROKERS.contains(&name)
    });
    cc.map(|value| (CC.to_owned(), as_text(value)))
        .into_iter()
        .chain(others.map(|(name, value)| (name.as_str().to_owned(), as_text(value))))
        .collect()
}

fn history(table: &FieldTable) -> History {
    let number = |name: &str| table.inner().get(name).and_then(as_number);
    let count = |name| {
        number(name)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(0)
    };
    let journal = match table.inner().get(headers::JOURNAL) {
        Some(AMQPValue::FieldArray(lines)) => lines.as_slice().iter().map(as_text).collect(),
        _ => Vec::new(),
    };
    History {
        attempts: count(headers::ATTEMPTS),
        first_seen: number(headers::FIRST_SEEN)
            .and_then(|number| u64::try_from(number).ok())
            .map(Duration::from_millis),
        crashes: count(headers::CRASHES),
        journal,
    }
}

/// The properties of a copy: everything of the original but what the broker would act on again.
pub fn of_copy(original: &Original, copy: &Copy, message_id: &str) -> BasicProperties {
    let old = &original.properties;
    let mut table = old.headers().clone().unwrap_or_default();
    set_aside(&mut table, old);
    for (name, value) in &copy.set {
        table.insert((*name).into(), to_amqp(value));
    }
    let mut new = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.into())
        .with_headers(table);
    macro_rules! keep {
        ($($getter:ident => $setter:ident),+) => {
            $(if let Some(value) = old.$getter().clone() { new = new.$setter(value); })+
        };
    }
    keep!(
        content_type => with_content_type, content_encoding => with_content_encoding, priority => with_priority,
        correlation_id => with_correlation_id, reply_to => with_reply_to, timestamp => with_timestamp,
        kind => with_type, app_id => with_app_id, cluster_id => with_cluster_id
    );
    new
}

/// The properties of a reply. One that stands for a consumer is gone with it: nothing is to be written to disk.
pub(super) fn of_reply(reply: &Reply) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, text) in &reply.headers {
        table.insert(name.as_str().into(), long_text(text));
    }
    for (name, value) in &reply.set {
        table.insert((*name).into(), to_amqp(value));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(if reply.to.is_direct() {
            TRANSIENT
        } else {
            PERSISTENT
        })
        .with_correlation_id(reply.correlation_id.as_str().into())
        .with_message_id(reply.message_id.as_str().into())
        .with_headers(table);
    if let Some(content_type) = &reply.content_type {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    if let Some(content_encoding) = &reply.content_encoding {
        properties = properties.with_content_encoding(content_encoding.as_str().into());
    }
    properties
}

/// Moves what the broker would act on to headers of ours: `expiration` would cut the delay short, a `user-id` that is
/// not this connection's user closes the channel, `CC` routes again, and `x-death` lets the broker take a retry for a
/// dead-letter cycle, which it drops without a word.
fn set_aside(table: &mut FieldTable, old: &BasicProperties) {
    let mut entries = table.inner().clone();
    if let Some(expiration) = old.expiration() {
        entries.insert(headers::EXPIRATION.into(), long_text(expiration.as_str()));
    }
    if let Some(user_id) = old.user_id() {
        entries.insert(headers::USER_ID.into(), long_text(user_id.as_str()));
    }
    if let Some(cc) = entries.remove(CC) {
        entries.insert(headers::CC.into(), cc);
    }
    let is_first_copy = !entries.contains_key(headers::ATTEMPTS);
    for name in BROKERS {
        let value = entries.remove(name);
        // Later ones tell only of our own retry queues.
        if let (Some(value), "x-death", true) = (value, name, is_first_copy) {
            entries.insert(headers::DEATH.into(), value);
        }
    }
    *table = entries.into();
}

fn to_amqp(value: &Value) -> AMQPValue {
    match value {
        Value::Text(text) => long_text(text),
        Value::Number(number) => AMQPValue::LongLongInt(*number),
        Value::Lines(lines) => AMQPValue::FieldArray(
            lines
                .iter()
                .map(|line| long_text(line))
                .collect::<Vec<_>>()
                .into(),
        ),
    }
}

fn long_text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Integers come in eight widths, and some clients send numbers as text.
fn as_number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortUInt(number) => Some((*number).into()),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::Timestamp(number) => i64::try_from(*number).ok(),
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) => as_text(value).trim().parse().ok(),
        _ => None,
    }
}

/// A header's value as text: numbers in decimal, nested values as JSON.
fn as_text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        other => match as_json(other) {
            serde_json::Value::String(text) => text,
            document => document.to_string(),
        },
    }
}

fn as_json(value: &AMQPValue) -> serde_json::Value {
    match value {
        AMQPValue::Boolean(flag) => (*flag).into(),
        // By its own shortest text: 0.1 and not 0.10000000149011612.
        AMQPValue::Float(number) => number.to_string().parse::<f64>().unwrap_or(f64::NAN).into(),
        AMQPValue::Double(number) => (*number).into(),
        AMQPValue::DecimalValue(decimal) => {
            serde_json::Value::String(format!("{}e-{}", decimal.value, decimal.scale))
        }
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) => as_text(value).into(),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(as_json).collect(),
        AMQPValue::FieldTable(table) => table
            .into_iter()
            .map(|(name, value)| (name.to_string(), as_json(value)))
            .collect(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::Void => serde_json::Value::Null,
        number => as_number(number).into(),
    }
}

#[cfg(test)]
mod tests;
