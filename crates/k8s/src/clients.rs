//! Clients of the API server.

use kube::config::{Config, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::path::Path;
use std::time::Duration;

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the API server may take for an answer. Admission webhooks on its way may take 10 s by default; ours take
/// 2 s, and whoever writes tries again.
const ANSWER: Duration = Duration::from_secs(10);

/// Two clients of one API server: an answer that does not come is an error for the one, and the ordinary case for
/// the other. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    /// For requests with one answer, which has to come within 10 s.
    pub requests: kube::Client,
    /// For watches, whose answers never end; see [`View`](crate::View).
    pub watches: kube::Client,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

/// Why there is no client. `Display` is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing says where the API server is.
    #[error(
        "nothing says where the Kubernetes API server is: run in a pod with a service account, or write KUBECONFIG: {0}"
    )]
    Unconfigured(#[from] Box<InferConfigError>),
    /// The file that says it cannot be.
    #[error("the kubeconfig cannot be used: {0}")]
    Unreadable(#[from] Box<KubeconfigError>),
    /// What it says cannot be used.
    #[error("the configuration for the Kubernetes API server cannot be used: {0}")]
    Unusable(#[from] Box<kube::Error>),
}

/// Clients as `KUBECONFIG`, `~/.kube/config` or the pod's service account say, in this order. Nothing is sent yet: an
/// API server that is away is no error here.
///
/// # Errors
/// When there is no configuration, or one that cannot be used.
pub async fn connect() -> Result<Clients, ConnectError> {
    clients(Config::infer().await.map_err(Box::new)?)
}

/// Clients as the file says, a kubeconfig. Nothing is sent yet.
///
/// # Errors
/// When it cannot be read or used.
pub async fn connect_with(kubeconfig: &Path) -> Result<Clients, ConnectError> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(Box::new)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    clients(config.map_err(Box::new)?)
}

fn clients(mut config: Config) -> Result<Clients, ConnectError> {
    config.connect_timeout = Some(CONNECT);
    let watches = kube::Client::try_from(config.clone()).map_err(Box::new)?;
    config.read_timeout = Some(ANSWER);
    // Else the time that a pooled connection was idle would count.
    config.reset_reader_on_write = true;
    let requests = kube::Client::try_from(config).map_err(Box::new)?;
    Ok(Clients { requests, watches })
}

/// What went wrong, in the API server's own words where it has any.
pub fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let message = status.message.trim_end_matches('.');
            if message.is_empty() {
                format!("the API server refuses with {} {}", status.code, status.reason)
            } else {
                format!("the API server refuses: {message}")
            }
        }
        // The outer error of the transport says nothing; the cause is the last in the chain.
        other => format!("the API server cannot be asked: {}", cause(other)),
    }
}

/// The innermost error that says something.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
