//! `webhook-injector serve`: reviews over TLS, certificates that change without a restart, an admin port, a drain.

mod authority;
mod config;
mod files;
mod https;
mod kubernetes;
mod readiness;
mod self_signed;
mod tls;

pub use config::{Config, TlsSource, command};
pub use files::Files;
pub use https::{MAX_BODY_BYTES, PATH};
pub use kubernetes::{ClusterCertificates, Times};
pub use self_signed::SelfSigned;

use crate::domain::pod::Injection;
use crate::telemetry;
use http::{Method, StatusCode};
use https::Https;
use k8s::Clients;
use kubernetes::{CertificateKeeper, DrainKeyKeeper};
use ops::admin::{self, AdminRequest, AdminResponse};
use ops::shutdown::Shutdown;
use readiness::{NotReady, Progress};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tls::Certificates;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// What connections get to end once no new ones are taken.
const CLOSING_TIME: Duration = Duration::from_secs(10);

/// What changes while reviews are answered, and who reads it takes as it is at that moment.
#[derive(Debug)]
struct Shared {
    certificates: Arc<Certificates>,
    /// What is added to pods.
    injection: watch::Sender<Arc<Injection>>,
    /// What has been made ready.
    progress: watch::Sender<Progress>,
}

/// An injector whose ports are bound, but which does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    admin: Option<admin::Bound>,
    shared: Arc<Shared>,
    keepers: JoinSet<()>,
    authority_pem: Option<String>,
    config: Config,
}

/// Loads or makes the certificate, then binds the ports; port 0 chooses free ones. A certificate in the cluster may
/// come later: until then the server is not ready.
///
/// # Errors
/// One sentence: a port is taken, a certificate cannot be used, a file cannot be read or written, nothing says where
/// the API server is.
pub async fn bind(config: Config) -> Result<Bound, String> {
    let clients = match config.namespace {
        Some(_) => Some(k8s::connect().await.map_err(|error| error.to_string())?),
        None => None,
    };
    bind_with(config, clients).await
}

/// As [`bind`], with clients of the API server made by the caller; they are needed when there is a namespace.
///
/// # Errors
/// As [`bind`].
pub async fn bind_with(config: Config, clients: Option<Clients>) -> Result<Bound, String> {
    telemetry::describe();
    let (shared, keepers, authority_pem) = keep_all(&config, clients).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("address {} cannot be bound: {error}", config.listen))?;
    let admin = match config.admin {
        Some(address) => Some(admin::bind(address).await.map_err(|error| error.to_string())?),
        None => None,
    };
    Ok(Bound {
        listener,
        admin,
        shared,
        keepers,
        authority_pem,
        config,
    })
}

type Kept = (Arc<Shared>, JoinSet<()>, Option<String>);

/// What is shared, the tasks that keep it fresh, and the authority to publish, if there is one.
async fn keep_all(config: &Config, clients: Option<Clients>) -> Result<Kept, String> {
    let is_in_cluster = matches!(config.tls, TlsSource::Cluster(_));
    let shared = Arc::new(Shared {
        certificates: Certificates::none(),
        injection: watch::Sender::new(Arc::new(config.injection.clone())),
        progress: watch::Sender::new(Progress {
            certificate: !is_in_cluster,
            bundle: !is_in_cluster,
            drain_key: clients.is_none(),
        }),
    });
    let mut keepers = JoinSet::new();
    let home = clients.zip(config.namespace.as_deref());
    if let Some((clients, namespace)) = &home {
        let keeper = DrainKeyKeeper::new(clients, namespace, Arc::clone(&shared));
        keepers.spawn(keeper.run());
    }
    let authority_pem = keep_certificates(&config.tls, &shared, home, &mut keepers).await?;
    Ok((shared, keepers, authority_pem))
}

