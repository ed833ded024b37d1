//! A namespace with an account of exactly the documented rights, workloads with a stand-in for the sidecar, and
//! autoscalers as processes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use cluster::{Cluster, Namespace, cluster};
use lapin::BasicProperties;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testkit::process::Process;
use testkit::wait::{PATIENCE, until};
use testkit::{Amqp, Broker, broker, unique};
use tokio::sync::OnceCell;

pub(crate) const IMAGE: &str = "localhost/autoscaler-test-sidecar:1";

/// What the autoscaler may do, as `docs/reference/autoscaler.md` lists it.
const RULES: &str = r#"[
  {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["get", "list", "watch", "patch"]},
  {"apiGroups": ["apps"], "resources": ["deployments/scale", "statefulsets/scale"], "verbs": ["get", "patch"]},
  {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get", "list", "watch"]},
  {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
  {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "list", "watch"]},
  {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["get", "list", "watch"]},
  {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
  {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
  {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["kubedaemon-autoscaler"], "verbs": ["get", "patch"]},
  {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["kubedaemon-drain-key"], "verbs": ["get"]},
  {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
]"#;

/// The shared cluster with the image in it.
pub(crate) async fn cluster_with_image() -> &'static Cluster {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let cluster = cluster().await;
    LOADED.get_or_init(|| load_image(cluster)).await;
    cluster
}

pub(crate) async fn load_image(cluster: &Cluster) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/sidecar");
    cluster.load_go_program(IMAGE, &source).await;
}

/// A namespace in which autoscalers scale.
pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) namespace: Namespace<'a>,
    pub(crate) broker: &'static Broker,
    pub(crate) amqp: Amqp,
    pub(crate) queue: String,
    kubeconfig: PathBuf,
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        std::fs::remove_file(&self.kubeconfig).ok();
    }
}

