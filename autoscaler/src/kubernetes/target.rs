//! A Deployment or a StatefulSet with its pods and their sidecars, as something that is scaled.
//!
//! A `ReplicaSet` chooses itself which pods go: of those that are placed and running first the ones that are not
//! ready, then those with a low deletion cost. So a pod is marked, by which the activator knows as well, and told to
//! drain, its sidecar's readiness probe fails from then on, and only when it is known to be not ready the count is
//! lowered (<https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset>).

use super::api::{Scaled, Writer};
use super::http::Http;
use super::key::DrainKey;
use super::observe::{self, Seen, Status};
use super::views::Views;
use super::workload::{Key, Kind, Workload};
use crate::target::{Fleet, ReplicaId, ScaleTarget, TargetError};
use contract::pods::{DELETION_COST, DRAINED_COST};
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use token::Action;
use tokio::time::Instant;

/// Sidecars that are asked or told at the same time.
const AT_ONCE: usize = 64;

/// What all targets use.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) views: Views,
    pub(super) writer: Writer,
    pub(super) http: Http,
    pub(super) key: DrainKey,
}

/// One workload.
pub(super) struct KubeTarget {
    pub(super) key: Key,
    /// Another workload of the same name is none of ours.
    pub(super) uid: String,
    pub(super) means: Arc<Means>,
    /// Replicas without anything that could be told to drain, and that are to go.
    pub(super) aside: Mutex<HashSet<String>>,
    /// The last change of the count, until somebody tells it.
    pub(super) change: Arc<Mutex<Option<(u32, u32)>>>,
}

impl KubeTarget {
    fn workload(&self) -> Result<Workload, TargetError> {
        if let Some(sentence) = self.means.views.staleness() {
            return Err(error(sentence));
        }
        let found = self.means.views.workload(&self.key);
        found
            .filter(|workload| workload.uid == self.uid && !workload.is_ending)
            .ok_or_else(|| {
                error(format!(
                    "there is no {} {} any more",
                    self.key.kind.as_str(),
                    self.key.path()
                ))
            })
    }

    fn pods(&self, workload: &Workload) -> Vec<Arc<Pod>> {
        let mut pods = self.means.views.pods_of(workload);
        pods.retain(|pod| observe::is_alive(pod));
        pods
    }

    fn aside(&self) -> MutexGuard<'_, HashSet<String>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn status(&self, address: SocketAddr) -> Option<Status> {
        let answer = self
            .means
            .http
            .send(Method::GET, address, "/status", None)
            .await
            .ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    async fn seen(&self, pod: &Pod) -> Seen {
        let status = match observe::sidecar(pod) {
            Some(address) => self.status(address).await,
            None => None,
        };
        Seen::of(pod, status)
    }

    /// Tells a pod's sidecar to drain or to resume.
    async fn tell(&self, pod: &Pod, action: Action) -> Result<(), String> {
        let name = observe::name(pod);
        let path = match action {
            Action::Drain => "/drain",
            Action::Resume => "/resume",
        };
        let address =
            observe::sidecar(pod).ok_or_else(|| format!("pod {name} has no sidecar that could be told"))?;
        if !self.means.writer.leadership.is_held() {
            return Err("this autoscaler does not lead any more: the one that does goes on".to_owned());
        }
        let token = self.means.key.sign(&self.key.namespace, name, action)?;
        let answer = self
            .means
            .http
            .send(Method::POST, address, path, Some(&token))
            .await;
        let answer = answer.map_err(|why| format!("the sidecar of pod {name} at {why}"))?;
        if answer.status.is_success() {
            return Ok(());
        }
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.means.key.mistrust();
        }
        let said = String::from_utf8_lossy(&answer.body);
        let said: String = said.trim().chars().take(200).collect();
        Err(format!(
            "the sidecar of pod {name} answers {path} with {}: {said}",
            answer.status.as_u16()
        ))
    }

    async fn drain_one(&self, pod: &Pod) -> Result<(), String> {
        let name = observe::name(pod);
        let is_marked = pod
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(DELETION_COST));
        if !is_marked {
            self.mark(name, Some(DRAINED_COST)).await?;
        }
        match self.tell(pod, Action::Drain).await {
            // Nothing runs there: it has no work, and a ReplicaSet ends it before any that does.
            Err(_) if !observe::is_running(pod) => {
                self.aside().insert(name.to_owned());
                Ok(())
            }
            told => told,
        }
    }

    async fn resume_one(&self, pod: &Pod) -> Result<(), String> {
        let name = observe::name(pod);
        if !self.aside().remove(name) || observe::is_running(pod) {
            self.tell(pod, Action::Resume).await?;
        }
        self.mark(name, None).await
    }

    async fn mark(&self, pod: &str, cost: Option<&str>) -> Result<(), String> {
        let annotations = json!({DELETION_COST: cost});
        let marked = self
            .means
            .writer
            .annotate_pod(&self.key.namespace, pod, &annotations)
            .await;
        marked.map_err(|error| error.reason)
    }

    /// Does it to each of these replicas that has a pod, several at a time.
    async fn each<'a, F>(
        &'a self,
        replicas: &[ReplicaId],
        act: impl Fn(&'a Self, Arc<Pod>) -> F,
    ) -> Result<(), TargetError>
    where
        F: Future<Output = Result<(), String>> + 'a,
    {
        let mut pods = self.pods(&self.workload()?);
        pods.retain(|pod| replicas.iter().any(|id| id.0 == observe::name(pod)));
        let mut acting = stream::iter(pods)
            .map(|pod| act(self, pod))
            .buffer_unordered(AT_ONCE);
        let mut outcome = Ok(());
        while let Some(done) = acting.next().await {
            if let Err(why) = done {
                outcome = Err(error(why));
            }
        }
        outcome
    }

    /// Whether a replica may go now, by what is known at this moment and not by a view; one that is gone may not go
    /// again.
    async fn may_go(&self, name: &str, others_stay: bool) -> Result<bool, TargetError> {
        let Some(pod) = self.means.writer.pod(&self.key.namespace, name).await? else {
            return Ok(false);
        };
        if !observe::is_alive(&pod) {
            return Ok(false);
        }
        if self.aside().contains(name) {
            if observe::is_running(&pod) {
                self.aside().remove(name);
                return Err(error(format!("pod {name} was started meanwhile")));
            }
            return Ok(true);
        }
        if others_stay && self.key.kind == Kind::Deployment && observe::is_ready(&pod) {
            return Err(error(format!(
                "pod {name} is still ready, so that another might go in its place"
            )));
        }
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let address = address.and_then(|address| address.parse().ok());
        let address = address.map(|ip| SocketAddr::new(ip, contract::pods::SIDECAR_ADMIN_PORT));
        let status = match address {
            Some(address) => self.status(address).await,
            None => None,
        };
        match status {
            Some(status) if status.is_finished() => Ok(true),
            Some(_) => Err(error(format!("pod {name} has not drained yet"))),
            None => Err(error(format!(
                "the sidecar of pod {name} does not tell whether it has drained"
            ))),
        }
    }

    /// Those of `victims` that a `StatefulSet` would end, and those in whose place it would end others.
    fn highest<'a>(alive: &[Arc<Pod>], victims: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
        let mut names: Vec<&str> = alive.iter().map(|pod| observe::name(pod)).collect();
        names.sort_by_key(|name| std::cmp::Reverse(observe::ordinal(name)));
        let top: HashSet<&str> = names
            .into_iter()
            .take_while(|name| victims.contains(name))
            .collect();
        victims.iter().partition(|name| top.contains(**name))
    }
}

