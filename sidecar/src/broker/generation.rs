//! One generation: a connection to consume, one to publish, and the topology in place.
//!
//! Nothing outlives it: a delivery of generation N is settled on N or not at all (ADR 0002).

use super::copies::Copies;
use crate::config::Config;
use crate::telemetry;
use amqp::topology::{QueuePlan, ensure_queue};
use amqp::{Connection, Error};
use std::sync::Arc;

/// The open connections of one generation.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) consuming: Arc<Connection>,
    pub(super) copies: Arc<Copies>,
    publishing: Arc<Connection>,
}

impl Generation {
    /// Connects and puts the topology in place.
    ///
    /// Two connections, because a broker with a memory or disk alarm stops reading from those that publish, and
    /// acknowledgements would wait with them (<https://www.rabbitmq.com/docs/alarms>).
    pub(super) async fn open(config: &Config) -> Result<Self, Error> {
        let name = |role: &str| format!("{} {role}", config.name);
        let (consuming, publishing) = (name("consuming"), name("publishing"));
        let (consuming, publishing) = tokio::try_join!(
            amqp::connect(&config.broker, &consuming),
            amqp::connect(&config.broker, &publishing)
        )?;
        let (consuming, publishing) = (Arc::new(consuming), Arc::new(publishing));
        let generation = Self {
            copies: Arc::new(
                Copies::open(Arc::clone(&publishing), &config.queue, &config.dead_letter).await?,
            ),
            consuming,
            publishing,
        };
        generation.ensure_topology(config).await?;
        Ok(generation)
    }

    /// The dead-letter queue first: what is in the queue may need it at once.
    pub(super) async fn ensure_topology(&self, config: &Config) -> Result<(), Error> {
        let plans = [
            QueuePlan::dead_letter(&config.dead_letter),
            QueuePlan::worker(&config.queue, &config.dead_letter),
        ];
        for plan in plans {
            let ensured = ensure_queue(&self.publishing, &plan).await?;
            if ensured.created {
                telemetry::queue_made(plan.name());
            }
            for risk in &ensured.risks {
                telemetry::queue_at_risk(plan.name(), risk);
            }
        }
        Ok(())
    }

    /// Waits until one of the two is lost and says why. Cancel safe.
    pub(super) async fn lost(&self) -> String {
        tokio::select! {
            cause = self.consuming.lost() => cause,
            cause = self.publishing.lost() => cause,
        }
    }

    /// Closes gracefully.
    pub(super) async fn close(&self) {
        tokio::join!(self.consuming.close(), self.publishing.close());
    }
}
