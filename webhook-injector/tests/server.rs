//! The server over real TLS connections: reviews, refusals, keep-alive, certificates that change, the drain.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use ops::shutdown::Shutdown;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use testkit::wait::{PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webhook_injector::domain::pod::Injection;
use webhook_injector::server::{self, Config, Files, MAX_BODY_BYTES, PATH, SelfSigned, TlsSource};

/// A directory that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
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

fn config(tls: TlsSource) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin: Some("127.0.0.1:0".parse().unwrap()),
        tls,
        injection: Injection {
            image: "example.org/sidecar:1".to_owned(),
            broker_secret: None,
            drained_path: None,
        },
        deadline: PATIENCE,
        drain_delay: Duration::ZERO,
    }
}

fn self_signed() -> TlsSource {
    TlsSource::SelfSigned(SelfSigned {
        names: vec!["localhost".to_owned()],
        lifetime: Duration::from_hours(1),
    })
}

struct Server {
    address: SocketAddr,
    admin: SocketAddr,
    trust: TlsConnector,
    shutdown: Shutdown,
    run: JoinHandle<Result<bool, String>>,
}

impl Server {
    async fn start(config: Config, authority: Option<&str>) -> Self {
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

    async fn tls(&self) -> TlsStream<TcpStream> {
        handshake(self.address, &self.trust).await.unwrap()
    }

    async fn client(&self) -> SendRequest<Full<Bytes>> {
        speak(self.tls().await).await
    }

    /// Drains and says whether everything ended by itself.
    async fn stop(self) -> bool {
        self.shutdown.drain();
        self.run.await.unwrap().unwrap()
    }
}

fn trusting(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn handshake(address: SocketAddr, trust: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    trust
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

async fn speak(stream: TlsStream<TcpStream>) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn review(uid: &str, annotations: &Value) -> Vec<u8> {
    let object = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app"}]}});
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let request = json!({"uid": uid, "operation": "CREATE", "kind": kind, "object": object});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    review.to_string().into_bytes()
}

fn admitted() -> Value {
    json!({"kubedaemon.io/queue": "orders"})
}

async fn post(
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

async fn send(
    client: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, String)> {
    client.ready().await?;
    let response = client.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn response(answer: &(StatusCode, String)) -> Value {
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
    let mut review: Value = serde_json::from_str(&answer.1).unwrap();
    review["response"].take()
}

async fn admin(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn reviews_on_one_connection_each_get_their_own_answer() {
    let server = Server::start(config(self_signed()), None).await;
    let mut client = server.client().await;
    let first = response(
        &post(&mut client, "/mutate?timeout=2s", review("u-1", &admitted()))
            .await
            .unwrap(),
    );
    assert_eq!((&first["uid"], &first["allowed"]), (&json!("u-1"), &json!(true)));
    assert!(first["patch"].is_string());
    let wrong = json!({"kubedaemon.io/queue": "orders", "kubedaemon.io/timeout": "soon"});
    let second = response(&post(&mut client, PATH, review("u-2", &wrong)).await.unwrap());
    assert_eq!(
        (&second["uid"], &second["allowed"]),
        (&json!("u-2"), &json!(false))
    );
    let garbage = post(&mut client, PATH, b"garbage".to_vec()).await.unwrap();
    assert_eq!(garbage.0, StatusCode::BAD_REQUEST);
    assert!(garbage.1.contains("send an AdmissionReview"), "{}", garbage.1);
    let third = response(&post(&mut client, PATH, review("u-3", &json!({}))).await.unwrap());
    assert_eq!(third, json!({"uid": "u-3", "allowed": true}));

    let page = admin(server.admin, "/metrics").await;
    for name in [
        "injector_admission_requests_total{operation=\"create\",kind=\"Pod\"}",
        "injector_decisions_total{decision=\"patch\",reason=\"injected\"}",
        "injector_decisions_total{decision=\"deny\",reason=\"bad_annotation\"}",
        "injector_admission_duration_seconds_bucket{decision=\"patch\"",
        "injector_rejections_total{reason=\"not_a_review\"}",
        "injector_certificate_expiry_timestamp_seconds",
        "injector_certificate_reloads_total{result=\"ok\"}",
    ] {
        assert!(page.contains(name), "{name} is not in {page}");
    }
    drop(client);
    assert!(server.stop().await);
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let server = Server::start(config(self_signed()), None).await;
    let mut client = server.client().await;
    let (status, said) = post(&mut client, "/", review("u", &admitted())).await.unwrap();
    assert_eq!(
        (status, said.as_str()),
        (StatusCode::NOT_FOUND, "no such path; there is /mutate\n")
    );

    let mut client = server.client().await;
    let get = Request::builder()
        .method(Method::GET)
        .uri(PATH)
        .body(Full::default())
        .unwrap();
    assert_eq!(
        send(&mut client, get).await.unwrap().0,
        StatusCode::METHOD_NOT_ALLOWED
    );

    // Announced as too long; and longer than can be known beforehand.
    for length in [
        "content-length: 3145729\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n",
    ] {
        let mut stream = server.tls().await;
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\n{length}");
        stream.write_all(head.as_bytes()).await.unwrap();
        if length.starts_with("transfer") {
            let chunk = vec![b'x'; MAX_BODY_BYTES + 1];
            let sent = async {
                stream
                    .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                    .await?;
                stream.write_all(&chunk).await
            };
            // The server may have answered and gone before everything was written.
            sent.await.ok();
        }
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 413");
    }
    assert!(server.stop().await);
}

#[tokio::test]
async fn a_review_of_the_longest_length_is_answered() {
    let server = Server::start(config(self_signed()), None).await;
    let mut body = review("u", &admitted());
    body.resize(MAX_BODY_BYTES, b' ');
    let mut client = server.client().await;
    assert_eq!(
        response(&post(&mut client, PATH, body).await.unwrap())["allowed"],
        true
    );
    drop(client);
    assert!(server.stop().await);
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_keeps_nobody_waiting() {
    let server = Server::start(
        Config {
            deadline: Duration::from_millis(200),
            ..config(self_signed())
        },
        None,
    )
    .await;
    let mut slow = server.tls().await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut client = server.client().await;
    assert_eq!(
        response(&post(&mut client, PATH, review("u", &admitted())).await.unwrap())["uid"],
        "u"
    );
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("did not arrive in time"),
        "{answer}"
    );
    // One that says nothing at all does not hold up the end either.
    let _silent = TcpStream::connect(server.address).await.unwrap();
    drop(client);
    server.shutdown.drain();
    server.shutdown.force();
    server.run.await.unwrap().unwrap();
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate and its key, PEM.
    fn issue(&self) -> (String, String) {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn files(folder: &Path) -> Files {
    Files {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
        every: Duration::from_millis(5),
    }
}

/// The certificate that a new connection gets.
async fn served(server: &Server) -> CertificateDer<'static> {
    let stream = server.tls().await;
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_review_fails_while_certificates_change() {
    const CHANGES: u32 = 20;
    let (folder, authority) = (Folder::new(), Authority::new());
    let files = files(&folder.0);
    let (certificate, key) = authority.issue();
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    let server = Arc::new(Server::start(config(TlsSource::Files(files.clone())), Some(&authority.pem)).await);

    let (done, reviews) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let callers: Vec<_> = (0..3)
        .map(|caller| {
            let (server, done, reviews) = (Arc::clone(&server), Arc::clone(&done), Arc::clone(&reviews));
            tokio::spawn(async move {
                let mut kept = server.client().await;
                while !done.load(Ordering::Relaxed) {
                    let uid = format!("u-{caller}-{}", reviews.fetch_add(1, Ordering::Relaxed));
                    let mut fresh = server.client().await;
                    for client in [&mut fresh, &mut kept] {
                        let answer = post(client, PATH, review(&uid, &admitted())).await.unwrap();
                        assert_eq!(response(&answer)["uid"], uid.as_str());
                    }
                }
            })
        })
        .collect();
    for _ in 0..CHANGES {
        let before = served(&server).await;
        let reviewed = reviews.load(Ordering::Relaxed);
        let (certificate, key) = authority.issue();
        // One after the other, with reviews between: for a while they do not fit together.
        std::fs::write(&files.certificate, certificate).unwrap();
        until("a review came between", PATIENCE, async || {
            reviews.load(Ordering::Relaxed) > reviewed
        })
        .await;
        std::fs::write(&files.key, key).unwrap();
        until("the new certificate is served", PATIENCE, async || {
            served(&server).await != before
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(reviews.load(Ordering::Relaxed) >= CHANGES);
    assert!(Arc::into_inner(server).unwrap().stop().await);
}

#[tokio::test]
async fn a_broken_certificate_changes_nothing() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let files = files(&folder.0);
    let (certificate, key) = authority.issue();
    std::fs::write(&files.certificate, &certificate).unwrap();
    std::fs::write(&files.key, &key).unwrap();
    let server = Server::start(config(TlsSource::Files(files.clone())), Some(&authority.pem)).await;
    let before = served(&server).await;
    std::fs::write(&files.certificate, "no certificate").unwrap();
    until("the failure is counted", PATIENCE, async || {
        admin(server.admin, "/metrics")
            .await
            .contains("injector_certificate_reloads_total{result=\"failed\"}")
    })
    .await;
    std::fs::remove_file(&files.key).unwrap();
    assert_eq!(served(&server).await, before);
    assert!(server.stop().await);
}

#[tokio::test]
async fn a_server_does_not_start_without_a_usable_certificate() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let files = files(&folder.0);
    let start = async || {
        server::bind(config(TlsSource::Files(files.clone())))
            .await
            .unwrap_err()
    };
    let missing = start().await;
    assert!(
        missing.contains("tls.crt cannot be read: No such file"),
        "{missing}"
    );
    let ((certificate, _), (_, of_another)) = (authority.issue(), authority.issue());
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, of_another).unwrap();
    let mismatch = start().await;
    assert!(mismatch.contains("cannot be used together"), "{mismatch}");
    std::fs::write(&files.certificate, "").unwrap();
    let empty = start().await;
    assert!(empty.starts_with("there is no certificate"), "{empty}");
}

#[tokio::test]
async fn a_certificate_of_our_own_is_renewed_under_the_same_authority() {
    let wanted = SelfSigned {
        names: vec!["localhost".to_owned()],
        lifetime: Duration::from_secs(3),
    };
    let server = Server::start(config(TlsSource::SelfSigned(wanted)), None).await;
    let before = served(&server).await;
    until("another certificate is served", PATIENCE, async || {
        served(&server).await != before
    })
    .await;
    assert!(server.stop().await);
}

#[tokio::test]
async fn a_drain_says_so_and_ends_what_is_in_work() {
    let server = Server::start(
        Config {
            drain_delay: PATIENCE,
            ..config(self_signed())
        },
        None,
    )
    .await;
    assert!(admin(server.admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    let mut begun = server.tls().await;
    let body = review("u-1", &admitted());
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    server.shutdown.drain();
    until("it is not ready any more", PATIENCE, async || {
        admin(server.admin, "/readyz").await.starts_with("HTTP/1.1 503")
    })
    .await;
    assert!(admin(server.admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    // During the delay reviews are answered as ever, new ones and those in work.
    let mut client = server.client().await;
    assert_eq!(
        response(&post(&mut client, PATH, review("u-2", &admitted())).await.unwrap())["uid"],
        "u-2"
    );
    begun.write_all(&body).await.unwrap();
    let mut answer = [0; 15];
    begun.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    server.shutdown.force();
    server.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_review_in_work_is_answered_when_the_server_closes() {
    let server = Server::start(config(self_signed()), None).await;
    let mut begun = server.tls().await;
    let body = review("u-1", &admitted());
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    // The server has read the head and waits for the body.
    let mut go_on = [0; 25];
    begun.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.shutdown.drain();
    until("no new connection is taken", PATIENCE, async || {
        TcpStream::connect(server.address).await.is_err()
    })
    .await;
    begun.write_all(&body).await.unwrap();
    let mut answer = String::new();
    begun.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"uid\":\"u-1\""),
        "{answer}"
    );
    assert!(server.run.await.unwrap().unwrap());
}

fn binary(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook-injector"));
    command
        .arg("serve")
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn the_binary_writes_its_authority_and_ends_on_sigterm() {
    let folder = Folder::new();
    let ca = folder.0.join("ca.pem");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listen = free.to_string();
    let args = [
        "--image",
        "i",
        "--self-signed",
        "--dns-name",
        "localhost",
        "--ca-out",
        ca.to_str().unwrap(),
    ];
    let rest = ["--listen", &listen, "--admin", "off", "--drain-delay", "0s"];
    let mut child = binary(&[&args[..], &rest[..]].concat()).spawn().unwrap();
    let answer = until("a review is answered", PATIENCE, async || {
        let trust = trusting(&std::fs::read_to_string(&ca).ok()?);
        let stream = handshake(free, &trust).await.ok()?;
        post(&mut speak(stream).await, PATH, review("u", &admitted()))
            .await
            .ok()
    })
    .await;
    assert_eq!(response(&answer)["allowed"], true);
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = until("it has ended", PATIENCE, || {
        std::future::ready(child.try_wait().unwrap())
    })
    .await;
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_wrong_command_line_is_answered_with_sentences_and_2() {
    let tls = ["--tls-cert", "/nowhere/tls.crt", "--tls-key", "/nowhere/tls.key"];
    for (args, expected) in [
        (vec![], "--image"),
        (vec!["--image", "i"], "--tls-cert"),
        (vec!["--image", "i", "--self-signed"], "--dns-name"),
        (
            [&["--image", "i"][..], &tls].concat(),
            "/nowhere/tls.crt cannot be read: No such file",
        ),
        (
            [
                &[
                    "--image",
                    "i",
                    "--broker-secret",
                    "x",
                    "--deadline",
                    "2",
                    "--listen",
                    "y",
                ][..],
                &tls,
            ]
            .concat(),
            "--broker-secret is \"x\", which is not NAME/KEY: write the name of a Secret and a key in it",
        ),
    ] {
        let output = binary(&args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
