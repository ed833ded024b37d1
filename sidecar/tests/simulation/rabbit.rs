//! A RabbitMQ by its documented semantics: queues in order, tags by channel, prefetch, `multiple`, an unknown tag closes
//! the channel, what is unsettled goes back to its place when its channel ends, TTL and dead-lettering, alarms.

mod channels;
mod queues;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The header that tells deliveries apart; copies keep it, so that it is known what they are copies of.
pub const STAMP: &str = "sim-delivery";

#[derive(Debug, Default)]
pub struct Rabbit {
    pub queues: BTreeMap<String, Queue>,
    pub channels: BTreeMap<u64, Channel>,
    positions: u64,
    /// Whether nobody may consume.
    pub refuses_consumers: bool,
}

#[derive(Debug, Default)]
pub struct Queue {
    /// By place: what comes back comes back to its own.
    pub ready: BTreeMap<u64, Stored>,
    ttl: Option<Duration>,
    forward: Option<String>,
    consumers: VecDeque<u64>,
}

#[derive(Debug, Clone)]
pub struct Stored {
    pub message: usize,
    properties: BasicProperties,
    body: Vec<u8>,
    place: u64,
    returned: i64,
    expires: Option<Duration>,
}

#[derive(Debug)]
pub struct Channel {
    connection: u64,
    prefetch: usize,
    tags: u64,
    pub outstanding: BTreeMap<u64, Held>,
    pub consumes: Option<String>,
}

#[derive(Debug)]
pub struct Held {
    queue: String,
    stored: Stored,
    serial: usize,
}

/// The number that was published as the body.
fn number(body: &[u8]) -> usize {
    std::str::from_utf8(body).unwrap().parse().unwrap()
}

/// Which delivery this is a copy of.
fn stamp(properties: &BasicProperties) -> Option<usize> {
    let table = properties.headers().as_ref()?;
    integer(table, STAMP).map(|serial| usize::try_from(serial).unwrap())
}

fn integer(table: &FieldTable, name: &str) -> Option<i64> {
    match table.inner().get(name) {
        Some(AMQPValue::LongLongInt(number)) => Some(*number),
        _ => None,
    }
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    }
}
