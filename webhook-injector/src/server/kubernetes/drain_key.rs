//! The key pair for permissions to drain: made once, by whichever replica is first. The public key goes into pods.

use super::super::Shared;
use super::{EVERY, FIELD_MANAGER, Interruption, Keeper, keep};
use crate::domain::pod::Injection;
use crate::telemetry;
use contract::pods::{DRAIN_KEY_PRIVATE, DRAIN_KEY_PUBLIC, DRAIN_KEY_SECRET};
use k8s::Clients;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use token::Signer;
use tokio::sync::Notify;

/// Keeps the key.
pub(in crate::server) struct DrainKeyKeeper {
    secrets: Api<Secret>,
    shared: Arc<Shared>,
}

impl DrainKeyKeeper {
    pub(in crate::server) fn new(clients: &Clients, namespace: &str, shared: Arc<Shared>) -> Self {
        Self {
            secrets: Api::namespaced(clients.requests.clone(), namespace),
            shared,
        }
    }

    /// Never returns. Cancel safe.
    pub(in crate::server) async fn run(self) {
        keep(self, &Notify::new()).await;
    }

    async fn create(&self) -> Result<String, Interruption> {
        let (public, entries) = generate()?;
        let data = entries
            .into_iter()
            .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(DRAIN_KEY_SECRET.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(data.collect()),
            ..Secret::default()
        };
        let by = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.secrets.create(&by, &secret).await?;
        telemetry::cluster_changed(Self::PART, "secret_made");
        Ok(public)
    }

    async fn write(
        &self,
        version: Option<&str>,
        entries: &BTreeMap<&str, String>,
    ) -> Result<(), Interruption> {
        let patch = json!({"metadata": {"resourceVersion": version}, "stringData": entries});
        let by = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.secrets
            .patch(DRAIN_KEY_SECRET, &by, &Patch::Merge(patch))
            .await?;
        telemetry::cluster_changed(Self::PART, "secret_replaced");
        Ok(())
    }

    /// The public key of the pair that is stored; what nobody could sign with is replaced.
    async fn stored(&self, secret: Secret) -> Result<String, Interruption> {
        let version = secret.metadata.resource_version.as_deref();
        let data = secret.data.unwrap_or_default();
        let entry = |name| {
            data.get(name)
                .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        };
        match Signer::read(entry(DRAIN_KEY_PRIVATE).unwrap_or_default()) {
            Ok(signer) => {
                let public = signer.public_key();
                if entry(DRAIN_KEY_PUBLIC) != Some(&public) {
                    self.write(version, &BTreeMap::from([(DRAIN_KEY_PUBLIC, public.clone())]))
                        .await?;
                }
                Ok(public)
            }
            Err(error) => {
                telemetry::secret_unusable(DRAIN_KEY_SECRET, &error.to_string());
                let (public, entries) = generate()?;
                self.write(version, &entries).await?;
                Ok(public)
            }
        }
    }
}

impl Keeper for DrainKeyKeeper {
    const PART: &'static str = "drain_key";

    async fn look(&mut self) -> Result<Duration, Interruption> {
        let public = match self.secrets.get_opt(DRAIN_KEY_SECRET).await? {
            Some(secret) => self.stored(secret).await?,
            None => self.create().await?,
        };
        self.shared.injection.send_if_modified(|injection| {
            if injection.drain_key.as_ref() == Some(&public) {
                return false;
            }
            *injection = Arc::new(Injection {
                drain_key: Some(public),
                ..Injection::clone(injection)
            });
            true
        });
        self.shared.progress.send_if_modified(|progress| {
            let is_new = !progress.drain_key;
            progress.drain_key = true;
            is_new
        });
        Ok(EVERY)
    }
}

/// A new pair: the public key, and both as they are stored.
fn generate() -> Result<(String, BTreeMap<&'static str, String>), String> {
    let signer = Signer::generate().map_err(|error| error.to_string())?;
    let public = signer.public_key();
    let private = signer.private_key().map_err(|error| error.to_string())?;
    let entries = BTreeMap::from([(DRAIN_KEY_PRIVATE, private), (DRAIN_KEY_PUBLIC, public.clone())]);
    Ok((public, entries))
}
