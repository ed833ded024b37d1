//! The key that signs permissions to drain and to resume, from the Secret that the injector makes.

use super::telemetry::{self, Request};
use contract::pods::{DRAIN_KEY_PRIVATE, DRAIN_KEY_SECRET};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use token::{Action, Signer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Between two looks while there is no key.
const MISSING: Duration = Duration::from_secs(1);
/// Between two looks for another key.
const KNOWN: Duration = Duration::from_secs(30);

/// The key, as far as it is known. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct DrainKey {
    state: Arc<Mutex<State>>,
    mistrust: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    signer: Result<Arc<Signer>, String>,
    text: String,
}

impl DrainKey {
    pub(super) fn new() -> Self {
        let why = format!("the Secret {DRAIN_KEY_SECRET} was not read yet");
        Self {
            state: Arc::new(Mutex::new(State {
                signer: Err(why),
                text: String::new(),
            })),
            mistrust: Arc::default(),
        }
    }

    /// A token for a pod.
    ///
    /// # Errors
    /// Why there is no key, in a sentence.
    pub(super) fn sign(&self, namespace: &str, pod: &str, action: Action) -> Result<String, String> {
        let signer = self.lock().signer.clone()?;
        Ok(signer.sign(&format!("{namespace}/{pod}"), action, ops::clock::since_epoch()))
    }

    /// Looks at the Secret again soon: a sidecar did not accept a token.
    pub(super) fn mistrust(&self) {
        self.mistrust.notify_one();
    }

    /// Reads the Secret again and again; never ends.
    pub(super) async fn follow(self, client: kube::Client, namespace: String) {
        let secrets: Api<Secret> = Api::namespaced(client, &namespace);
        loop {
            let looked = Instant::now();
            self.look(&secrets, &namespace).await;
            let pause = if self.lock().signer.is_ok() {
                KNOWN
            } else {
                MISSING
            };
            tokio::select! {
                () = sleep_until(looked + pause) => {}
                () = self.mistrust.notified() => sleep_until(looked + MISSING).await,
            }
        }
    }

    async fn look(&self, secrets: &Api<Secret>, namespace: &str) {
        let missing = || {
            format!(
                "there is no Secret {DRAIN_KEY_SECRET} with an entry {DRAIN_KEY_PRIVATE} in namespace {namespace}: \
                 the webhook-injector makes it when it starts"
            )
        };
        let secret = match secrets.get_opt(DRAIN_KEY_SECRET).await {
            Ok(secret) => secret,
            Err(error) => {
                telemetry::api_error(Request::Key, &error);
                // The key that is known is good still.
                if self.lock().signer.is_err() {
                    self.fail(k8s::sentence(&error));
                }
                return;
            }
        };
        let entry = secret.and_then(|secret| secret.data?.remove(DRAIN_KEY_PRIVATE));
        let Some(text) = entry.and_then(|bytes| String::from_utf8(bytes.0).ok()) else {
            self.fail(missing());
            return;
        };
        let mut state = self.lock();
        if state.signer.is_ok() && state.text == text {
            return;
        }
        match Signer::read(&text) {
            Ok(signer) => {
                *state = State {
                    signer: Ok(Arc::new(signer)),
                    text,
                };
                drop(state);
                telemetry::key_read();
            }
            Err(error) => {
                drop(state);
                self.fail(format!("the Secret {DRAIN_KEY_SECRET} cannot be used: {error}"));
            }
        }
    }

    fn fail(&self, why: String) {
        let mut state = self.lock();
        if state.signer.as_ref().err() != Some(&why) {
            telemetry::key_missing(&why);
        }
        state.signer = Err(why);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