impl<'a> Scene<'a> {
    pub(crate) async fn new(cluster: &'a Cluster, stem: &str) -> Self {
        let namespace = cluster.namespace(stem).await;
        let broker = broker().await;
        let key = token::Signer::generate().unwrap();
        let subject = json!({"kind": "ServiceAccount", "name": "autoscaler", "namespace": namespace.name()});
        let rules: Value = serde_json::from_str(RULES).unwrap();
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "autoscaler"}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
             "metadata": {"name": "autoscaler"}, "rules": rules},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
             "metadata": {"name": "autoscaler"}, "subjects": [subject],
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "autoscaler"}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kubedaemon-drain-key"},
             "stringData": {"private": key.private_key().unwrap(), "public": key.public_key()}},
        ]});
        namespace.apply(&objects.to_string()).await;
        let kubeconfig = kubeconfig(&namespace, cluster).await;
        Self {
            cluster,
            broker,
            amqp: broker.amqp().await,
            queue: unique("orders"),
            namespace,
            kubeconfig,
        }
    }

    /// Starts an autoscaler of this namespace.
    pub(crate) fn autoscaler(&self, arguments: &[&str]) -> Autoscaler {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autoscaler"));
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBEDAEMON_BROKER", self.broker.url())
            .args(["--namespace", self.namespace.name()])
            .args(["--watch-namespace", self.namespace.name()])
            .args(["--admin", "127.0.0.1:0", "--log", "info,autoscaler=debug"])
            .args(arguments);
        Autoscaler(Process::start(command))
    }

    pub(crate) async fn publish(&self, messages: usize) {
        let bodies = (0..messages).map(|_| ("x", BasicProperties::default()));
        self.amqp.publish_many(&self.queue, bodies).await;
    }

    /// A workload of the image with `replicas`, fed from the queue, with more annotations.
    pub(crate) async fn deploy(&self, kind: &str, name: &str, replicas: u32, annotations: &Value) {
        self.namespace
            .apply(&self.manifest(kind, name, replicas, annotations).to_string())
            .await;
    }

    pub(crate) fn manifest(&self, kind: &str, name: &str, replicas: u32, annotations: &Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "annotations": {"kubedaemon.io/queue": self.queue}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "initContainers": [{
                            "name": "kubedaemon-sidecar", "image": IMAGE, "imagePullPolicy": "Never",
                            "restartPolicy": "Always",
                            "readinessProbe": {
                                "httpGet": {"path": "/readyz", "port": 9464}, "periodSeconds": 1, "failureThreshold": 1,
                            },
                        }],
                        "containers": [{
                            "name": "worker", "image": IMAGE, "imagePullPolicy": "Never", "args": ["worker"],
                        }],
                    },
                },
            },
        });
        for (name, value) in annotations.as_object().unwrap() {
            manifest["metadata"]["annotations"][format!("kubedaemon.io/{name}")] = value.clone();
        }
        manifest
    }

    pub(crate) async fn get(&self, what: &str) -> Option<Value> {
        let found = self
            .namespace
            .kubectl(&["get", what, "--output=json"])
            .await
            .ok()?;
        serde_json::from_str(&found).ok()
    }

    pub(crate) async fn replicas(&self, what: &str) -> Option<u64> {
        self.get(what).await?["spec"]["replicas"].as_u64()
    }

    pub(crate) async fn until_replicas(&self, what: &str, replicas: u64) {
        let condition = format!("{what} has {replicas} replicas");
        until(&condition, 2 * PATIENCE, || async {
            self.replicas(what).await == Some(replicas)
        })
        .await;
    }

    pub(crate) async fn annotation(&self, what: &str, name: &str) -> Option<String> {
        let found = self.get(what).await?;
        found["metadata"]["annotations"][format!("kubedaemon.io/{name}")]
            .as_str()
            .map(str::to_owned)
    }

    /// Names and addresses of the pods that are neither ending nor without an address.
    pub(crate) async fn pods(&self, app: &str) -> Vec<(String, String)> {
        let pods = self
            .namespace
            .kubectl(&[
                "get",
                "pods",
                "--selector",
                &format!("app={app}"),
                "--output=json",
            ])
            .await
            .unwrap();
        let pods: Value = serde_json::from_str(&pods).unwrap();
        let mut found: Vec<_> = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| {
                let name = pod["metadata"]["name"].as_str()?.to_owned();
                Some((name, pod["status"]["podIP"].as_str()?.to_owned()))
            })
            .collect();
        found.sort();
        found
    }

    /// Waits until so many pods answer as the sidecar does.
    pub(crate) async fn until_pods(&self, app: &str, count: usize) -> Vec<(String, String)> {
        until("the pods answer", 2 * PATIENCE, || async {
            let pods = self.pods(app).await;
            for (_, address) in &pods {
                testkit::http::get(&format!("http://{address}:9464/status"))
                    .await
                    .ok()?;
            }
            (pods.len() == count).then_some(pods)
        })
        .await
    }

    /// Waits for an Event of this reason on the object, and returns its note.
    pub(crate) async fn event(&self, reason: &str, name: &str) -> String {
        until(&format!("there is an Event {reason}"), 2 * PATIENCE, || async {
            self.events(reason, name).await.pop()
        })
        .await
    }

    pub(crate) async fn events(&self, reason: &str, name: &str) -> Vec<String> {
        let Some(events) = self.get("events.events.k8s.io").await else {
            return Vec::new();
        };
        let events = events["items"].as_array().unwrap().iter();
        events
            .filter(|event| event["reason"] == reason && event["regarding"]["name"] == name)
            .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// Says what the worker of a pod does.
pub(crate) async fn set(address: &str, what: &str) {
    let answer = testkit::http::post(&format!("http://{address}:9464/set?{what}"), &[], "").await;
    assert!(answer.unwrap().status.is_success());
}

/// An autoscaler that runs.
pub(crate) struct Autoscaler(pub(crate) Process);

impl Autoscaler {
    pub(crate) async fn until_leading(&self) {
        self.0.wait_for_line("leading: this autoscaler acts").await;
    }

    /// Waits until it has made the queue.
    pub(crate) async fn until_queue(&self, queue: &str) {
        let made = format!("made the queue messaging.destination.name=\"{queue}\"");
        self.0.wait_for_line(&made).await;
    }

    pub(crate) async fn admin(&self) -> SocketAddr {
        let line = self.0.wait_for_line("admin port open").await;
        let address = line.rsplit("address=").next().unwrap();
        address.trim().parse().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> testkit::http::Response {
        let url = format!("http://{}{path}", self.admin().await);
        testkit::http::get(&url).await.unwrap()
    }

    pub(crate) async fn status(&self) -> Value {
        serde_json::from_slice(&self.get("/status").await.body).unwrap()
    }

    /// Waits until the last report of a target is as wanted, and returns it.
    pub(crate) async fn until_report(&self, target: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(
            &format!("the report of {target} is as wanted"),
            2 * PATIENCE,
            || async {
                let report = self.status().await["targets"][target].clone();
                (report.is_object() && wanted(&report)).then_some(report)
            },
        )
        .await
    }

    /// SIGTERM, and waits for a good end.
    pub(crate) async fn stop(self) {
        self.0.signal(rustix::process::Signal::TERM);
        let ended = self.0.wait().await;
        assert!(ended.success(), "{ended}: {:#?}", self.0.lines());
    }
}

/// For how long something has to stay as it is before a test believes that it does.
pub(crate) const STAYS: Duration = Duration::from_secs(4);

async fn kubeconfig(namespace: &Namespace<'_>, cluster: &Cluster) -> PathBuf {
    let token = namespace
        .kubectl(&["create", "token", "autoscaler", "--duration=2h"])
        .await
        .unwrap();
    let admin = cluster
        .kubectl(&["config", "view", "--raw", "--output=json"])
        .await
        .unwrap();
    let mut config: Value = serde_json::from_str(&admin).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let file = std::env::temp_dir().join(format!("{}.kubeconfig", namespace.name()));
    std::fs::write(&file, config.to_string()).unwrap();
    file
}
