//! The broker of each target: the one that its annotations name, else the activator's own.

use super::targets::KubeTargets;
use crate::outbox::{Broker, Message, Outbox, OutboxError};
use crate::targets::TargetName;
use contract::broker::BrokerUrl;
use futures_util::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// What RabbitMQ's own tools show.
const CONNECTION_NAME: &str = "kubedaemon activator";

/// A connection for each broker that calls were queued at. Each is opened by the first call that needs it.
#[derive(Debug)]
pub(crate) struct Outboxes {
    targets: Arc<KubeTargets>,
    default: BrokerUrl,
    /// Few, so looking through them is quick.
    open: Mutex<Vec<(BrokerUrl, Arc<Broker>)>>,
}

impl Outboxes {
    /// `default` is the broker of targets that name none.
    pub(crate) fn new(targets: Arc<KubeTargets>, default: BrokerUrl) -> Self {
        Self {
            targets,
            default,
            open: Mutex::default(),
        }
    }

    fn broker(&self, url: BrokerUrl) -> Arc<Broker> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, broker)) = open.iter().find(|(known, _)| *known == url) {
            return Arc::clone(broker);
        }
        let broker = Arc::new(Broker::new(url.clone(), CONNECTION_NAME));
        open.push((url, Arc::clone(&broker)));
        broker
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        let open: Vec<Arc<Broker>> = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.drain(..).map(|(_, broker)| broker).collect()
        };
        for broker in open {
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
        let broker = self.broker(self.default.clone());
        Box::pin(async move { broker.publish(queue, message, deadline).await })
    }

    fn publish_for<'a>(
        &'a self,
        target: &'a TargetName,
        queue: &'a str,
        message: Message,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<(), OutboxError>> {
        let url = self
            .targets
            .broker(target)
            .unwrap_or_else(|| self.default.clone());
        let broker = self.broker(url);
        Box::pin(async move { broker.publish(queue, message, deadline).await })
    }
}
