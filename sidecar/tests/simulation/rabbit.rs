//! A RabbitMQ by its documented semantics: queues in order, tags by channel, prefetch, `multiple`, an unknown tag closes
//! the channel, what is unsettled goes back to its place when its channel ends, TTL and dead-lettering, alarms.

use crate::world::World;
use amqp::topology::{Depth, QueuePlan};
use amqp::{Error, PublishError};
use contract::headers;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::oneshot;

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

impl World {
    /// Makes a queue unless it is there; whether it was made.
    pub fn declare(&mut self, plan: &QueuePlan) -> bool {
        if self.rabbit.queues.contains_key(plan.name()) {
            return false;
        }
        let arguments = plan.arguments();
        let ttl = integer(&arguments, "x-message-ttl").map(|ttl| Duration::from_millis(ttl.unsigned_abs()));
        let queue = Queue {
            ttl,
            // Dead-lettering is modelled for expiry only: nothing here rejects.
            forward: text(&arguments, "x-dead-letter-routing-key"),
            ..Queue::default()
        };
        self.say(|| format!("queue {} is made", plan.name()));
        self.rabbit.queues.insert(plan.name().to_owned(), queue);
        true
    }

    /// Deletes a queue if nothing is in it; its consumer is cancelled.
    pub fn delete_if_empty(&mut self, name: &str) {
        let is_held = |channel: &Channel| channel.outstanding.values().any(|held| held.queue == name);
        let is_empty = self
            .rabbit
            .queues
            .get(name)
            .is_some_and(|queue| queue.ready.is_empty());
        if !is_empty || self.rabbit.channels.values().any(is_held) {
            return;
        }
        self.say(|| format!("queue {name} is deleted"));
        self.oracle.fault_of_all();
        let queue = self.rabbit.queues.remove(name).unwrap();
        for channel in queue.consumers {
            self.cancel_by_broker(channel);
        }
    }

    /// Takes a message in; `false` when there is no such queue.
    pub fn store(&mut self, name: &str, properties: BasicProperties, body: Vec<u8>) -> bool {
        if !self.rabbit.queues.contains_key(name) {
            return false;
        }
        self.rabbit.positions += 1;
        let stored = Stored {
            message: number(&body),
            properties,
            body,
            place: self.rabbit.positions,
            returned: 0,
            expires: None,
        };
        if let Some(serial) = stamp(&stored.properties) {
            let at = self.now();
            let crashes = stored.properties.headers().as_ref();
            let crashes = crashes.and_then(|table| integer(table, headers::CRASHES));
            self.oracle.copied(serial, name, crashes > Some(0), at);
        }
        self.say(|| format!("message {} is stored in {name}", stored.message));
        self.put(name, stored);
        true
    }

    /// `basic.publish` with a confirm, which may take its time, or be a refusal.
    pub fn publish(
        &mut self,
        connection: u64,
        name: &str,
        properties: BasicProperties,
        body: Vec<u8>,
        confirm: oneshot::Sender<Result<(), PublishError>>,
    ) {
        let routing_key = name.to_owned();
        if self.is_faulty && self.chance(2) {
            self.say(|| format!("{routing_key} refuses a message"));
            self.down(connection, move |_| {
                let _heard = confirm.send(Err(PublishError::Refused { routing_key })).is_ok();
            });
            return;
        }
        let serial = stamp(&properties);
        if !self.store(name, properties, body) {
            self.down(connection, move |_| {
                let unroutable = PublishError::Unroutable {
                    exchange: String::new(),
                    routing_key,
                    reason: "NO_ROUTE".to_owned(),
                };
                let _heard = confirm.send(Err(unroutable)).is_ok();
            });
            return;
        }
        let serial = serial.expect("only copies are published here");
        let is_slow = self.is_faulty && self.chance(3);
        let delay = if is_slow {
            self.draw(100, 60_000)
        } else {
            self.draw(0, 10)
        };
        self.oracle.confirm_takes(serial, delay);
        self.later(delay, move |world| {
            world.down(connection, move |world| {
                if confirm.send(Ok(())).is_ok() {
                    world.oracle.confirmed(serial);
                }
            });
        });
    }

    fn put(&mut self, name: &str, mut stored: Stored) {
        let now = self.now();
        let queue = self.rabbit.queues.get_mut(name).unwrap();
        if let Some(ttl) = queue.ttl {
            stored.expires = Some(now + ttl);
            let name = name.to_owned();
            // Timers count whole milliseconds.
            self.later(ttl + Duration::from_millis(1), move |world| world.expire(&name));
        }
        let queue = self.rabbit.queues.get_mut(name).unwrap();
        queue.ready.insert(stored.place, stored);
        self.push(name);
    }

