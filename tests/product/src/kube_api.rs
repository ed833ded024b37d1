//! Questions to the API server that are cheap enough to be asked again and again.

use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the API server is left in peace between two looks.
const PACE: Duration = Duration::from_millis(40);

/// A client of the API server, as an administrator. What it does, it does on a runtime that outlives each test's.
#[derive(Clone)]
pub struct KubeApi(kube::Client);

/// A runtime for what tests share: that of a test ends with it.
pub(crate) fn lasting() -> &'static Handle {
    static LASTING: OnceLock<Handle> = OnceLock::new();
    LASTING.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

impl std::fmt::Debug for KubeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KubeApi").finish_non_exhaustive()
    }
}

impl KubeApi {
    pub(crate) async fn new(kubeconfig: &Path) -> Self {
        let kubeconfig = kubeconfig.to_owned();
        let connecting = lasting().spawn(async move { k8s::connect_with(&kubeconfig).await });
        Self(connecting.await.unwrap().unwrap().requests)
    }

    /// What is at a path such as `/api/v1/namespaces/default/pods`.
    ///
    /// # Errors
    /// What the API server says, or that it cannot be asked.
    pub async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let client = self.0.clone();
        let answer = lasting().spawn(async move { client.request(request).await });
        answer.await.unwrap()
    }

    /// As [`get`](Self::get), for a list's items.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn items(&self, path: &str) -> Result<Vec<Value>, kube::Error> {
        Ok(match self.get(path).await?["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// Waits, and leaves the API server in peace meanwhile, until `check` has a value; panics after `patience` with
    /// `what`.
    #[track_caller]
    pub fn until<C, F, Fut>(
        &self,
        what: &str,
        patience: Duration,
        mut check: F,
    ) -> impl Future<Output = C::Value>
    where
        C: testkit::wait::Condition,
        F: FnMut() -> Fut,
        Fut: Future<Output = C>,
    {
        testkit::wait::until(what, patience, move || {
            let look = check();
            async move {
                let found = look.await.met();
                if found.is_none() {
                    tokio::time::sleep(PACE).await;
                }
                found
            }
        })
    }
}
