//! The chart and a real API server, without our images: what it accepts, what an upgrade leaves alone, what is left
//! when the release is gone.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use chart::{Rendering, helm_on};
use cluster::{Cluster, Namespace, cluster};
use serde_json::json;
use std::time::Duration;
use testkit::wait::until;
use tokio::sync::Mutex;

const PATIENCE: Duration = Duration::from_mins(1);
/// Lets only pods in that are of this level of the Pod Security Standards.
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

/// One release at a time: the API server asks every injector that is installed, also one of another test.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The chart in a namespace that lets only pods of the restricted level in; they start nothing, for lack of images.
struct Release<'a> {
    cluster: &'a Cluster,
    namespace: Namespace<'a>,
    name: String,
}

impl<'a> Release<'a> {
    async fn new(cluster: &'a Cluster) -> Self {
        let namespace = cluster.namespace("system").await;
        let label = ["label", "namespace", namespace.name(), RESTRICTED];
        cluster.kubectl(&label).await.unwrap();
        // A name of its own, because some objects belong to no namespace.
        let name = namespace.name().replace("system", "kubedaemon");
        Self {
            cluster,
            namespace,
            name,
        }
    }

    /// `helm COMMAND` of this release, with what it printed.
    async fn helm(&self, command: &str, arguments: &[&str]) -> String {
        let kubeconfig = self.cluster.kubeconfig();
        let all = [
            &[command, &self.name],
            arguments,
            &["--namespace", self.namespace.name()],
        ];
        let all: Vec<String> = all.concat().into_iter().map(str::to_owned).collect();
        let run = move || helm_on(&kubeconfig, &all.iter().map(String::as_str).collect::<Vec<_>>());
        let done = tokio::task::spawn_blocking(run).await.unwrap();
        done.unwrap_or_else(|error| panic!("helm {command}: {error}"))
    }

    /// `helm install` or `helm upgrade`.
    async fn apply(&self, command: &str, values: &[&str]) -> String {
        let chart = [
            "charts/kubedaemon",
            "--set=image.pullPolicy=Never",
            "--set=broker.url=amqp://rabbitmq",
        ];
        self.helm(command, &[&chart, values].concat()).await
    }

    fn configuration(&self) -> String {
        format!("mutatingwebhookconfiguration/{}-injector", self.name)
    }

    /// Of both webhooks, what is trusted and how long may be waited.
    async fn webhooks(&self) -> String {
        let fields = "--output=jsonpath={.webhooks[*].clientConfig.caBundle} {.webhooks[*].timeoutSeconds}";
        let get = ["get", &self.configuration(), fields];
        self.cluster.kubectl(&get).await.unwrap()
    }

    /// Does what an injector would do. Any authority will do: that of the API server is at hand. Gives it in base64.
    async fn trust_an_authority(&self) -> String {
        let field = "--output=jsonpath={.clusters[0].cluster.certificate-authority-data}";
        let view = ["config", "view", "--raw", "--flatten", field];
        let authority = self.cluster.kubectl(&view).await.unwrap();
        let add = |webhook: u8| {
            let path = format!("/webhooks/{webhook}/clientConfig/caBundle");
            json!({"op": "add", "path": path, "value": authority})
        };
        let patch = format!("--patch={}", json!([add(0), add(1)]));
        let patch = ["patch", &self.configuration(), "--type=json", &patch];
        self.cluster.kubectl(&patch).await.unwrap();
        authority
    }
}

#[tokio::test]
async fn the_api_server_accepts_everything_that_is_rendered() {
    if cluster::skip("the_api_server_accepts_everything_that_is_rendered") {
        return;
    }
    let cluster = cluster().await;
    for namespace in [chart::NAMESPACE, "shop"] {
        cluster
            .kubectl(&["create", "namespace", namespace])
            .await
            .unwrap();
        // The pod of `helm test` is refused before its account exists.
        let account = ["get", "serviceaccount", "default", "--namespace", namespace];
        until("the namespace has its service account", PATIENCE, || async {
            cluster.kubectl(&account).await.is_ok()
        })
        .await;
    }
    for rendering in Rendering::ALL {
        let mut objects = rendering.objects();
        // Its definition is the Prometheus Operator's.
        objects.retain(|object| object["kind"] != "ServiceMonitor");
        let all = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let dry = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
        let accepted = cluster.kubectl_with(&dry, &all).await;
        let accepted = accepted.unwrap_or_else(|error| panic!("{}: {error}", rendering.as_str()));
        assert_eq!(accepted.lines().count(), objects.len(), "{}", rendering.as_str());
    }
}

#[tokio::test]
async fn an_upgrade_keeps_the_authority() {
    if cluster::skip("an_upgrade_keeps_the_authority") {
        return;
    }
    let _alone = ALONE.lock().await;
    let release = Release::new(cluster().await).await;
    let notes = release.apply("install", &[]).await;
    assert!(notes.contains("kubectl annotate deployment"), "{notes}");
    until("the restricted level lets all pods in", PATIENCE, || async {
        let pods = release.namespace.kubectl(&["get", "pods", "--output=name"]).await;
        pods.is_ok_and(|pods| pods.lines().count() == 6)
    })
    .await;
    let authority = release.trust_an_authority().await;
    release
        .apply("upgrade", &["--set=injector.timeoutSeconds=3"])
        .await;
    assert_eq!(release.webhooks().await, format!("{authority} {authority} 3 3"));
    release.helm("rollback", &["1"]).await;
    assert_eq!(release.webhooks().await, format!("{authority} {authority} 2 2"));
    release.helm("uninstall", &[]).await;
}

#[tokio::test]
async fn uninstalling_leaves_workloads_as_they_are_and_nothing_in_their_way() {
    if cluster::skip("uninstalling_leaves_workloads_as_they_are_and_nothing_in_their_way") {
        return;
    }
    let _alone = ALONE.lock().await;
    let cluster = cluster().await;
    let (release, shop) = (Release::new(cluster).await, cluster.namespace("shop").await);
    let image = "--image=localhost/pause:1";
    let deployment = ["create", "deployment", "worker", image, "--replicas=2"];
    shop.kubectl(&deployment).await.unwrap();
    let annotate = ["annotate", "deployment", "worker", "kubedaemon.io/queue=orders"];
    shop.kubectl(&annotate).await.unwrap();
    let fields = "--output=jsonpath={.spec.replicas} {.metadata.generation}";
    let replicas = ["get", "deployment", "worker", fields];
    let before = shop.kubectl(&replicas).await.unwrap();

    release.apply("install", &[]).await;
    let change = ["annotate", "deployment", "worker", "kubedaemon.io/concurrency=2"];
    let refused = shop.kubectl(&change).await.unwrap_err();
    assert!(refused.contains("failed calling webhook"), "{refused}");
    release.helm("uninstall", &[]).await;
    assert_eq!(shop.kubectl(&replicas).await.unwrap(), before);
    shop.kubectl(&change).await.unwrap();
    let selector = format!("--selector=app.kubernetes.io/instance={}", release.name);
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations";
    let left = cluster.kubectl(&["get", kinds, &selector, "--output=name"]).await;
    assert_eq!(left.unwrap(), "");
}