    /// Moves what has expired at the head of a queue to where it is forwarded. While the broker is down nothing moves;
    /// when the target is missing, dead-lettering at least once keeps it and tries again.
    pub fn expire(&mut self, name: &str) {
        loop {
            let now = self.now();
            let Some(queue) = self.rabbit.queues.get_mut(name) else {
                return;
            };
            let Some(head) = queue.ready.first_entry() else {
                return;
            };
            if !self.is_broker_up || head.get().expires.is_none_or(|expires| expires > now) {
                return;
            }
            let target = queue.forward.clone().unwrap();
            if !self.rabbit.queues.contains_key(&target) {
                let name = name.to_owned();
                self.later(Duration::from_secs(1), move |world| world.expire(&name));
                return;
            }
            let queue = self.rabbit.queues.get_mut(name).unwrap();
            let (_, mut stored) = queue.ready.pop_first().unwrap();
            self.say(|| format!("message {} expires in {name}", stored.message));
            self.rabbit.positions += 1;
            stored.place = self.rabbit.positions;
            stored.expires = None;
            stored.returned = 0;
            self.put(&target, stored);
        }
    }

    pub fn expire_all(&mut self) {
        let names: Vec<String> = self.rabbit.queues.keys().cloned().collect();
        for name in names {
            self.expire(&name);
        }
    }

    /// Delivers what can be delivered, to one consumer after the other.
    fn push(&mut self, name: &str) {
        loop {
            let rabbit = &mut self.rabbit;
            let Some(queue) = rabbit.queues.get_mut(name) else {
                return;
            };
            if queue.ready.is_empty() {
                return;
            }
            let has_room = |id: &u64| {
                let channel = &rabbit.channels[id];
                channel.outstanding.len() < channel.prefetch
            };
            let Some(position) = queue.consumers.iter().position(has_room) else {
                return;
            };
            let id = queue.consumers.remove(position).unwrap();
            queue.consumers.push_back(id);
            let (_, stored) = queue.ready.pop_first().unwrap();
            self.deliver(id, name, stored);
        }
    }

