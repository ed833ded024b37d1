//! Who acts: the one autoscaler that holds the Lease.
//!
//! Clocks of different machines are never compared. Whoever stands by looks at the Lease again and again; only when
//! it has seen no renewal for the Lease's whole duration by its own clock does it take over, with the resource version
//! that it saw, so that of several only one succeeds. Whoever leads gives up a second earlier, counted from before it
//! asked for its last renewal, and does not write any more.
//!
//! Source: <https://kubernetes.io/docs/concepts/architecture/leases/#leader-election>.

use super::FIELD_MANAGER;
use super::telemetry::{self, Request};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// The Lease's name.
pub(super) const NAME: &str = "kubedaemon-autoscaler";
/// How long a Lease lasts without a renewal.
const DURATION: Duration = Duration::from_secs(4);
/// After how long without a renewal the leader stops to act: before anybody else may begin.
const GIVE_UP: Duration = Duration::from_secs(3);
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(1);
/// Between two looks of those who stand by, and between two tries to renew.
const RETRY: Duration = Duration::from_millis(300);
/// The longest that one request may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Until when nobody else can hold the Lease, if we lead. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Whether nobody else can hold the Lease now.
    pub(super) fn is_held(&self) -> bool {
        self.remaining() > Duration::ZERO
    }

    /// For how long from now nobody else can hold the Lease.
    pub(super) fn remaining(&self) -> Duration {
        let until = *self.0.borrow();
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Waits for the next renewal, gain or loss. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Takes part in the election.
pub(super) struct Election {
    leases: Api<Lease>,
    identity: String,
    held: watch::Sender<Option<Instant>>,
    seen: Option<Seen>,
}

/// The Lease of somebody else, as it was last seen.
struct Seen {
    version: String,
    holder: String,
    /// When this version was first seen.
    since: Instant,
    lasts: Duration,
}

impl Election {
    pub(super) fn new(client: kube::Client, namespace: &str, identity: String) -> (Self, Leadership) {
        let (held, leadership) = watch::channel(None);
        let election = Self {
            leases: Api::namespaced(client, namespace),
            identity,
            held,
            seen: None,
        };
        (election, Leadership(leadership))
    }

    /// Stands by and leads in turns until `stop`, then gives the Lease back if it is held.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let due = match self.stand_by().await {
                Ok(version) => {
                    self.lead(version, &stop).await;
                    Instant::now()
                }
                Err(due) => due,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// One look at the Lease: the version that we hold now, or when to look again.
    async fn stand_by(&mut self) -> Result<String, Instant> {
        let now = Instant::now();
        let again = now + RETRY;
        let seen = match self.ask(now, self.leases.get_opt(NAME)).await {
            Ok(seen) => seen,
            Err(_told) => return Err(again),
        };
        let Some(lease) = seen else {
            return self.create().await.ok_or(again);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            if !holder.is_empty()
                && holder != self.identity
                && self.seen.as_ref().is_none_or(|seen| seen.holder != holder)
            {
                telemetry::follows(&holder);
            }
            let seconds = spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok());
            self.seen = Some(Seen {
                version: version.clone(),
                holder: holder.clone(),
                since: now,
                lasts: seconds.map_or(DURATION, Duration::from_secs),
            });
        }
        let ends = self.seen.as_ref().map_or(now, |seen| seen.since + seen.lasts);
        // Our own is one that could not be renewed in time, and that nobody took.
        let is_free = holder.is_empty() || holder == self.identity;
        if !is_free && Instant::now() < ends {
            return Err(ends.min(again));
        }
        let transitions = spec.lease_transitions.unwrap_or_default().saturating_add(1);
        self.take(&version, transitions).await.ok_or(again)
    }

    async fn create(&self) -> Option<String> {
        let began = Instant::now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME},
            "spec": self.spec(Some(0)),
        });
        let lease: Lease = serde_json::from_value(lease).ok()?;
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let created = self
            .ask(began, self.leases.create(&parameters, &lease))
            .await
            .ok()?;
        self.hold(began);
        created.metadata.resource_version
    }

    async fn take(&self, version: &str, transitions: i32) -> Option<String> {
        let began = Instant::now();
        let taken = self
            .write(began, version, self.spec(Some(transitions)))
            .await
            .ok()?;
        self.hold(began);
        taken.metadata.resource_version
    }

    /// Renews until the Lease is lost or `stop`; then gives it back.
    async fn lead(&mut self, mut version: String, stop: &CancellationToken) {
        telemetry::leading(&self.identity);
        let mut renewed = Instant::now();
        let mut due = renewed + RENEW;
        let why = loop {
            let ends = (*self.held.borrow()).unwrap_or(renewed);
            tokio::select! {
                () = stop.cancelled() => {
                    self.release(&version).await;
                    return;
                }
                () = sleep_until(due.min(ends)) => {}
            }
            let began = Instant::now();
            if began >= ends {
                break "it could not be renewed in time".to_owned();
            }
            match self.renew(began, &version).await {
                Ok(Renewed::Until(next)) => {
                    version = next;
                    renewed = began;
                    due = began + RENEW;
                    self.hold(began);
                }
                Ok(Renewed::Lost(holder)) => break format!("{holder} holds the Lease"),
                Err(_told) => due = Instant::now() + RETRY,
            }
        };
        self.held.send_replace(None);
        self.seen = None;
        telemetry::led_no_more(&self.identity, &why);
    }

    /// The Lease was asked for at `began`, and it is ours.
    fn hold(&self, began: Instant) {
        self.held.send_replace(Some(began + GIVE_UP));
    }

    async fn renew(&self, began: Instant, version: &str) -> Result<Renewed, ()> {
        let version_of = |lease: Lease| Renewed::Until(lease.metadata.resource_version.unwrap_or_default());
        match self.write(began, version, self.spec(None)).await {
            Ok(lease) => return Ok(version_of(lease)),
            Err(Refused::Conflict) => {}
            Err(Refused::Other) => return Err(()),
        }
        // Somebody took it, or only put a label on it.
        let lease = self
            .ask(began, self.leases.get_opt(NAME))
            .await
            .map_err(|_told| ())?;
        let Some(lease) = lease else {
            return Ok(Renewed::Lost("nobody".to_owned()));
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let holder = holder.unwrap_or_default();
        if holder != self.identity {
            return Ok(Renewed::Lost(holder));
        }
        let version = lease.metadata.resource_version.unwrap_or_default();
        self.write(began, &version, self.spec(None))
            .await
            .map(version_of)
            .map_err(|_told| ())
    }

    /// Lets another take the Lease at once.
    async fn release(&self, version: &str) {
        self.held.send_replace(None);
        let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1});
        // One that cannot be given back ends by itself.
        if self.write(Instant::now(), version, spec).await.is_ok() {
            telemetry::released(&self.identity);
        }
    }

    fn spec(&self, transitions: Option<i32>) -> Value {
        let now = serde_json::to_value(MicroTime(super::timestamp())).unwrap_or_default();
        let mut spec = json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION.as_secs(),
            "renewTime": now,
        });
        if let Some(transitions) = transitions {
            spec["leaseTransitions"] = transitions.into();
            spec["acquireTime"] = now;
        }
        spec
    }

    async fn write(&self, began: Instant, version: &str, spec: Value) -> Result<Lease, Refused> {
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(&patch);
        self.ask(began, self.leases.patch(NAME, &parameters, &patch))
            .await
    }

    async fn ask<A>(
        &self,
        began: Instant,
        answer: impl Future<Output = Result<A, kube::Error>>,
    ) -> Result<A, Refused> {
        match timeout_at(began + PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                telemetry::api_error(Request::Lease, &error);
                match error {
                    kube::Error::Api(status) if matches!(status.code, 404 | 409) => Err(Refused::Conflict),
                    _ => Err(Refused::Other),
                }
            }
            Err(_elapsed) => Err(Refused::Other),
        }
    }
}

enum Renewed {
    /// We hold it still, at this version.
    Until(String),
    /// This one holds it.
    Lost(String),
}

enum Refused {
    /// The Lease is not what it was.
    Conflict,
    Other,
}
