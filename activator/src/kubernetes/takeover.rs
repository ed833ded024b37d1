//! The activator stands in for the Services of targets that nothing is ready behind.
//!
//! Its own EndpointSlice then stands behind such a Service, with the replica's own address and, for each port of the
//! Service, a port that belongs to nothing else; so a call is known by the port on which it came, whatever its host and
//! path. When a pod is ready, the slice is withdrawn, and callers reach the pods directly again.
//!
//! Nodes learn of both a moment later (kube-proxy waits up to a second by default), so a port is open before its slice
//! is written, and stays open after it is withdrawn, for as long as the Service is there: calls that come late are
//! forwarded like any other.
//!
//! Each replica writes and withdraws its own slices, while its own pod is ready. Those of replicas that are gone are
//! removed by whichever replica notices.

pub(crate) mod plan;
mod ports;
pub(crate) mod slice;

use super::FIELD_MANAGER;
use super::config::{Identity, SliceOwner};
use super::pods;
use super::targets::KubeTargets;
use super::views::{Behind, Views};
use crate::app::Ports;
use crate::telemetry;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use plan::{Candidate, ServiceName, candidates, is_ours};
use ports::Doors;
use serde_json::Value;
use slice::Wanted;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often everything is looked at although nothing has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a write, how long our own memory of it is trusted more than the view, which lags.
const VIEW_LAG: Duration = Duration::from_secs(2);
/// After a write that has failed.
const RETRY: Duration = Duration::from_millis(250);
/// How long withdrawing may take at the end.
const WITHDRAW: Duration = Duration::from_secs(3);

/// What stands behind a Service, as far as this replica is concerned.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) candidate: Candidate,
    /// Whether this replica's slice is behind it.
    pub(crate) stands: bool,
    pub(crate) ports: Vec<u16>,
}

/// What is shown of the takeover.
pub(crate) type Shown = Arc<Mutex<BTreeMap<ServiceName, Standing>>>;

/// Keeps this replica's slices.
pub(crate) struct Takeover {
    client: kube::Client,
    identity: Identity,
    views: Views,
    behind: Behind,
    targets: Arc<KubeTargets>,
    doors: Doors,
    shown: Shown,
    /// What this replica has last written, by the slice's namespace and name.
    written: HashMap<Slice, Written>,
    /// Slices that are being written.
    busy: HashSet<Slice>,
    writes: JoinSet<(Slice, Result<Option<Wanted>, String>)>,
    has_failed: bool,
    /// Whether this replica's own pod has been seen.
    is_pod: bool,
    /// The reference to what owns the slices, where it is not each one's Service.
    owner: Option<Value>,
}

type Slice = (String, String);

struct Written {
    at: Instant,
    /// `None`: it was removed.
    what: Option<Wanted>,
}

impl Takeover {
    /// A takeover that has not begun; its listeners are opened on `listen`.
    pub(crate) fn new(
        client: kube::Client,
        identity: Identity,
        (views, behind): (Views, Behind),
        targets: Arc<KubeTargets>,
        (open, listen, range): (Ports, IpAddr, RangeInclusive<u16>),
    ) -> Self {
        Self {
            client,
            identity,
            views,
            behind,
            targets,
            doors: Doors::new(open, listen, range),
            shown: Shown::default(),
            written: HashMap::new(),
            busy: HashSet::new(),
            writes: JoinSet::new(),
            has_failed: false,
            is_pod: false,
            owner: None,
        }
    }

    /// What is shown of it.
    pub(crate) fn shown(&self) -> Shown {
        Arc::clone(&self.shown)
    }

