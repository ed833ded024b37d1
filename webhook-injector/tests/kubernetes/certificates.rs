//! Certificates that change, trust that is taken away, and what a review costs.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "figures for people")]

use crate::support::{By, Installed, created, is_asked, pod, queue, sidecar};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::wait::{PATIENCE, until};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use webhook_injector::domain::pod::Injection;
use webhook_injector::server::{self, ClusterCertificates, Config as Server, Times, TlsSource};

/// An administrator without the start of `kubectl` at each call.
async fn client(installed: &Installed) -> Client {
    let kubeconfig = Kubeconfig::read_from(installed.cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn pods(installed: &Installed, namespace: &str) -> Api<Pod> {
    Api::namespaced(client(installed).await, namespace)
}

/// Has a pod reviewed; it is not stored.
async fn review(pods: &Api<Pod>, annotations: &Value) -> Result<Pod, kube::Error> {
    let pod: Pod = serde_json::from_value(pod("reviewed", annotations)).unwrap();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    pods.create(&dry, &pod).await
}

/// Reviews one after the other, until they are ended.
struct Reviews {
    ended: Arc<AtomicBool>,
    running: JoinHandle<(u32, Vec<String>)>,
}

impl Reviews {
    async fn start(installed: &Installed, namespace: &str) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (pods, until) = (pods(installed, namespace).await, Arc::clone(&ended));
        let running = tokio::spawn(async move {
            let (mut reviewed, mut failed) = (0, Vec::new());
            while !until.load(Ordering::Relaxed) {
                match review(&pods, &queue()).await {
                    Ok(pod) if pod.spec.as_ref().unwrap().init_containers.is_some() => reviewed += 1,
                    Ok(_) => failed.push("no sidecar".to_owned()),
                    Err(error) => failed.push(error.to_string()),
                }
            }
            (reviewed, failed)
        });
        Self { ended, running }
    }

    /// How many went well, and what was said of the others.
    async fn end(self) -> (u32, Vec<String>) {
        self.ended.store(true, Ordering::Relaxed);
        self.running.await.unwrap()
    }
}

#[tokio::test]
async fn no_review_fails_while_the_authority_changes() {
    if cluster::skip("no_review_fails_while_the_authority_changes") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("rotation").await;
    let first = installed.serve(&[&target]).await;
    let second = installed.start().await;
    second.ready().await;
    installed.route(&[&first, &second]).await;
    let certificate = || installed.secret("kubedaemon-injector-tls", "tls.crt");
    let (bundle, before) = (installed.bundles().await.remove(0), certificate().await.unwrap());

    let reviews = Reviews::start(&installed, target.name()).await;
    // Who wants new keys deletes the Secret.
    let begun = Instant::now();
    installed
        .release
        .kubectl(&["delete", "secret", "kubedaemon-injector-tls"])
        .await
        .unwrap();
    until("both authorities are trusted", PATIENCE, || async {
        let bundles = installed.bundles().await;
        bundles
            .iter()
            .all(|now| now.len() > bundle.len() && *now == bundles[0])
    })
    .await;
    let trusted = begun.elapsed();
    assert_eq!(
        certificate().await.unwrap(),
        before,
        "nobody is surprised by the new authority"
    );
    until("the certificate is from the new authority", PATIENCE, || async {
        certificate().await.is_some_and(|now| now != before)
    })
    .await;
    let switched = begun.elapsed();
    for replica in [&first, &second] {
        until("every replica uses it", PATIENCE, || async {
            replica
                .metric("injector_certificate_reloads_total{result=\"ok\"}")
                .await
                == 2
        })
        .await;
    }
    // Some more with the new one.
    let (so_far, asked) = (first.metric(REVIEWS).await, second.metric(REVIEWS).await);
    until("reviews go on", PATIENCE, || async {
        first.metric(REVIEWS).await + second.metric(REVIEWS).await > so_far + asked + 20
    })
    .await;
    let (reviewed, failed) = reviews.end().await;
    println!("{reviewed} reviews; trusted after {trusted:?}, switched after {switched:?}");
    assert_eq!(failed, [] as [&str; 0], "of {reviewed}");
    assert!(reviewed > 20);
}

fn note(seen: &mut Vec<String>, now: String) {
    if seen.last() != Some(&now) {
        seen.push(now);
    }
}

/// Years in seconds: certificates and authorities end, two replicas renew them, and nobody notices.
#[tokio::test]
async fn no_review_fails_while_everything_is_renewed() {
    if cluster::skip("no_review_fails_while_everything_is_renewed") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("renewal").await;
    let times = Times {
        authority: Duration::from_secs(42),
        certificate: Duration::from_secs(15),
        settle: Duration::from_secs(2),
        overlap: Duration::from_secs(4),
        every: Duration::from_millis(500),
    };
    let (clients, shutdown) = (client(&installed).await, ops::shutdown::Shutdown::new());
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let config = Server {
            listen: format!("{}:0", installed.cluster.machine()).parse().unwrap(),
            admin: None,
            tls: TlsSource::Cluster(ClusterCertificates {
                service: "injector".to_owned(),
                webhook: installed.name().to_owned(),
                secret: "kubedaemon-injector-tls".to_owned(),
                names: Vec::new(),
                times,
            }),
            namespace: Some(installed.name().to_owned()),
            injection: Injection {
                image: "example.org/sidecar:1".to_owned(),
                broker_secret: None,
                drained_path: None,
                drain_key: None,
            },
            deadline: PATIENCE,
            drain_delay: Duration::ZERO,
        };
        let clients = k8s::Clients {
            requests: clients.clone(),
            watches: clients.clone(),
        };
        let bound = server::bind_with(config, Some(clients)).await.unwrap();
        replicas.push(bound.addr().unwrap());
        tokio::spawn(bound.run(shutdown.clone()));
    }
    installed.route_to(&replicas).await;
    installed.configure_at(&[&target], replicas[0]).await;
    until("the API server asks the injector", PATIENCE, || async {
        is_asked(installed.cluster, &target).await
    })
    .await;
    let reviews = Reviews::start(&installed, target.name()).await;
    let (bundles, certificates) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    // One authority, two, the other one alone: then everything has happened once.
    until(
        "an authority has come and another one gone",
        3 * PATIENCE,
        || async {
            let bundle = installed.bundles().await.remove(0);
            let certificate = installed.secret("kubedaemon-injector-tls", "tls.crt").await;
            note(&mut bundles.borrow_mut(), bundle);
            note(&mut certificates.borrow_mut(), certificate.unwrap());
            bundles.borrow().len() >= 3
        },
    )
    .await;
    let (bundles, certificates) = (bundles.into_inner(), certificates.into_inner());
    let (reviewed, failed) = reviews.end().await;
    println!(
        "{reviewed} reviews with {} certificates of {} bundles",
        certificates.len(),
        bundles.len()
    );
    shutdown.drain();
    assert_eq!(failed, [] as [&str; 0], "of {reviewed}");
    assert!(bundles[1].len() > bundles[0].len() && bundles[2].len() == bundles[0].len());
    assert!(certificates.len() > 2, "{}", certificates.len());
}

