//! The autoscalers: one for each distinct broker, and one for workers that are only called.

use crate::fleet::WorkerFleet;
use autoscaler::domain::Policy;
use autoscaler::{Autoscaler, NoQueues, PassiveDeclare, Report, TargetHandle, TargetSpec};
use contract::broker::BrokerUrl;
use contract::settings::Settings;
use ops::shutdown::Shutdown;
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The last report of each worker by its label.
pub(crate) type Reports = BTreeMap<String, watch::Receiver<Option<Report>>>;

/// Every worker's scaling.
#[derive(Default)]
pub(crate) struct Scaling {
    by_broker: Vec<(BrokerUrl, Autoscaler<PassiveDeclare>)>,
    without_queue: Option<Autoscaler<NoQueues>>,
    handles: BTreeMap<String, TargetHandle>,
}

impl Scaling {
    /// Adds a worker. Its queue is made unless it exists. Must be called within a runtime.
    ///
    /// # Errors
    /// A sentence about settings that contradict each other.
    pub(crate) fn add(&mut self, settings: &Settings, fleet: WorkerFleet) -> Result<(), String> {
        let policy = Policy::try_new(
            settings.min_replicas,
            settings.max_replicas,
            settings.messages_per_replica,
            settings.cool_down,
        );
        let label = fleet.label().to_owned();
        let spec = TargetSpec {
            name: label.clone(),
            queue: settings.queue.clone(),
            dead_letter: settings.dead_letter.clone(),
            policy: policy.map_err(|error| format!("{label}: {error}"))?,
            calls: fleet.calls(),
            target: fleet,
        };
        let handle = if settings.queue.is_none() {
            self.without_queue
                .get_or_insert_with(|| Autoscaler::new(NoQueues))
                .add(spec)
        } else {
            self.on(&settings.broker).add(spec)
        };
        self.handles.insert(label, handle);
        Ok(())
    }

    /// What each autoscaler last saw and decided.
    pub(crate) fn reports(&self) -> Reports {
        self.handles
            .iter()
            .map(|(label, handle)| (label.clone(), handle.reports()))
            .collect()
    }

    /// Scales until `shutdown`.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut running = JoinSet::new();
        for (_, autoscaler) in self.by_broker {
            running.spawn(autoscaler.run(shutdown.clone()));
        }
        if let Some(autoscaler) = self.without_queue {
            running.spawn(autoscaler.run(shutdown.clone()));
        }
        running.join_all().await;
    }

    fn on(&mut self, broker: &BrokerUrl) -> &Autoscaler<PassiveDeclare> {
        let known = self.by_broker.iter().position(|(known, _)| known == broker);
        let index = known.unwrap_or_else(|| {
            let source = PassiveDeclare::new(broker.clone(), "kubedaemon autoscaler");
            self.by_broker.push((broker.clone(), Autoscaler::new(source)));
            self.by_broker.len() - 1
        });
        &self.by_broker[index].1
    }
}
