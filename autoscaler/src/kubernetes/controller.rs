//! Which workloads are scaled: as annotations come, change and go, and only while we lead.

use super::conflicts::{Conflicts, conflicts};
use super::events::Reason;
use super::intent::{Intent, Scaled, intent};
use super::keeper::{Keeper, Office};
use super::restore;
use super::telemetry;
use super::workload::{Key, Workload};
use crate::app::{Autoscaler, Registry};
use crate::source::{NoQueues, PassiveDeclare};
use contract::broker::BrokerUrl;
use ops::shutdown::Shutdown;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The least between two looks at all workloads.
const LEAST: Duration = Duration::from_millis(100);

/// Decides what is a target.
pub(super) struct Controller {
    office: Office,
    /// Of workloads that name none.
    broker: BrokerUrl,
    targets: BTreeMap<Key, Target>,
    brokers: Vec<Broker>,
    /// What was told of workloads that are no targets, so that it is told once.
    told: BTreeMap<Key, String>,
    restoring: BTreeSet<Key>,
    autoscalers: JoinSet<()>,
    keepers: JoinSet<()>,
    restores: JoinSet<Key>,
}

struct Target {
    uid: String,
    scaled: Scaled,
    stop: CancellationToken,
}

/// An autoscaler and whose queues it looks at; `None` for workloads that are only called.
struct Broker {
    address: Option<BrokerUrl>,
    registry: Registry,
    shutdown: Shutdown,
}

impl Controller {
    pub(super) fn new(office: Office, broker: BrokerUrl) -> Self {
        Self {
            office,
            broker,
            targets: BTreeMap::new(),
            brokers: Vec::new(),
            told: BTreeMap::new(),
            restoring: BTreeSet::new(),
            autoscalers: JoinSet::new(),
            keepers: JoinSet::new(),
            restores: JoinSet::new(),
        }
    }

    /// Controls until `shutdown`; then ticks under way end.
    pub(super) async fn run(mut self, mut keda: watch::Receiver<Conflicts>, shutdown: Shutdown) {
        let views = self.office.means.views.clone();
        let mut leadership = self.office.means.writer.leadership.clone();
        let mut deployments = views.deployments.revisions();
        let mut stateful_sets = views.stateful_sets.revisions();
        let mut autoscalers = views.autoscalers.revisions();
        while !shutdown.is_draining() {
            let began = Instant::now();
            let scaled_objects = keda.borrow_and_update().clone();
            if leadership.is_held() {
                self.look(&scaled_objects, &shutdown);
            } else {
                self.let_all_go();
            }
            telemetry::targets(self.targets.len());
            let ends = Instant::now() + leadership.remaining();
            let is_held = leadership.is_held();
            // All branches are cancel safe; a view that is gone never changes again.
            tokio::select! {
                () = shutdown.draining() => break,
                () = leadership.changed() => {}
                () = sleep_until(ends), if is_held => {}
                Ok(()) = deployments.changed() => {}
                Ok(()) = stateful_sets.changed() => {}
                Ok(()) = autoscalers.changed() => {}
                Ok(()) = keda.changed() => {}
                Some(done) = self.restores.join_next() => self.restored(done),
                Some(ended) = self.keepers.join_next() => surface(ended),
                Some(ended) = self.autoscalers.join_next() => surface(ended),
            }
            sleep_until(began + LEAST).await;
        }
        self.end(&shutdown).await;
    }

    async fn end(mut self, shutdown: &Shutdown) {
        self.let_all_go();
        for broker in &self.brokers {
            broker.shutdown.drain();
        }
        self.restores.abort_all();
        let ended = async {
            while let Some(ended) = self.keepers.join_next().await {
                surface(ended);
            }
            while let Some(ended) = self.autoscalers.join_next().await {
                surface(ended);
            }
        };
        tokio::select! {
            () = ended => {}
            () = shutdown.forced() => {}
        }
    }

    /// One look at all workloads.
    fn look(&mut self, scaled_objects: &Conflicts, shutdown: &Shutdown) {
        let workloads = self.office.means.views.workloads();
        let rivals = conflicts(&self.office.means.views, scaled_objects);
        let present: BTreeSet<&Key> = workloads.iter().map(|workload| &workload.key).collect();
        self.targets.retain(|key, target| {
            let stays = present.contains(key);
            if !stays {
                target.stop.cancel();
            }
            stays
        });
        self.told.retain(|key, _| present.contains(key));
        for workload in &workloads {
            self.judge(workload, &rivals, shutdown);
        }
        let targets = &self.targets;
        self.brokers.retain(|broker| {
            let is_used = targets
                .values()
                .any(|target| target.broker() == broker.address.as_ref());
            if !is_used {
                broker.shutdown.drain();
            }
            is_used
        });
    }

