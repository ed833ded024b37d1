//! The Secret with the certificate, and the `caBundle` of the webhook configuration.
//!
//! Every replica does all of this; whoever is first wins, the others find it done. The Secret is only written with
//! the version that was read, so that of two replicas that make a certificate one is refused and takes the other's.

use super::super::Shared;
use super::super::tls::Usable;
use super::material::{Material, Step};
use super::{ClusterCertificates, FIELD_MANAGER, Interruption, Keeper, SOON, keep};
use crate::telemetry;
use futures_util::StreamExt;
use k8s::Clients;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Keeps certificate and trust.
pub(in crate::server) struct CertificateKeeper {
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
    wanted: ClusterCertificates,
    names: Vec<String>,
    shared: Arc<Shared>,
    in_use: Option<Material>,
    /// The bundle that callers trust, and since when.
    in_place: Option<(String, Instant)>,
}

impl CertificateKeeper {
    pub(in crate::server) fn new(
        clients: &Clients,
        namespace: &str,
        wanted: ClusterCertificates,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(clients.requests.clone(), namespace),
            webhooks: Api::all(clients.requests.clone()),
            names: wanted.names(namespace),
            wanted,
            shared,
            in_use: None,
            in_place: None,
        }
    }

    /// Never returns. Cancel safe.
    pub(in crate::server) async fn run(self, clients: Clients, namespace: String) {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        let secrets = Api::<Secret>::namespaced(clients.watches.clone(), &namespace);
        watches.spawn(watch(secrets, self.wanted.secret.clone(), Arc::clone(&changed)));
        let webhooks = Api::<MutatingWebhookConfiguration>::all(clients.watches);
        watches.spawn(watch(webhooks, self.wanted.webhook.clone(), Arc::clone(&changed)));
        keep(self, &changed).await;
    }

    /// The version of the Secret that was read, and what is in it.
    async fn stored(&mut self) -> Result<(Option<String>, Material), Interruption> {
        let Some(secret) = self.secrets.get_opt(&self.wanted.secret).await? else {
            let material = self.replacement()?;
            self.create(&material).await?;
            telemetry::cluster_changed(Self::PART, "secret_made");
            return Ok((None, material));
        };
        let version = secret.metadata.resource_version;
        let data = secret.data.unwrap_or_default();
        let read = Material::read(|name| data.get(name).map(|bytes| bytes.0.as_slice()))
            .and_then(|material| usable(&material).map(|_| material));
        match read {
            Ok(material) => Ok((version, material)),
            Err(sentence) => {
                telemetry::secret_unusable(&self.wanted.secret, &sentence);
                let material = self.replacement()?;
                self.write(&material, version).await?;
                telemetry::cluster_changed(Self::PART, "secret_replaced");
                Ok((None, material))
            }
        }
    }

    /// What is stored when there is nothing that can be used: a new authority. The certificate in use stays until
    /// callers trust it, as whenever there is a new one: who wants new keys can delete the Secret.
    fn replacement(&self) -> Result<Material, String> {
        let now = ops::clock::since_epoch();
        match &self.in_use {
            Some(material) => material.after(Step::NewAuthority, &self.names, &self.wanted.times, now),
            None => Material::new(&self.names, &self.wanted.times, now),
        }
    }

    async fn create(&self, material: &Material) -> Result<(), Interruption> {
        let data = material
            .entries()
            .into_iter()
            .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.wanted.secret.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data.collect()),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        };
        let by = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.secrets.create(&by, &secret).await?;
        Ok(())
    }

    async fn write(&self, material: &Material, version: Option<String>) -> Result<(), Interruption> {
        let patch = json!({
            "metadata": {"resourceVersion": version},
            "stringData": material.entries(),
        });
        let by = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.secrets
            .patch(&self.wanted.secret, &by, &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Takes what is stored into use.
    fn take(&mut self, material: &Material) -> Result<(), String> {
        let is_known = |in_use: &Material| in_use.pair == material.pair;
        if !self.in_use.as_ref().is_some_and(is_known) {
            let usable = usable(material)?;
            telemetry::certificate_loaded(usable.expiry);
            self.shared.certificates.replace(usable);
        }
        self.in_use = Some(material.clone());
        self.shared.progress.send_if_modified(|progress| {
            let is_new = !progress.certificate;
            progress.certificate = true;
            is_new
        });
        Ok(())
    }

    /// Sees to it that callers trust every authority.
    async fn put(
        &mut self,
        webhook: Option<MutatingWebhookConfiguration>,
        bundle: String,
    ) -> Result<(), Interruption> {
        let Some(webhook) = webhook else {
            self.in_place = None;
            return Err(Interruption::Failed(format!(
                "there is no MutatingWebhookConfiguration {}: make it, or name another one with --webhook",
                self.wanted.webhook
            )));
        };
        let other: Vec<String> = webhook
            .webhooks
            .unwrap_or_default()
            .into_iter()
            .filter(|hook| {
                hook.client_config
                    .ca_bundle
                    .as_ref()
                    .is_none_or(|there| there.0 != bundle.as_bytes())
            })
            .map(|hook| hook.name)
            .collect();
        if !other.is_empty() {
            self.in_place = None;
            let encoded = ByteString(bundle.clone().into_bytes());
            let hooks: Vec<_> = other
                .iter()
                .map(|name| json!({"name": name, "clientConfig": {"caBundle": encoded}}))
                .collect();
            // With the version that was read before the Secret was: whoever is slow does not put what is outdated.
            let patch = json!({
                "metadata": {"resourceVersion": webhook.metadata.resource_version},
                "webhooks": hooks,
            });
            let by = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            self.webhooks
                .patch(&self.wanted.webhook, &by, &Patch::Strategic(patch))
                .await?;
            telemetry::cluster_changed(Self::PART, "bundle_put");
        }
        if self.in_place.as_ref().is_none_or(|(there, _)| *there != bundle) {
            self.in_place = Some((bundle, Instant::now()));
        }
        self.shared.progress.send_if_modified(|progress| {
            let is_new = !progress.bundle;
            progress.bundle = true;
            is_new
        });
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.in_place
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() >= self.wanted.times.settle)
    }
}