    /// Keeps the slices until `withdraw`, then removes them, and returns with the ports still open: they close when
    /// what is returned is dropped.
    pub(crate) async fn keep(mut self, withdraw: CancellationToken) -> Doors {
        self.remember();
        self.owner = withdraw.run_until_cancelled(self.find_owner()).await.flatten();
        let mut targets = self.targets.revisions();
        let mut services = self.behind.services.revisions();
        let mut slices = self.behind.slices.revisions();
        let mut replicas = self.behind.replicas.revisions();
        let mut deadline = None;
        loop {
            targets.borrow_and_update();
            services.borrow_and_update();
            slices.borrow_and_update();
            replicas.borrow_and_update();
            let is_withdrawing = withdraw.is_cancelled();
            self.look(is_withdrawing).await;
            if is_withdrawing {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + WITHDRAW);
                if self.writes.is_empty() && !self.has_slices() || Instant::now() >= deadline {
                    return self.doors;
                }
            }
            // Each branch is cancel safe: what is not seen now is seen in the next round.
            tokio::select! {
                () = withdraw.cancelled(), if !is_withdrawing => {}
                Ok(()) = targets.changed() => {}
                Ok(()) = services.changed() => {}
                Ok(()) = slices.changed() => {}
                Ok(()) = replicas.changed() => {}
                Some(done) = self.writes.join_next() => self.done(done),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Takes the ports of slices that this replica wrote before it was restarted: calls still come on them.
    fn remember(&mut self) {
        let own = slice::replica(&self.identity.pod);
        for there in self.behind.slices.filtered(is_ours) {
            let (Some(namespace), Some(service)) = (
                there.metadata.namespace.clone(),
                plan::label(&there, plan::SERVICE_LABEL),
            ) else {
                continue;
            };
            if slice::replica_of(&there, &self.identity) == Some(&own) {
                let service = ServiceName {
                    namespace,
                    name: service.to_owned(),
                };
                for (port, number) in slice::numbers(&there) {
                    self.doors.prefer(&service, &port, number);
                }
            }
        }
    }

    /// The reference to the role that is to own the slices.
    async fn find_owner(&self) -> Option<Value> {
        let owner = self.identity.slice_owner.as_ref()?;
        loop {
            let found = match owner {
                SliceOwner::ClusterRole(name) => {
                    let api: Api<ClusterRole> = Api::all(self.client.clone());
                    api.get_metadata(name).await.map(|role| role.metadata)
                }
                SliceOwner::Role { namespace, name } => {
                    let api: Api<Role> = Api::namespaced(self.client.clone(), namespace);
                    api.get_metadata(name).await.map(|role| role.metadata)
                }
            };
            let error = match found {
                Ok(metadata) => return Some(slice::owner(owner, &metadata.uid?)),
                Err(error) => error,
            };
            let cause = k8s::sentence(&error);
            if matches!(error, kube::Error::Api(_)) {
                tracing::warn!(
                    cause,
                    "slices go with their Services, for the role that is to own them cannot be read"
                );
                return None;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One look: opens the ports that are needed, and begins the writes that make the slices right.
    async fn look(&mut self, is_withdrawing: bool) {
        let services = self.behind.services.all();
        let slices = self.behind.slices.all();
        let pods = &self.views.pods;
        let found = candidates(&services, &slices, &self.targets.known(), |namespace, name| {
            pods.get(namespace, name)
        });
        let own_pod = self
            .behind
            .replicas
            .get(&self.identity.namespace, &self.identity.pod);
        self.is_pod |= own_pod.is_some();
        // Outside of the cluster there is no pod, and nobody else to say that we are not ready.
        let is_ready = own_pod.as_ref().map_or(!self.is_pod, |pod| pods::is_ready(pod));
        let may_stand = is_ready && !is_withdrawing;
        let node = own_pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());

        let mut there: HashMap<Slice, Arc<EndpointSlice>> = HashMap::new();
        let mut foreign = Vec::new();
        let own = slice::replica(&self.identity.pod);
        for slice in slices.into_iter().filter(|slice| is_ours(slice)) {
            let key = key(&slice);
            match slice::replica_of(&slice, &self.identity) {
                Some(replica) if replica == own => {
                    there.insert(key, slice);
                }
                Some(replica) if !is_withdrawing && self.is_gone(replica) => foreign.push(key),
                _ => {}
            }
        }
        let mut shown = BTreeMap::new();
        let mut right = HashSet::new();
        for (service, candidate) in found {
            let slice = (service.namespace.clone(), slice::name(&service, &self.identity));
            right.insert(slice.clone());
            let ports = if is_withdrawing {
                self.doors.of(&service, &candidate)
            } else {
                self.doors.open(&service, &candidate).await
            };
            let Some(ports) = ports else { continue };
            let wanted = Wanted {
                ports,
                node: node.clone(),
            };
            let is_there = self.says(&slice, there.get(&slice).map(AsRef::as_ref), &wanted);
            shown.insert(
                service.clone(),
                Standing {
                    stands: is_there == Some(true),
                    ports: wanted.ports.iter().map(|port| port.number).collect(),
                    candidate: candidate.clone(),
                },
            );
            if candidate.is_needed && may_stand {
                if is_there != Some(true) {
                    self.write(slice, &service, &candidate, wanted);
                }
            } else if is_there.is_some() {
                self.remove(slice);
            }
        }
        let stale: Vec<Slice> = there
            .into_keys()
            .filter(|slice| !right.contains(slice))
            .filter(|slice| !self.was_removed(slice))
            .collect();
        for slice in stale.into_iter().chain(foreign) {
            self.remove(slice);
        }
        telemetry::stands_in_for(shown.values().filter(|standing| standing.stands).count());
        let live: HashSet<ServiceName> = shown.keys().cloned().collect();
        self.doors.close_others(&live);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// Whether our slice says what is wanted; `None` when there is none. What we wrote a moment ago counts for more
    /// than the view, which may not show it yet.
    fn says(&self, slice: &Slice, there: Option<&EndpointSlice>, wanted: &Wanted) -> Option<bool> {
        match self.written.get(slice) {
            Some(written) if written.at.elapsed() < VIEW_LAG => {
                written.what.as_ref().map(|written| written == wanted)
            }
            _ => there.map(|there| slice::says(there, wanted, &self.identity)),
        }
    }

    fn was_removed(&self, slice: &Slice) -> bool {
        self.written
            .get(slice)
            .is_some_and(|written| written.what.is_none() && written.at.elapsed() < VIEW_LAG)
    }

    /// Whether any slice of ours is behind a Service.
    fn has_slices(&self) -> bool {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.values().any(|standing| standing.stands)
    }

    /// Whether a replica's pod is gone, has ended, or is not ready: then calls must not be led to it.
    fn is_gone(&self, replica: &str) -> bool {
        !self.behind.replicas.all().iter().any(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            slice::replica(name) == replica && pods::is_ready(pod) && !pods::has_ended(pod)
        })
    }

    fn write(&mut self, slice: Slice, service: &ServiceName, candidate: &Candidate, wanted: Wanted) {
        if !self.busy.insert(slice.clone()) {
            return;
        }
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &slice.0);
        let object = slice::object(service, candidate, &wanted, &self.identity, self.owner.as_ref());
        self.writes.spawn(async move {
            let by_us = PatchParams::apply(FIELD_MANAGER).force();
            let applied = api.patch(&slice.1, &by_us, &Patch::Apply(object)).await;
            let result = match applied {
                Ok(_) => Ok(Some(wanted)),
                Err(error) => Err(failed(&error).await),
            };
            (slice, result)
        });
    }

    fn remove(&mut self, slice: Slice) {
        if !self.busy.insert(slice.clone()) {
            return;
        }
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &slice.0);
        self.writes.spawn(async move {
            let result = match api.delete(&slice.1, &DeleteParams::default()).await {
                Ok(_) => Ok(None),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(failed(&error).await),
            };
            (slice, result)
        });
    }

    fn done(&mut self, done: Result<(Slice, Result<Option<Wanted>, String>), tokio::task::JoinError>) {
        let Ok((slice, result)) = done else { return };
        self.busy.remove(&slice);
        match result {
            Ok(what) => {
                if std::mem::take(&mut self.has_failed) {
                    telemetry::slices_recovered();
                }
                telemetry::slice_written(&slice.0, &slice.1, what.is_some());
                let at = Instant::now();
                self.written.retain(|_, written| written.at.elapsed() < VIEW_LAG);
                self.written.insert(slice, Written { at, what });
            }
            Err(cause) => {
                let is_first = !std::mem::replace(&mut self.has_failed, true);
                telemetry::slice_failed(&cause, is_first);
            }
        }
    }
}

fn key(slice: &EndpointSlice) -> Slice {
    let metadata = &slice.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// What went wrong, told only when it may be tried again.
async fn failed(error: &kube::Error) -> String {
    tokio::time::sleep(RETRY).await;
    k8s::sentence(error)
}

impl std::fmt::Debug for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Takeover")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