/// The first certificate, except in the cluster, and the task that keeps it fresh.
async fn keep_certificates(
    source: &TlsSource,
    shared: &Arc<Shared>,
    home: Option<(Clients, &str)>,
    keepers: &mut JoinSet<()>,
) -> Result<Option<String>, String> {
    let certificates = Arc::clone(&shared.certificates);
    match source {
        TlsSource::Files(files) => {
            let (usable, content) = files.load().await?;
            telemetry::certificate_loaded(usable.expiry);
            certificates.replace(usable);
            let files = files.clone();
            keepers.spawn(async move { files.follow(certificates, content).await });
            Ok(None)
        }
        TlsSource::SelfSigned(wanted) => {
            let now = ops::clock::since_epoch();
            let (authority, pem) = SelfSigned::authority(now)?;
            let usable = wanted.issue(&authority, now)?;
            telemetry::certificate_loaded(usable.expiry);
            certificates.replace(usable);
            let wanted = wanted.clone();
            keepers.spawn(async move { wanted.renew(&authority, certificates).await });
            Ok(Some(pem))
        }
        TlsSource::Cluster(wanted) => {
            let (clients, namespace) = home.ok_or("certificates in the cluster need a namespace")?;
            let keeper = CertificateKeeper::new(&clients, namespace, wanted.clone(), Arc::clone(shared));
            keepers.spawn(keeper.run(clients, namespace.to_owned()));
            Ok(None)
        }
    }
}

impl Bound {
    /// Where reviews are answered.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the admin port is; `None` when there is none.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn admin_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(admin::Bound::addr).transpose()
    }

    /// The certificate that callers have to trust, as PEM; `None` unless the server signs for itself.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority_pem.as_deref()
    }

    /// Answers reviews until `shutdown` drains: then it is no longer ready, answers on for the drain delay, because
    /// callers learn of that with a delay, and ends what is in work. Returns whether everything ended by itself.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<bool, String> {
        let tls = tls::server_config(Arc::clone(&self.shared.certificates))
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let https = Https {
            listener: self.listener,
            acceptor: TlsAcceptor::from(tls),
            injection: self.shared.injection.subscribe(),
            deadline: self.config.deadline,
        };
        let mut https = tokio::spawn(https.serve(closing.clone()));
        let admin = self.admin.map(|admin| {
            let (shutdown, progress) = (shutdown.clone(), self.shared.progress.subscribe());
            let handler = move |request| {
                let not_ready = if shutdown.is_draining() {
                    Some(NotReady::Draining)
                } else {
                    progress.borrow().missing()
                };
                std::future::ready(answer(&request, not_ready))
            };
            tokio::spawn(admin.serve(handler, ended.clone()))
        });

        shutdown.draining().await;
        tokio::select! {
            () = tokio::time::sleep(self.config.drain_delay) => {}
            () = shutdown.forced() => {}
        }
        closing.cancel();
        let ended_by_itself = tokio::select! {
            ended = &mut https => ended.is_ok(),
            () = tokio::time::sleep(CLOSING_TIME) => false,
            () = shutdown.forced() => false,
        };
        https.abort();
        self.keepers.abort_all();
        ended.cancel();
        if let Some(admin) = admin {
            admin.await.ok();
        }
        Ok(ended_by_itself)
    }
}

/// Answers one request to the admin port.
fn answer(request: &AdminRequest, not_ready: Option<NotReady>) -> AdminResponse {
    match (&request.method, request.path.as_str()) {
        (&Method::GET, "/healthz") => AdminResponse::text(StatusCode::OK, "ok"),
        (&Method::GET, "/readyz") => match not_ready {
            Some(reason) => AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, reason.to_string()),
            None => AdminResponse::text(StatusCode::OK, "ready"),
        },
        (&Method::GET, "/metrics") => AdminResponse::metrics(ops::metrics::install().render()),
        (_, path @ ("/healthz" | "/readyz" | "/metrics")) => {
            AdminResponse::text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes GET"))
        }
        _ => AdminResponse::not_found("/healthz, /readyz and /metrics"),
    }
}