impl Keeper for CertificateKeeper {
    const PART: &'static str = "certificates";

    async fn look(&mut self) -> Result<Duration, Interruption> {
        // In this order, see `put`.
        let webhook = self.webhooks.get_opt(&self.wanted.webhook).await;
        let (version, material) = self.stored().await?;
        self.take(&material)?;
        self.put(webhook?, material.bundle()).await?;
        let now = ops::clock::since_epoch();
        let step = |is_settled| material.step(&self.names, &self.wanted.times, now, is_settled);
        match (step(self.is_settled()), version) {
            (Some(step), Some(version)) => {
                let next = material.after(step, &self.names, &self.wanted.times, now)?;
                self.write(&next, Some(version)).await?;
                telemetry::cluster_changed(Self::PART, step.as_str());
                Ok(super::AT_ONCE)
            }
            // Something waits for callers to have learned of the bundle, or the version just written is not known.
            (None, _) if step(true).is_some() => Ok(SOON),
            (Some(_), None) => Ok(SOON),
            (None, _) => Ok(self.wanted.times.every),
        }
    }
}

fn usable(material: &Material) -> Result<Usable, String> {
    Usable::read(material.pair.certificate.as_bytes(), material.pair.key.as_bytes())
}

/// Says whenever the object has changed. Without it changes are seen at the next look: it may fail as it likes.
async fn watch<K>(api: Api<K>, name: String, changed: Arc<Notify>)
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, one).default_backoff().boxed();
    while let Some(event) = events.next().await {
        if event.is_ok() {
            changed.notify_one();
        }
    }
}
