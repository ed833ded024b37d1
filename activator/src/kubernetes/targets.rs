//! Workloads and their pods as targets of calls.
//!
//! One task looks at the views whenever one of them changes and tells each target's state to whoever watches it. What
//! it has found stays until it finds something else: calls go on while the API server is away.

mod proving;
mod waking;

use super::config::Config;
use super::pods;
use super::views::Views;
use super::workload::{Kind, Workload};
use crate::targets::{TargetName, TargetState, Targets};
use contract::broker::BrokerUrl;
use contract::settings::{BROKER, Flags, Problems, VHOST};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The least time between two looks at the views, so that a cluster in which much happens does not keep us busy.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Everything that can be called on the cluster.
pub(crate) struct KubeTargets {
    client: kube::Client,
    views: Views,
    /// What annotations may leave out: the activator's own broker.
    defaults: Flags,
    inner: Mutex<Inner>,
    /// Told when the views are to be looked at although they have not changed.
    nudged: Notify,
    /// Grows with every look that has changed anything.
    revision: watch::Sender<u64>,
    looked: watch::Sender<bool>,
    /// Owns wakes and probes.
    tasks: TaskTracker,
    ending: CancellationToken,
}

#[derive(Default)]
struct Inner {
    targets: HashMap<TargetName, Target>,
    /// Calls that wait or are being answered; zero is left out.
    calls: BTreeMap<TargetName, u32>,
    /// Wakes that are under way, each told when a first call comes again.
    waking: HashMap<TargetName, Waking>,
    /// Pods, by uid, that have answered our own readiness probe before the kubelet's.
    proven: HashSet<String>,
    /// Pods, by uid, that are being asked.
    probing: HashSet<String>,
    /// What was read of workloads, by kind and name, with the version of it.
    read: HashMap<(Kind, TargetName), Read>,
}

struct Target {
    workload: Arc<Workload>,
    state: watch::Sender<TargetState>,
    /// The names of its pods, of which those behind its Services are told apart from others.
    pods: Arc<HashSet<String>>,
}

struct Waking {
    called: Arc<Notify>,
    trouble: Option<String>,
}

struct Read {
    version: String,
    /// Or what is wrong with its annotations.
    workload: Result<Arc<Workload>, Arc<Problems>>,
}

/// One target, as it is known now.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) workload: Arc<Workload>,
    pub(crate) state: TargetState,
    pub(crate) calls: u32,
    /// The names of its pods.
    pub(crate) pods: Arc<HashSet<String>>,
}

impl KubeTargets {
    /// Targets that nothing is known of until [`keep`](Self::keep) runs.
    pub(crate) fn new(client: kube::Client, views: Views, config: &Config) -> Self {
        let mut defaults = vec![(BROKER.name.to_owned(), config.broker_as_written.clone())];
        let vhost = config.vhost.clone();
        defaults.extend(vhost.map(|vhost| (VHOST.name.to_owned(), vhost)));
        Self {
            client,
            views,
            defaults: Flags::new(defaults),
            inner: Mutex::default(),
            nudged: Notify::new(),
            revision: watch::Sender::new(0),
            looked: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }

    /// Looks at the views until the end: at once, and whenever one changes.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut deployments = self.views.deployments.revisions();
        let mut stateful_sets = self.views.stateful_sets.revisions();
        let mut pods = self.views.pods.revisions();
        loop {
            deployments.borrow_and_update();
            stateful_sets.borrow_and_update();
            pods.borrow_and_update();
            self.look();
            self.looked
                .send_if_modified(|looked| !std::mem::replace(looked, true));
            let looked = Instant::now();
            // Each branch is cancel safe: a change that is not seen stays unseen, a nudge is kept.
            tokio::select! {
                () = self.ending.cancelled() => return,
                Ok(()) = deployments.changed() => {}
                Ok(()) = stateful_sets.changed() => {}
                Ok(()) = pods.changed() => {}
                () = self.nudged.notified() => {}
            }
            tokio::time::sleep_until(looked + LOOK_EVERY).await;
        }
    }