    fn deliver(&mut self, id: u64, name: &str, stored: Stored) {
        let (connection, tag) = {
            let channel = self.rabbit.channels.get_mut(&id).unwrap();
            channel.tags += 1;
            (channel.connection, channel.tags)
        };
        let sidecar = self.connections[&connection].sidecar;
        let serial = self.oracle.delivered(sidecar, stored.message, &stored.properties);
        let mut headers = stored
            .properties
            .headers()
            .clone()
            .unwrap_or_default()
            .inner()
            .clone();
        headers.insert(
            STAMP.into(),
            AMQPValue::LongLongInt(i64::try_from(serial).unwrap()),
        );
        if stored.returned > 0 {
            headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(stored.returned));
        }
        let mut delivery = Delivery::mock(
            tag,
            "".into(),
            name.into(),
            stored.returned > 0,
            stored.body.clone(),
        );
        delivery.properties = stored.properties.clone().with_headers(headers.into());
        self.say(|| {
            format!(
                "message {} is delivered as {serial}: channel {id} tag {tag}, redelivered {}",
                stored.message,
                stored.returned > 0
            )
        });
        let held = Held {
            queue: name.to_owned(),
            stored,
            serial,
        };
        self.rabbit
            .channels
            .get_mut(&id)
            .unwrap()
            .outstanding
            .insert(tag, held);
        self.down(connection, move |world| {
            let stream = world
                .connections
                .get(&connection)
                .and_then(|conn| conn.streams.get(&id));
            if let Some(stream) = stream {
                // A consumer that is gone leaves it to the end of its channel.
                let _taken = stream.try_send(Ok(delivery)).is_ok();
            }
        });
    }

    pub fn open_channel(&mut self, connection: u64, prefetch: u16) -> u64 {
        let id = self.id();
        let channel = Channel {
            connection,
            prefetch: prefetch.into(),
            tags: 0,
            outstanding: BTreeMap::new(),
            consumes: None,
        };
        self.rabbit.channels.insert(id, channel);
        id
    }

    pub fn depth(&self, name: &str) -> Result<Depth, Error> {
        let Some(queue) = self.rabbit.queues.get(name) else {
            return Err(Error::NotFound(format!("NOT_FOUND - no queue '{name}'")));
        };
        Ok(Depth {
            ready: u32::try_from(queue.ready.len()).unwrap(),
            consumers: u32::try_from(queue.consumers.len()).unwrap(),
        })
    }

    pub fn consume(&mut self, id: u64, name: &str) -> Result<(), Error> {
        if self.rabbit.refuses_consumers {
            self.rabbit.channels.remove(&id);
            return Err(Error::AccessRefused("ACCESS_REFUSED".to_owned()));
        }
        let Some(channel) = self.rabbit.channels.get_mut(&id) else {
            return Err(Error::Unreachable("the channel is closed".to_owned()));
        };
        let Some(queue) = self.rabbit.queues.get_mut(name) else {
            return Err(Error::NotFound(format!("NOT_FOUND - no queue '{name}'")));
        };
        channel.consumes = Some(name.to_owned());
        queue.consumers.push_back(id);
        self.say(|| format!("channel {id} consumes {name}"));
        self.push(name);
        Ok(())
    }

    pub fn cancel(&mut self, id: u64) {
        if let Some(channel) = self.rabbit.channels.get_mut(&id)
            && let Some(name) = channel.consumes.take()
            && let Some(queue) = self.rabbit.queues.get_mut(&name)
        {
            queue.consumers.retain(|consumer| *consumer != id);
        }
    }

    /// `basic.cancel` from the broker.
    pub fn cancel_by_broker(&mut self, id: u64) {
        let Some(channel) = self.rabbit.channels.get(&id) else {
            return;
        };
        let connection = channel.connection;
        if channel.consumes.is_none() {
            return;
        }
        self.say(|| format!("channel {id}: the broker cancels its consumer"));
        self.cancel(id);
        self.down(connection, move |world| {
            if let Some(conn) = world.connections.get_mut(&connection) {
                conn.streams.remove(&id);
            }
        });
    }

    /// `channel.close` from the broker.
    pub fn close_by_broker(&mut self, id: u64, text: &str) {
        let Some(channel) = self.rabbit.channels.get(&id) else {
            return;
        };
        let connection = channel.connection;
        let serials: Vec<usize> = channel.outstanding.values().map(|held| held.serial).collect();
        self.say(|| format!("channel {id}: the broker closes it: {text}"));
        self.oracle.fault(self.connections[&connection].sidecar);
        self.channel_gone(id, "a fault");
        let error = Error::Precondition(text.to_owned());
        self.down(connection, move |world| {
            world.dead_channels.insert(id);
            let at = world.now();
            world.oracle.told_void(&serials, at);
            if let Some(conn) = world.connections.get_mut(&connection)
                && let Some(stream) = conn.streams.remove(&id)
            {
                let _heard = stream.try_send(Err(error)).is_ok();
            }
        });
    }

    pub fn ack(&mut self, id: u64, tag: u64, multiple: bool) {
        // What comes on a closed channel is discarded.
        let Some(channel) = self.rabbit.channels.get_mut(&id) else {
            return;
        };
        if !channel.outstanding.contains_key(&tag) {
            self.unknown_tag(id, tag);
            return;
        }
        let rest = channel.outstanding.split_off(&(tag + 1));
        let mut covered = std::mem::replace(&mut channel.outstanding, rest);
        if !multiple {
            let held = covered.remove(&tag).unwrap();
            channel.outstanding.append(&mut covered);
            covered.insert(tag, held);
        }
        self.say(|| format!("channel {id}: ack {tag}, multiple {multiple}"));
        for held in covered.values() {
            self.oracle.acked(held.serial);
        }
        self.push_all();
    }

    pub fn release(&mut self, id: u64, tag: u64) {
        let Some(channel) = self.rabbit.channels.get_mut(&id) else {
            return;
        };
        let Some(held) = channel.outstanding.remove(&tag) else {
            self.unknown_tag(id, tag);
            return;
        };
        self.say(|| format!("channel {id}: nack {tag}"));
        self.oracle.released(held.serial);
        self.give_back(held);
    }

    fn unknown_tag(&mut self, id: u64, tag: u64) {
        self.oracle
            .wrong(format!("unknown delivery tag {tag} on channel {id}"));
        self.close_by_broker(id, "PRECONDITION_FAILED - unknown delivery tag");
    }

    fn give_back(&mut self, held: Held) {
        let Held {
            queue, mut stored, ..
        } = held;
        stored.returned += 1;
        let place = stored.place;
        if let Some(found) = self.rabbit.queues.get_mut(&queue) {
            found.ready.insert(place, stored);
        }
        self.push(&queue);
    }

    fn push_all(&mut self) {
        let names: Vec<String> = self.rabbit.queues.keys().cloned().collect();
        for name in names {
            self.push(&name);
        }
    }

    /// A channel has ended; `why` is `a fault`, or who did it.
    pub fn channel_gone(&mut self, id: u64, why: &str) {
        self.cancel(id);
        let Some(channel) = self.rabbit.channels.remove(&id) else {
            return;
        };
        let conn = &self.connections[&channel.connection];
        let is_excused = why == "a fault" || self.oracle.faults(conn.sidecar) > conn.faults_before;
        self.say(|| {
            format!(
                "channel {id} ends by {why}, {} unsettled",
                channel.outstanding.len()
            )
        });
        for (_, held) in channel.outstanding.into_iter().rev() {
            let at = self.now();
            self.oracle
                .requeued(held.serial, is_excused, why == "the sidecar", at);
            self.give_back(held);
        }
    }

    pub fn connection_gone(&mut self, connection: u64, why: &str) {
        let of_it = self
            .rabbit
            .channels
            .iter()
            .filter(|(_, channel)| channel.connection == connection);
        let ids: Vec<u64> = of_it.map(|(id, _)| *id).collect();
        for id in &ids {
            self.cancel(*id);
        }
        for id in ids {
            self.channel_gone(id, why);
        }
    }

    /// Messages that wait in queues or are with a consumer, the dead-letter queue left out.
    pub fn remaining(&self, dead_letter: &str) -> Vec<usize> {
        let queues = self.rabbit.queues.iter().filter(|(name, _)| *name != dead_letter);
        let ready = queues.flat_map(|(_, queue)| queue.ready.values().map(|stored| stored.message));
        let held = self
            .rabbit
            .channels
            .values()
            .flat_map(|channel| channel.outstanding.values());
        ready.chain(held.map(|held| held.stored.message)).collect()
    }
}