    fn judge(&mut self, workload: &Workload, rivals: &Conflicts, shutdown: &Shutdown) {
        let key = &workload.key;
        if workload.is_ending {
            self.let_go(key);
            return;
        }
        match intent(workload, &self.broker) {
            Intent::Absent => {
                self.let_go(key);
                self.told.remove(key);
                if workload.is_marked() && self.restoring.insert(key.clone()) {
                    self.restores.spawn(restore::restore(
                        self.office.clone(),
                        self.broker.clone(),
                        workload.clone(),
                        rivals.get(key).cloned(),
                    ));
                }
            }
            Intent::Bad(problems) => {
                // A target keeps what it had.
                let note = problems.replace('\n', "; ");
                self.tell(workload, Reason::BadAnnotation, note);
            }
            Intent::Scaled(scaled) => {
                if let Some(rival) = rivals.get(key) {
                    self.let_go(key);
                    let note = format!(
                        "{rival} scales it too: it is left alone until that or the kubedaemon.io annotations are removed"
                    );
                    self.tell(workload, Reason::ConflictingAutoscaler, note);
                    return;
                }
                self.told.remove(key);
                self.keep(workload, *scaled, shutdown);
            }
        }
    }

    fn keep(&mut self, workload: &Workload, scaled: Scaled, shutdown: &Shutdown) {
        let key = &workload.key;
        // It is taken over again when what was before is restored.
        if self.restoring.contains(key) {
            return;
        }
        if let Some(target) = self.targets.get(key) {
            if target.uid == workload.uid && target.scaled == scaled {
                return;
            }
            self.let_go(key);
        }
        let target = Target {
            uid: workload.uid.clone(),
            scaled: scaled.clone(),
            stop: CancellationToken::new(),
        };
        let registry = self.registry(target.broker(), shutdown);
        let keeper = Keeper::new(self.office.clone(), workload);
        self.keepers
            .spawn(keeper.run(scaled, registry, target.stop.clone()));
        self.targets.insert(key.clone(), target);
    }

    fn let_go(&mut self, key: &Key) {
        if let Some(target) = self.targets.remove(key) {
            target.stop.cancel();
        }
    }

    /// Whoever leads next begins anew, and so do we.
    fn let_all_go(&mut self) {
        for target in std::mem::take(&mut self.targets).into_values() {
            target.stop.cancel();
        }
        self.told.clear();
    }

    /// Tells something of a workload, once.
    fn tell(&mut self, workload: &Workload, reason: Reason, note: String) {
        if self.told.get(&workload.key) != Some(&note) {
            self.office.events.tell(workload, reason, &note);
            self.told.insert(workload.key.clone(), note);
        }
    }

    fn restored(&mut self, done: Result<Key, JoinError>) {
        match done {
            Ok(key) => {
                self.restoring.remove(&key);
            }
            Err(error) => surface(Err(error)),
        }
    }

    fn registry(&mut self, address: Option<&BrokerUrl>, shutdown: &Shutdown) -> Registry {
        if let Some(known) = self
            .brokers
            .iter()
            .find(|broker| broker.address.as_ref() == address)
        {
            return known.registry.clone();
        }
        let shutdown = shutdown.child();
        let registry = if let Some(address) = address {
            let source = PassiveDeclare::new(address.clone(), "kubedaemon autoscaler");
            let autoscaler = Autoscaler::new(source);
            let registry = autoscaler.registry();
            self.autoscalers.spawn(autoscaler.run(shutdown.clone()));
            registry
        } else {
            let autoscaler = Autoscaler::new(NoQueues);
            let registry = autoscaler.registry();
            self.autoscalers.spawn(autoscaler.run(shutdown.clone()));
            registry
        };
        self.brokers.push(Broker {
            address: address.cloned(),
            registry: registry.clone(),
            shutdown,
        });
        registry
    }
}

impl Target {
    fn broker(&self) -> Option<&BrokerUrl> {
        self.scaled.queue.as_ref().map(|_| &self.scaled.broker)
    }
}

/// A panic must not go unnoticed: nobody would scale any more.
fn surface(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
