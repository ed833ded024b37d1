//! What the cluster looks like now, of one kind of object.

use crate::clients::Clients;
use futures_util::StreamExt;
use kube::runtime::reflector::store::{Store, store};
use kube::runtime::reflector::{Lookup, ObjectRef};
use kube::runtime::watcher as watch_objects;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use ops::backoff::Backoff;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between two tries to reach an API server that is away: what has come about meanwhile is seen this late.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// The longest life of one watch, in seconds; a connection that is dead without a word is noticed 5 s after it.
const WATCH_SECONDS: u32 = 60;

/// Why a view may be out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Instant,
    /// What went wrong, in a sentence.
    pub sentence: String,
}

/// All objects of a kind, as far as the API server has told; it follows their changes for as long as a clone of it is
/// kept. While the API server is away it shows what was last known.
pub struct View<K: Lookup + 'static>
where
    K::DynamicType: Eq + Hash,
{
    store: Store<K>,
    revision: watch::Receiver<u64>,
    trouble: watch::Receiver<Option<Trouble>>,
    /// The task ends with the last clone.
    following: Arc<DropGuard>,
}

impl<K> View<K>
where
    K: Resource<DynamicType = ()>
        + Lookup<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// Follows the objects of a namespace, or of all when there is none, that match the label selector; an empty one
    /// matches all. `prune` removes what nobody needs from each object, to save memory. Must be called within a
    /// runtime.
    pub fn follow(clients: &Clients, namespace: Option<&str>, labels: &str, prune: fn(&mut K)) -> Self
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let api = match namespace {
            Some(namespace) => Api::namespaced(clients.watches.clone(), namespace),
            None => Api::all(clients.watches.clone()),
        };
        Self::follow_api(api, labels, prune)
    }

    fn follow_api(api: Api<K>, labels: &str, prune: fn(&mut K)) -> Self {
        let (store, mut writer) = store();
        let (revisions, revision) = watch::channel(0);
        let (troubles, trouble) = watch::channel(None);
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        if !labels.is_empty() {
            config = config.labels(labels);
        }
        let kind = std::any::type_name::<K>().rsplit("::").next().unwrap_or_default();
        let follow = async move {
            let mut backoff = Backoff::new(RETRY.0, RETRY.1);
            loop {
                // Begins with a list, whose end tells that the picture is whole again: a watch that goes on where
                // another was interrupted tells nothing until something changes.
                let mut events = watch_objects(api.clone(), config.clone()).boxed();
                while let Some(event) = events.next().await {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            let sentence = error_sentence(&error);
                            tracing::debug!(kind, error = %sentence, "watch interrupted");
                            troubles.send_modify(|trouble| {
                                let since = trouble
                                    .as_ref()
                                    .map_or_else(Instant::now, |known: &Trouble| known.since);
                                *trouble = Some(Trouble { since, sentence });
                            });
                            break;
                        }
                    };
                    let event = event.modify(|object| {
                        object.meta_mut().managed_fields = None;
                        prune(object);
                    });
                    writer.apply_watcher_event(&event);
                    // While a list comes in piece by piece the old picture stands.
                    if !matches!(event, Event::Init | Event::InitApply(_)) {
                        backoff.reset();
                        troubles.send_if_modified(|trouble| trouble.take().is_some());
                        revisions.send_modify(|revision| *revision += 1);
                    }
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        };
        tokio::spawn(async move { ended.run_until_cancelled(follow).await });
        Self {
            store,
            revision,
            trouble,
            following: Arc::new(guard),
        }
    }

    /// Waits until the API server has told all objects for the first time. Cancel safe.
    pub async fn ready(&self) {
        if self.store.wait_until_ready().await.is_err() {
            // The task that follows has ended, which it does only when the runtime does.
            std::future::pending::<()>().await;
        }
    }

    /// Every object.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// Every object for which `wanted` holds.
    pub fn filtered(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.store.state_filter(wanted)
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// A number that grows with every change, for waiting on changes.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Why the view may be out of date; `None` while the API server tells what changes. A connection that is dead
    /// without a word is noticed after up to 65 s.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.borrow().clone()
    }
}

impl<K: Lookup + 'static> Clone for View<K>
where
    K::DynamicType: Eq + Hash + Clone,
{
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            revision: self.revision.clone(),
            trouble: self.trouble.clone(),
            following: Arc::clone(&self.following),
        }
    }
}

impl<K: Lookup + 'static> Debug for View<K>
where
    K::DynamicType: Eq + Hash,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("revision", &*self.revision.borrow())
            .field("trouble", &*self.trouble.borrow())
            .finish_non_exhaustive()
    }
}

fn error_sentence(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => crate::sentence(error),
        watcher::Error::WatchError(status) => format!("the API server ended a watch: {}", status.message),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}
