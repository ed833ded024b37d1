//! Certificates that change under a running server.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/https.rs"]
#[expect(dead_code, reason = "shared with the tests of the server")]
mod https;

use https::{Folder, Server, admin, admitted, config, post, response, review};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use testkit::wait::{PATIENCE, until};
use webhook_injector::server::{self, Files, PATH, SelfSigned, TlsSource};

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
