//! Channels: consumers, tags, what is unsettled, and how all of it ends.

use super::{Channel, Held, STAMP, Stored};
use crate::world::World;
use amqp::Error;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use std::collections::BTreeMap;

impl World {
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

    pub(super) fn deliver(&mut self, id: u64, name: &str, stored: Stored) {
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
}
