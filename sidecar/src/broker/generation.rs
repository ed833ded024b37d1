//! One generation: a connection to consume, one to publish, and the topology in place.
//!
//! Nothing outlives it: a delivery of generation N is settled on N or not at all (ADR 0002).

use super::copies::Copies;
use super::port::{Broker, Connection};
use crate::config::Config;
use crate::telemetry;
use amqp::Error;
use amqp::topology::{Depth, QueuePlan, Risk};
use amqp::version::Server;
use futures_util::future::join_all;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// The open connections of one generation.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) consuming: Arc<dyn Connection>,
    pub(super) copies: Arc<Copies>,
    publishing: Arc<dyn Connection>,
    is_single_active: AtomicBool,
}

/// The risks that were last found at each queue: they are said when they appear, not at every connection.
#[derive(Debug, Default)]
pub(super) struct KnownRisks(Mutex<HashMap<String, Vec<Risk>>>);

impl KnownRisks {
    /// Takes in what was found at a queue and returns what is new in it.
    fn news(&self, queue: &str, found: Vec<Risk>) -> Vec<Risk> {
        let mut known = self.0.lock().expect("invariant: no holder panics");
        let before = known.entry(queue.to_owned()).or_default();
        let news = found
            .iter()
            .filter(|risk| !before.contains(risk))
            .cloned()
            .collect();
        *before = found;
        news
    }
}

impl Generation {
    /// Connects and puts the topology in place.
    ///
    /// Two connections, because a broker with a memory or disk alarm stops reading from those that publish, and
    /// acknowledgements would wait with them (<https://www.rabbitmq.com/docs/alarms>).
    pub(super) async fn open(
        broker: &dyn Broker,
        config: &Config,
        known: &KnownRisks,
    ) -> Result<Self, Error> {
        let name = |role: &str| format!("{} {role}", config.name);
        let (consuming, publishing) = (name("consuming"), name("publishing"));
        let (consuming, publishing) = tokio::try_join!(
            broker.connect(&config.broker, &consuming),
            broker.connect(&config.broker, &publishing)
        )?;
        let (copies, is_single_active) = tokio::try_join!(
            Copies::open(Arc::clone(&publishing), &config.queue, &config.dead_letter),
            ensure_topology(&*consuming, config, known)
        )?;
        Ok(Self {
            copies: Arc::new(copies),
            consuming,
            publishing,
            is_single_active: AtomicBool::new(is_single_active),
        })
    }

    /// Puts the topology in place again.
    pub(super) async fn ensure_topology(&self, config: &Config, known: &KnownRisks) -> Result<(), Error> {
        let is_single_active = ensure_topology(&*self.consuming, config, known).await?;
        self.is_single_active.store(is_single_active, Relaxed);
        Ok(())
    }

    /// Whether the queue feeds one consumer at a time, as far as can be known.
    pub(super) fn is_single_active(&self) -> bool {
        self.is_single_active.load(Relaxed)
    }

    /// What the broker says that it is.
    pub(super) fn server(&self) -> Option<&Server> {
        self.consuming.server()
    }

    /// What waits in a queue, and who consumes it.
    pub(super) async fn depth(&self, queue: &str) -> Result<Depth, Error> {
        self.publishing.depth(queue).await
    }

    /// Whether both connections can still be used.
    pub(super) fn is_open(&self) -> bool {
        self.consuming.is_open() && self.publishing.is_open()
    }

    /// Waits until one of the two is lost and says why. Cancel safe.
    pub(super) async fn lost(&self) -> String {
        tokio::select! {
            biased;
            cause = self.consuming.lost() => cause,
            cause = self.publishing.lost() => cause,
        }
    }

    /// Tells of messages that were not legible as the broker handed them over, for as long as it is polled. Cancel safe.
    pub(super) async fn tell_what_is_mended(&self, queue: &str) -> Infallible {
        let mut mended = self.consuming.mended();
        let mut before = *mended.borrow();
        while mended.changed().await.is_ok() {
            let now = *mended.borrow_and_update();
            let news = [
                (telemetry::Illegible::Text, before.texts, now.texts),
                (telemetry::Illegible::Nesting, before.nestings, now.nestings),
            ];
            for (what, before, now) in news.into_iter().filter(|(_, before, now)| before != now) {
                telemetry::mended(queue, what, now - before, before == 0);
            }
            before = now;
        }
        std::future::pending().await
    }

    /// Closes gracefully.
    pub(super) async fn close(&self) {
        tokio::join!(self.consuming.close(), self.publishing.close());
    }
}

/// Makes the queues that are missing and looks at the others, all at once: a start waits for it. On the connection that
/// never publishes, which no alarm holds up. Returns whether the worker's queue feeds one consumer at a time.
async fn ensure_topology(
    consuming: &dyn Connection,
    config: &Config,
    known: &KnownRisks,
) -> Result<bool, Error> {
    let plans = [
        QueuePlan::dead_letter(&config.dead_letter),
        QueuePlan::worker(&config.queue, &config.dead_letter),
    ];
    let responses = config.response_queue.as_ref().map(QueuePlan::response);
    let plans: Vec<QueuePlan> = plans.into_iter().chain(responses).collect();
    let ensured = join_all(plans.iter().map(|plan| consuming.ensure_queue(plan))).await;
    let mut is_single_active = false;
    for (plan, ensured) in plans.iter().zip(ensured) {
        let ensured = ensured?;
        if ensured.created {
            telemetry::queue_made(plan.name());
        }
        if plan.name() == config.queue {
            is_single_active = ensured.is_single_active;
        }
        for risk in known.news(plan.name(), ensured.risks) {
            telemetry::queue_at_risk(plan.name(), &risk);
        }
    }
    Ok(is_single_active)
}