    /// Waits until the views have been looked at once. Cancel safe.
    pub(crate) async fn known_once(&self) {
        ops::watching::until(&self.looked, |looked| *looked).await;
    }

    /// Ends wakes and probes, and waits for that.
    pub(crate) async fn end(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Grows with every change of what [`known`](Self::known) says of workloads and pods.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Every target, in order.
    pub(crate) fn known(&self) -> BTreeMap<TargetName, Known> {
        let inner = self.lock();
        inner
            .targets
            .iter()
            .map(|(name, target)| {
                let known = Known {
                    workload: Arc::clone(&target.workload),
                    state: target.state.borrow().clone(),
                    calls: inner.calls.get(name).copied().unwrap_or(0),
                    pods: Arc::clone(&target.pods),
                };
                (name.clone(), known)
            })
            .collect()
    }

    /// Calls that wait or are being answered, by target; those without any are left out.
    pub(crate) fn calls(&self) -> BTreeMap<TargetName, u32> {
        self.lock().calls.clone()
    }

    /// The broker of a target.
    pub(crate) fn broker(&self, target: &TargetName) -> Option<BrokerUrl> {
        let inner = self.lock();
        Some(inner.targets.get(target)?.workload.broker.clone())
    }

    /// One look: what the views show becomes the targets' states.
    fn look(self: &Arc<Self>) {
        let mut inner = self.lock();
        let workloads = self.read_all(&mut inner);
        let mut by_namespace: HashMap<String, Vec<Arc<Pod>>> = HashMap::new();
        for workload in &workloads {
            by_namespace.entry(workload.name.namespace.clone()).or_default();
        }
        if !by_namespace.is_empty() {
            for pod in self.views.pods.all() {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                if let Some(pods) = by_namespace.get_mut(namespace) {
                    pods.push(pod);
                }
            }
        }
        let mut changed = false;
        let mut seen = HashSet::new();
        let mut unready: HashSet<String> = HashSet::new();
        for workload in workloads {
            let name = workload.name.clone();
            let pods = by_namespace.get(&name.namespace).map_or(&[][..], Vec::as_slice);
            let pods = pods::of(&workload, pods);
            unready.extend(
                pods.iter()
                    .filter(|pod| !pods::is_ready(pod))
                    .map(|pod| pods::uid(pod).to_owned()),
            );
            let wake_trouble = inner.waking.get(&name).and_then(|waking| waking.trouble.clone());
            let state = TargetState {
                endpoints: pods::endpoints(&workload, &pods, &inner.proven),
                trouble: wake_trouble.or_else(|| pods::trouble(&workload, &pods)),
            };
            self.probe(&mut inner, &workload, &pods);
            changed |= inner.update(workload, state, &pods);
            seen.insert(name);
        }
        let before = inner.targets.len();
        // Whoever watches one that is gone learns of it by the end of its channel.
        inner.targets.retain(|name, _| seen.contains(name));
        changed |= inner.targets.len() != before;
        // A pod that is ready, or gone, needs no proof of ours any more.
        inner.proven.retain(|uid| unready.contains(uid));
        drop(inner);
        if changed {
            self.revision.send_modify(|revision| *revision += 1);
        }
    }

    /// Every target among the workloads; where a Deployment and a StatefulSet share a name, the former.
    fn read_all(&self, inner: &mut Inner) -> Vec<Arc<Workload>> {
        let mut read = HashMap::new();
        let mut found: Vec<Arc<Workload>> = Vec::new();
        let mut taken = HashSet::new();
        let deployments = self.views.deployments.all();
        let stateful_sets = self.views.stateful_sets.all();
        let deployments = deployments.iter().filter_map(|object| {
            let workload = || Workload::of_deployment(object, &self.defaults);
            Self::read_one(inner, Kind::Deployment, &object.metadata, workload)
        });
        let mut all: Vec<_> = deployments.collect();
        all.extend(stateful_sets.iter().filter_map(|object| {
            let workload = || Workload::of_stateful_set(object, &self.defaults);
            Self::read_one(inner, Kind::StatefulSet, &object.metadata, workload)
        }));
        for (key, entry) in all {
            if let Ok(workload) = &entry.workload
                && taken.insert(key.1.clone())
            {
                found.push(Arc::clone(workload));
            }
            read.insert(key, entry);
        }
        inner.read = read;
        found
    }

    /// One workload, read anew only when it has changed; `None` when it is no target.
    fn read_one(
        inner: &Inner,
        kind: Kind,
        metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        workload: impl FnOnce() -> Option<Result<Workload, Problems>>,
    ) -> Option<((Kind, TargetName), Read)> {
        let name = TargetName {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
        };
        let version = metadata.resource_version.clone().unwrap_or_default();
        let key = (kind, name);
        let known = inner.read.get(&key);
        if let Some(known) = known.filter(|known| known.version == version) {
            let workload = known.workload.clone();
            return Some((key, Read { version, workload }));
        }
        let workload = workload()?.map(Arc::new).map_err(Arc::new);
        // Every change of the workload is read, but the same mistake is told once.
        if let Err(problems) = &workload
            && known.is_none_or(|known| known.workload.as_ref().err() != Some(problems))
        {
            let target = &key.1;
            tracing::warn!(kind = kind.as_str(), %target, "no target, because its annotations are wrong: {problems}");
        }
        Some((key, Read { version, workload }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Keeps what was found of one target; whether that is anything new.
    fn update(&mut self, workload: Arc<Workload>, state: TargetState, pods: &[&Pod]) -> bool {
        let names: HashSet<String> = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        let Some(target) = self.targets.get_mut(&workload.name) else {
            let target = Target {
                state: watch::Sender::new(state),
                pods: Arc::new(names),
                workload: Arc::clone(&workload),
            };
            self.targets.insert(workload.name.clone(), target);
            return true;
        };
        let mut changed = target.state.send_if_modified(|known| {
            let differs = *known != state;
            *known = state;
            differs
        });
        changed |= !Arc::ptr_eq(&target.workload, &workload);
        target.workload = workload;
        if *target.pods != names {
            target.pods = Arc::new(names);
            changed = true;
        }
        changed
    }
}

/// A cluster's targets, shared with those who keep them.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<KubeTargets>);

impl Targets for Shared {
    fn watch(&self, target: &TargetName) -> Option<watch::Receiver<TargetState>> {
        Some(self.0.lock().targets.get(target)?.state.subscribe())
    }

    fn wake(&self, target: &TargetName) {
        let mut inner = self.0.lock();
        if inner.waking.contains_key(target) {
            return;
        }
        let called = Arc::new(Notify::new());
        let waking = Waking {
            called: Arc::clone(&called),
            trouble: None,
        };
        inner.waking.insert(target.clone(), waking);
        drop(inner);
        let (this, name) = (Arc::clone(&self.0), target.clone());
        self.0.tasks.spawn(async move {
            let ending = this.ending.clone();
            ending.run_until_cancelled(this.waking(name, called)).await;
        });
    }

    fn load_changed(&self, target: &TargetName, calls: u32) {
        let mut inner = self.0.lock();
        if calls == 0 {
            inner.calls.remove(target);
            return;
        }
        let is_first = inner.calls.insert(target.clone(), calls).is_none();
        if is_first && let Some(waking) = inner.waking.get(target) {
            waking.called.notify_one();
            self.0.nudged.notify_one();
        }
    }

    fn queue(&self, target: &TargetName) -> Option<String> {
        self.0.lock().targets.get(target)?.workload.queue.clone()
    }

    fn names(&self) -> Vec<TargetName> {
        self.0.lock().targets.keys().cloned().collect()
    }
}

impl fmt::Debug for KubeTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeTargets")
            .field("views", &self.views)
            .finish_non_exhaustive()
    }
}