const REVIEWS: &str = "injector_admission_requests_total";

#[tokio::test]
async fn an_emptied_bundle_is_put_back() {
    if cluster::skip("an_emptied_bundle_is_put_back") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("emptied").await;
    let replica = installed.serve(&[&target]).await;
    let bundles = installed.bundles().await;
    assert!(bundles.len() == 2 && bundles[0] == bundles[1] && !bundles[0].is_empty());
    let remove = |i| json!({"op": "remove", "path": format!("/webhooks/{i}/clientConfig/caBundle")});
    let patch = json!([remove(0), remove(1)]).to_string();
    let patch = [
        "patch",
        "mutatingwebhookconfiguration",
        installed.name(),
        "--type=json",
        "--patch",
        &patch,
    ];
    installed.cluster.kubectl(&patch).await.unwrap();
    let begun = Instant::now();
    until("the bundle is back", PATIENCE, || async {
        installed.bundles().await == bundles
    })
    .await;
    println!("put back after {:?}", begun.elapsed());
    until("reviews work again", PATIENCE, || async {
        let reviewed = created(
            installed.cluster,
            &target,
            &pod("again", &queue()),
            &["--dry-run=server"],
        )
        .await;
        reviewed.is_ok_and(|pod| sidecar(&pod["spec"]).is_some())
    })
    .await;

    // The configuration written anew, as an upgrade does it that writes no bundle, does not touch it.
    installed.configure(&[&target], &replica).await;
    assert_eq!(installed.bundles().await, bundles);

    // Damage of what is stored is repaired.
    let damage = [
        "patch",
        "secret",
        "kubedaemon-injector-tls",
        "--patch",
        r#"{"data":{"ca.key":null}}"#,
    ];
    installed.release.kubectl(&damage).await.unwrap();
    until("the Secret is whole", PATIENCE, || async {
        installed
            .secret("kubedaemon-injector-tls", "ca.key")
            .await
            .is_some()
    })
    .await;
    let damage = [
        "patch",
        "secret",
        "kubedaemon-drain-key",
        "--patch",
        r#"{"data":{"public":"eA=="}}"#,
    ];
    let before = installed.secret("kubedaemon-drain-key", "public").await;
    installed.release.kubectl(&damage).await.unwrap();
    until("the public key fits again", PATIENCE, || async {
        installed.secret("kubedaemon-drain-key", "public").await == before
    })
    .await;
}

#[tokio::test]
async fn a_review_costs_little() {
    if cluster::skip("a_review_costs_little") {
        return;
    }
    // By address instead of by Service: both ways work.
    let installed = Installed::new(By::Url).await;
    let target = installed.cluster.namespace("latency").await;
    let replica = installed.serve(&[&target]).await;
    let pods = pods(&installed, target.name()).await;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        for (annotations, times) in [(queue(), &mut with), (json!({}), &mut without)] {
            let begun = Instant::now();
            review(&pods, &annotations).await.unwrap();
            times.push(begun.elapsed());
        }
    }
    let percentile = |times: &mut Vec<Duration>, percent: usize| {
        times.sort();
        times[times.len() * percent / 100]
    };
    for (name, times) in [("with a review", &mut with), ("without", &mut without)] {
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        println!("a pod {name}: p50 {p50:?}, p99 {p99:?}");
    }
    let asked = replica
        .metric("injector_admission_requests_total{operation=\"create\",kind=\"Pod\"}")
        .await;
    assert!(asked >= 300, "{asked}");
    let metrics = installed
        .cluster
        .kubectl(&["get", "--raw=/metrics"])
        .await
        .unwrap();
    let begin = "apiserver_admission_webhook_admission_duration_seconds";
    let ours = |line: &&str| line.starts_with(begin) && line.contains("name=\"pods.kubedaemon.io\"");
    for line in metrics.lines().filter(ours) {
        println!("{line}");
    }
}
