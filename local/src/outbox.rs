//! Asynchronous calls of several workers, each to the broker of its queue.

use activator::{Broker, Message, Outbox, OutboxError};
use contract::settings::Settings;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// A broker for each queue. Workers that share a broker share its connection.
#[derive(Default)]
pub(crate) struct Outboxes {
    brokers: BTreeMap<String, Arc<Broker>>,
}

impl Outboxes {
    /// One for all these workers. A queue name that is on two brokers goes to the first.
    pub(crate) fn new<'a>(workers: impl Iterator<Item = &'a Settings>) -> Self {
        let mut by_url = Vec::new();
        let mut brokers = BTreeMap::new();
        for settings in workers {
            let Some(queue) = settings.queue.clone() else {
                continue;
            };
            let known = by_url
                .iter()
                .find(|(url, _)| *url == &settings.broker)
                .map(|(_, broker)| Arc::clone(broker));
            let broker = known.unwrap_or_else(|| {
                let broker = Arc::new(Broker::new(settings.broker.clone(), "kubedaemon activator"));
                by_url.push((&settings.broker, Arc::clone(&broker)));
                broker
            });
            brokers.entry(queue).or_insert(broker);
        }
        Self { brokers }
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        // Closing one twice does nothing.
        for broker in self.brokers.values() {
            broker.close().await;
        }
    }
}

impl Outbox for Outboxes {
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        message: Message,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<(), OutboxError>> {
        if let Some(broker) = self.brokers.get(queue) {
            return broker.publish(queue, message, deadline);
        }
        let sentence = format!("no worker on this machine has queue {queue}");
        Box::pin(std::future::ready(Err(OutboxError::Unavailable(sentence))))
    }
}
