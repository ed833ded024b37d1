//! Inside of a cluster: certificates that all replicas share, the API server's trust in them, and the key that
//! sidecars check permissions to drain with. Nothing of this is in the way of a review: while the API server is away,
//! reviews are answered with what is there.

mod certificates;
mod drain_key;
mod material;

pub use material::Times;

pub(super) use certificates::CertificateKeeper;
pub(super) use drain_key::DrainKeyKeeper;

use crate::telemetry;
use std::time::Duration;
use tokio::sync::Notify;

/// Who writes, for the API server.
const FIELD_MANAGER: &str = "kubedaemon-injector";

/// How often the cluster is looked at when nothing tells that it has changed.
const EVERY: Duration = Duration::from_secs(5);
/// How soon it is looked at again while something is about to happen, or after a failure.
const SOON: Duration = Duration::from_secs(1);
/// How soon after a change, or after another replica was faster: several come at once.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Certificates in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCertificates {
    /// The Service under which the API server calls us, in our own namespace.
    pub service: String,
    /// The `MutatingWebhookConfiguration` whose `caBundle` is kept.
    pub webhook: String,
    /// The Secret, in our own namespace, that replicas share.
    pub secret: String,
    /// Further DNS names and addresses that the certificate is for.
    pub names: Vec<String>,
    /// How long things live.
    pub times: Times,
}

impl ClusterCertificates {
    /// Every name that the certificate is for.
    fn names(&self, namespace: &str) -> Vec<String> {
        let service = format!("{}.{namespace}.svc", self.service);
        let mut names = vec![format!("{service}.cluster.local"), service];
        names.extend(self.names.iter().cloned());
        names
    }
}

/// Why a look at the cluster ended early.
#[derive(Debug)]
enum Interruption {
    /// Another replica, or somebody else, was faster.
    Overtaken,
    /// One sentence.
    Failed(String),
}

impl From<kube::Error> for Interruption {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Overtaken,
            _ => Self::Failed(k8s::sentence(&error)),
        }
    }
}

impl From<String> for Interruption {
    fn from(sentence: String) -> Self {
        Self::Failed(sentence)
    }
}

/// Something that is kept as it should be by looking at it again and again.
trait Keeper {
    /// What it is, in logs and metrics.
    const PART: &'static str;

    /// Looks once and does what has to be done; returns how soon to look again. Cancelled only when the process ends.
    async fn look(&mut self) -> Result<Duration, Interruption>;
}

/// Looks for ever; at once when `changed` says so.
async fn keep(mut keeper: impl Keeper, changed: &Notify) {
    let mut told: Option<String> = None;
    loop {
        let pause = match keeper.look().await {
            Ok(pause) => {
                if told.take().is_some() {
                    telemetry::cluster_recovered(part_of(&keeper));
                }
                pause
            }
            Err(Interruption::Overtaken) => AT_ONCE,
            Err(Interruption::Failed(sentence)) => {
                let is_new = told.as_ref() != Some(&sentence);
                telemetry::cluster_failed(part_of(&keeper), &sentence, is_new);
                told = Some(sentence);
                SOON
            }
        };
        // Both are cancel safe: a notice that nobody waits for is kept.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed.notified() => tokio::time::sleep(AT_ONCE).await,
        }
    }
}

fn part_of<K: Keeper>(_: &K) -> &'static str {
    K::PART
}
