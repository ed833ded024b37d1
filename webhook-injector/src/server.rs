//! `webhook-injector serve`: reviews over TLS, certificates that change without a restart, an admin port, a drain.

mod config;
mod files;
mod https;
mod self_signed;
mod tls;

pub use config::{Config, TlsSource, command, logging};
pub use files::Files;
pub use https::{MAX_BODY_BYTES, PATH};
pub use self_signed::SelfSigned;

use crate::telemetry;
use http::{Method, StatusCode};
use https::Https;
use ops::admin::{self, AdminRequest, AdminResponse};
use ops::shutdown::Shutdown;
use self_signed::Authority;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tls::Certificates;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// What connections get to end once no new ones are taken.
const CLOSING_TIME: Duration = Duration::from_secs(10);

/// An injector whose ports are bound and which has a certificate, but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    admin: Option<admin::Bound>,
    certificates: Arc<Certificates>,
    keeper: tokio::task::JoinHandle<()>,
    authority_pem: Option<String>,
    config: Config,
}

/// Loads or makes the certificate, then binds the ports; port 0 chooses free ones.
///
/// # Errors
/// One sentence: a port is taken, a certificate cannot be used, a file cannot be read or written.
pub async fn bind(config: Config) -> Result<Bound, String> {
    telemetry::describe();
    let (certificates, keeper, authority_pem) = keep_certificates(&config.tls).await?;
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
        certificates,
        keeper,
        authority_pem,
        config,
    })
}

type Kept = (Arc<Certificates>, tokio::task::JoinHandle<()>, Option<String>);

/// The first certificate, and the task that keeps it fresh.
async fn keep_certificates(source: &TlsSource) -> Result<Kept, String> {
    match source {
        TlsSource::Files(files) => {
            let (usable, content) = files.load().await?;
            telemetry::certificate_loaded(usable.expiry);
            let certificates = Certificates::new(usable);
            let (files, followed) = (files.clone(), Arc::clone(&certificates));
            let keeper = tokio::spawn(async move { files.follow(followed, content).await });
            Ok((certificates, keeper, None))
        }
        TlsSource::SelfSigned(wanted) => {
            let now = ops::clock::since_epoch();
            let authority = Authority::new(now)?;
            let usable = authority.issue(wanted, now)?;
            telemetry::certificate_loaded(usable.expiry);
            let certificates = Certificates::new(usable);
            let (wanted, renewed) = (wanted.clone(), Arc::clone(&certificates));
            let pem = authority.pem.clone();
            let keeper = tokio::spawn(async move { authority.renew(&wanted, renewed).await });
            Ok((certificates, keeper, Some(pem)))
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

    /// The certificate that callers have to trust, as PEM; `None` when certificates come from files.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority_pem.as_deref()
    }

    /// Answers reviews until `shutdown` drains: then it is no longer ready, answers on for the drain delay, because
    /// callers learn of that with a delay, and ends what is in work. Returns whether everything ended by itself.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub async fn run(self, shutdown: Shutdown) -> Result<bool, String> {
        let tls = tls::server_config(self.certificates)
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let https = Https {
            listener: self.listener,
            acceptor: TlsAcceptor::from(tls),
            injection: Arc::new(self.config.injection),
            deadline: self.config.deadline,
        };
        let mut https = tokio::spawn(https.serve(closing.clone()));
        let admin = self.admin.map(|admin| {
            let shutdown = shutdown.clone();
            let handler = move |request| std::future::ready(answer(&request, &shutdown));
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
        self.keeper.abort();
        ended.cancel();
        if let Some(admin) = admin {
            admin.await.ok();
        }
        Ok(ended_by_itself)
    }
}

/// Answers one request to the admin port. There is always a certificate, so readiness is a matter of the drain.
fn answer(request: &AdminRequest, shutdown: &Shutdown) -> AdminResponse {
    match (&request.method, request.path.as_str()) {
        (&Method::GET, "/healthz") => AdminResponse::text(StatusCode::OK, "ok"),
        (&Method::GET, "/readyz") if shutdown.is_draining() => {
            AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, "draining")
        }
        (&Method::GET, "/readyz") => AdminResponse::text(StatusCode::OK, "ready"),
        (&Method::GET, "/metrics") => AdminResponse::metrics(ops::metrics::install().render()),
        (_, path @ ("/healthz" | "/readyz" | "/metrics")) => {
            AdminResponse::text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes GET"))
        }
        _ => AdminResponse::not_found("/healthz, /readyz and /metrics"),
    }
}
