//! A server, and clients that speak to it over TLS.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use ops::shutdown::Shutdown;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use testkit::wait::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webhook_injector::domain::pod::Injection;
use webhook_injector::server::{self, Config, SelfSigned, TlsSource};

/// A directory that goes with its value.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(testkit::unique("injector"));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn config(tls: TlsSource) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin: Some("127.0.0.1:0".parse().unwrap()),
        tls,
        namespace: None,
        injection: Injection {
            image: "example.org/sidecar:1".to_owned(),
            broker_secret: None,
            drained_path: None,
            drain_key: None,
        },
        deadline: PATIENCE,
        drain_delay: Duration::ZERO,
    }
}

pub(crate) fn self_signed() -> TlsSource {
    TlsSource::SelfSigned(SelfSigned {
        names: vec!["localhost".to_owned()],
        lifetime: Duration::from_hours(1),
    })
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) trust: TlsConnector,
    pub(crate) shutdown: Shutdown,
    pub(crate) run: JoinHandle<Result<bool, String>>,
}

impl Server {
    pub(crate) async fn start(config: Config, authority: Option<&str>) -> Self {
        ops::metrics::install();
        let bound = server::bind(config).await.unwrap();
        let trust = trusting(authority.or(bound.authority_pem()).unwrap());
        let (address, admin) = (bound.addr().unwrap(), bound.admin_addr().unwrap().unwrap());
        let shutdown = Shutdown::new();
        let run = tokio::spawn(bound.run(shutdown.clone()));
        Self {
            address,
            admin,
            trust,
            shutdown,
            run,
        }
    }

    pub(crate) async fn tls(&self) -> TlsStream<TcpStream> {
        handshake(self.address, &self.trust).await.unwrap()
    }

    pub(crate) async fn client(&self) -> SendRequest<Full<Bytes>> {
        speak(self.tls().await).await
    }

    /// Drains and says whether everything ended by itself.
    pub(crate) async fn stop(self) -> bool {
        self.shutdown.drain();
        self.run.await.unwrap().unwrap()
    }
}

pub(crate) fn trusting(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A session that is resumed shows the certificate that it began with.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

pub(crate) async fn handshake(
    address: SocketAddr,
    trust: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    trust
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

pub(crate) async fn speak(stream: TlsStream<TcpStream>) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn review(uid: &str, annotations: &Value) -> Vec<u8> {
    let object = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app"}]}});
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let request = json!({"uid": uid, "operation": "CREATE", "kind": kind, "object": object});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    review.to_string().into_bytes()
}

pub(crate) fn admitted() -> Value {
    json!({"kubedaemon.io/queue": "orders"})
}

pub(crate) async fn post(
    client: &mut SendRequest<Full<Bytes>>,
    path: &str,
    body: Vec<u8>,
) -> hyper::Result<(StatusCode, String)> {
    let request = Request::post(path)
        .header(header::HOST, "localhost")
        .body(Full::from(body))
        .unwrap();
    send(client, request).await
}

pub(crate) async fn send(
    client: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, String)> {
    client.ready().await?;
    let response = client.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

pub(crate) fn response(answer: &(StatusCode, String)) -> Value {
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
    let mut review: Value = serde_json::from_str(&answer.1).unwrap();
    review["response"].take()
}

pub(crate) async fn admin(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