impl ScaleTarget for KubeTarget {
    async fn observe(&self) -> Result<Fleet, TargetError> {
        let workload = self.workload()?;
        let pods = self.pods(&workload);
        let asked = stream::iter(pods).map(|pod| async move { self.seen(&pod).await });
        let seen: Vec<Seen> = asked.buffer_unordered(AT_ONCE).collect().await;
        Ok(observe::fleet(
            &workload,
            &seen,
            &self.aside(),
            Instant::now().into_std(),
        ))
    }

    async fn scale_up(&self, replicas: u32) -> Result<(), TargetError> {
        let scaled = self
            .means
            .writer
            .scale(&self.key, |now| Some(now.max(replicas)))
            .await?;
        self.tell_change(scaled);
        Ok(())
    }

    async fn drain(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        self.aside().extend(absent(replicas));
        self.each(
            replicas,
            |target, pod| async move { target.drain_one(&pod).await },
        )
        .await
    }

    async fn resume(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        for id in absent(replicas) {
            self.aside().remove(&id);
        }
        self.each(
            replicas,
            |target, pod| async move { target.resume_one(&pod).await },
        )
        .await
    }

    async fn remove(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        let workload = self.workload()?;
        if workload.is_rolling {
            return Err(error("a rollout is under way".to_owned()));
        }
        let alive = self.pods(&workload);
        let missing = (workload.replicas as usize).saturating_sub(alive.len());
        let absent = absent(replicas).count().min(missing);
        let named = |id: &&ReplicaId| alive.iter().any(|pod| observe::name(pod) == id.0);
        let mut victims: Vec<&str> = replicas.iter().filter(named).map(|id| id.0.as_str()).collect();
        if self.key.kind == Kind::StatefulSet {
            // Replicas without a pod are the highest.
            let wanted: &[&str] = if absent == missing { &victims } else { &[] };
            let (highest, others) = Self::highest(&alive, wanted);
            let others: Vec<ReplicaId> = others.iter().map(|name| ReplicaId((*name).to_owned())).collect();
            if !others.is_empty() {
                self.resume(&others).await?;
            }
            victims = highest;
        }
        let others_stay = alive.len() > victims.len();
        let mut going = absent;
        for name in &victims {
            going += usize::from(self.may_go(name, others_stay).await?);
        }
        let (going, alive) = (count(going), count(alive.len()));
        // While a view is behind, pods that are gone are counted still, and the count is as low as it should be.
        let lower = |now: u32| Some(now.max(alive).saturating_sub(going).min(now));
        let scaled = self.means.writer.scale(&self.key, lower).await?;
        self.aside()
            .retain(|id| !replicas.iter().any(|gone| gone.0 == *id));
        self.tell_change(scaled);
        Ok(())
    }
}

impl KubeTarget {
    fn tell_change(&self, scaled: Scaled) {
        if let Scaled::Changed { from, to } = scaled {
            *self.change.lock().unwrap_or_else(PoisonError::into_inner) = Some((from, to));
        }
    }
}

fn absent(replicas: &[ReplicaId]) -> impl Iterator<Item = String> {
    let absent = replicas.iter().filter(|id| id.0.starts_with(observe::MISSING));
    absent.map(|id| id.0.clone())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn error(reason: String) -> TargetError {
    TargetError { reason }
}
