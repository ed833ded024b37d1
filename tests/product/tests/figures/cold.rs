//! Cold starts, split by who took the time.

use crate::distribution::Distribution;
use k8s::View;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use product::{Product, Shop, Worker};
use serde_json::json;
use std::time::Duration;
use testkit::wait::until;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_mins(2);

/// The moments of one cold start.
struct Moments {
    begun: Instant,
    scaled: Instant,
    made: Instant,
    bound: Instant,
    started: Instant,
    served: Instant,
}

const PHASES: [&str; 6] = [
    "all of it",
    "ours: seen, decided, /scale written",
    "API server and controllers: pod made",
    "scheduler: pod bound",
    "kubelet and containers: worker started",
    "ours and the worker: first byte",
];

fn distributions(all: &[Moments]) -> Vec<(&'static str, Distribution)> {
    let mut distributions: Vec<_> = PHASES
        .iter()
        .map(|phase| (*phase, Distribution::default()))
        .collect();
    for moments in all {
        let marks = [
            moments.begun,
            moments.scaled,
            moments.made,
            moments.bound,
            moments.started,
            moments.served,
        ];
        distributions[0].1.add(moments.served - moments.begun);
        for (index, pair) in marks.windows(2).enumerate() {
            // Watches and workers tell on ways of their own: one may be a moment late.
            distributions[index + 1]
                .1
                .add(pair[1].saturating_duration_since(pair[0]));
        }
    }
    distributions
}

/// What is seen of a Deployment's start.
struct Watched {
    deployments: View<Deployment>,
    pods: View<Pod>,
}

impl Watched {
    async fn new(shop: &Shop<'_>) -> Self {
        let clients = k8s::connect_with(&shop.product.kubeconfig()).await.unwrap();
        let watched = Self {
            deployments: View::follow(&clients, Some(shop.name()), "", |_| {}),
            pods: View::follow(&clients, Some(shop.name()), "app=worker", |_| {}),
        };
        watched.deployments.ready().await;
        watched.pods.ready().await;
        watched
    }

    fn replicas(&self, shop: &Shop<'_>) -> Option<i32> {
        self.deployments
            .get(shop.name(), "worker")?
            .spec
            .as_ref()?
            .replicas
    }

    async fn is_at_zero(&self, shop: &Shop<'_>) {
        until("the worker is at zero", PATIENCE, || async {
            self.replicas(shop) == Some(0) && self.pods.all().is_empty()
        })
        .await;
    }

    /// When the replicas were asked for, the pod was made and bound.
    async fn follow(&self, shop: &Shop<'_>) -> (Instant, Instant, Instant) {
        let scaled = when(&self.deployments.revisions(), || self.replicas(shop) > Some(0)).await;
        let made = when(&self.pods.revisions(), || !self.pods.all().is_empty()).await;
        let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let bound = when(&self.pods.revisions(), || {
            self.pods.all().iter().any(|pod| is_bound(pod))
        })
        .await;
        (scaled, made, bound)
    }
}

/// The moment at which a change makes it so.
async fn when(revisions: &tokio::sync::watch::Receiver<u64>, is_so: impl Fn() -> bool) -> Instant {
    let mut revisions = revisions.clone();
    loop {
        revisions.mark_unchanged();
        if is_so() {
            return Instant::now();
        }
        revisions.changed().await.unwrap();
    }
}

/// When a worker told an event for the first time after `from`.
async fn told(shop: &Shop<'_>, event: &str, from: Instant) -> Instant {
    until(event, PATIENCE, || async {
        let told = shop.told();
        told.iter()
            .find(|told| told.event == event && told.at >= from)
            .map(|told| told.at)
    })
    .await
}

/// From the publish to the worker's first byte.
pub(crate) async fn by_message(product: &Product, rounds: usize) -> Vec<(&'static str, Distribution)> {
    let shop = product.shop("figures-queue").await;
    let queue = shop.feed(&Worker::default(), &[("cool-down", "500ms")]).await;
    let watched = Watched::new(&shop).await;
    let mut all = Vec::new();
    for _ in 0..rounds {
        watched.is_at_zero(&shop).await;
        let begun = Instant::now();
        let publish = shop.publish(&queue, 1, |_| json!({}));
        let ((), (scaled, made, bound)) = tokio::join!(publish, watched.follow(&shop));
        let started = told(&shop, "start", begun).await;
        let served = told(&shop, "begin", begun).await;
        all.push(Moments {
            begun,
            scaled,
            made,
            bound,
            started,
            served,
        });
    }
    distributions(&all)
}

/// From the call to the first byte of its answer.
pub(crate) async fn by_call(product: &Product, rounds: usize) -> Vec<(&'static str, Distribution)> {
    let shop = product.shop("figures-call").await;
    let worker = Worker {
        service: true,
        ..Worker::default()
    };
    shop.deploy("worker", &worker).await;
    shop.annotate(
        "worker",
        &[("inject", Some("true")), ("cool-down", Some("500ms"))],
    )
    .await;
    shop.is_scaled("worker").await;
    let address = [
        "get",
        "service",
        "-n",
        product::SYSTEM,
        "kubedaemon-activator",
        "-o=jsonpath={.spec.clusterIP}",
    ];
    let ip = product.kubectl(&address).await.unwrap();
    let url = format!("http://{ip}/{}/worker/", shop.name());
    let watched = Watched::new(&shop).await;
    let mut all = Vec::new();
    for _ in 0..rounds {
        watched.is_at_zero(&shop).await;
        let begun = Instant::now();
        let call = async {
            let answer = testkit::http::get(&url).await.unwrap();
            assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
            Instant::now()
        };
        let (served, (scaled, made, bound)) = tokio::join!(call, watched.follow(&shop));
        let started = told(&shop, "start", begun).await;
        all.push(Moments {
            begun,
            scaled,
            made,
            bound,
            started,
            served,
        });
    }
    distributions(&all)
}
