//! Queues: what is stored, in which order, how it expires, and to whom it is pushed.

use super::{Channel, Held, Queue, Stored, integer, number, stamp, text};
use crate::world::World;
use amqp::topology::{Depth, QueuePlan};
use amqp::{Error, PublishError};
use contract::headers;
use lapin::BasicProperties;
use std::time::Duration;
use tokio::sync::oneshot;

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

    pub fn depth(&self, name: &str) -> Result<Depth, Error> {
        let Some(queue) = self.rabbit.queues.get(name) else {
            return Err(Error::NotFound(format!("NOT_FOUND - no queue '{name}'")));
        };
        Ok(Depth {
            ready: u32::try_from(queue.ready.len()).unwrap(),
            consumers: u32::try_from(queue.consumers.len()).unwrap(),
        })
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
    pub(super) fn push(&mut self, name: &str) {
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

    pub(super) fn push_all(&mut self) {
        let names: Vec<String> = self.rabbit.queues.keys().cloned().collect();
        for name in names {
            self.push(&name);
        }
    }

    pub(super) fn give_back(&mut self, held: Held) {
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
}
