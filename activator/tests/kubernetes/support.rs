//! A worker image, workloads of it, and activators beside the cluster.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use cluster::{Cluster, Namespace, cluster};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use testkit::process::Process;
use testkit::wait::{PATIENCE, until};
use tokio::sync::OnceCell;

pub(crate) const IMAGE: &str = "localhost/activator-worker:1";

/// The shared cluster with the workers' image in it.
pub(crate) async fn cluster_with_worker() -> &'static Cluster {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let cluster = cluster().await;
    LOADED.get_or_init(|| load_worker(cluster)).await;
    cluster
}

/// Builds the program of the cluster's own tests and gives it to the node.
pub(crate) async fn load_worker(cluster: &Cluster) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cluster/tests/probe");
    cluster.load_go_program(IMAGE, &source).await;
}

/// A Deployment `worker` at zero that is only called over HTTP, to be changed by the test.
pub(crate) fn worker() -> Value {
    workload("Deployment")
}

/// As [`worker`], of another kind.
pub(crate) fn workload(kind: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": { "name": "worker", "annotations": { "kubedaemon.io/inject": "true" } },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "worker" } },
            "template": {
                "metadata": { "labels": { "app": "worker" } },
                "spec": {
                    "terminationGracePeriodSeconds": 3,
                    "containers": [{
                        "name": "worker",
                        "image": IMAGE,
                        "imagePullPolicy": "Never",
                        "ports": [{ "name": "http", "containerPort": 8080 }],
                    }],
                },
            },
        },
    })
}

/// The only container of a workload.
pub(crate) fn container(workload: &mut Value) -> &mut Value {
    &mut workload["spec"]["template"]["spec"]["containers"][0]
}

/// A Service `worker` for [`worker`], with a port that leads elsewhere as well.
pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "worker" },
        "spec": {
            "selector": { "app": "worker" },
            "ports": [
                { "name": "http", "port": 80, "targetPort": "http" },
                { "name": "metrics", "port": 9090, "targetPort": 9090 },
            ],
        },
    })
}

/// A pod `caller` of the same image, running when this returns.
pub(crate) async fn deploy_caller(namespace: &Namespace<'_>) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "caller" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "caller", "image": IMAGE, "imagePullPolicy": "Never" }],
        },
    });
    namespace.apply(&pod.to_string()).await;
    let ready = ["wait", "pod/caller", "--for=condition=Ready", "--timeout=60s"];
    namespace.kubectl(&ready).await.unwrap();
}

/// Calls `url` from the pod `caller`; what was answered, beginning with the status.
pub(crate) async fn call_from_pod(namespace: &Namespace<'_>, url: &str) -> Result<String, String> {
    namespace
        .kubectl(&["exec", "caller", "--", "/probe", "get", url])
        .await
}

/// Scales the worker to zero and waits until its pods have gone.
pub(crate) async fn put_to_sleep(namespace: &Namespace<'_>) {
    let scale = ["scale", "deployment/worker", "--replicas=0"];
    namespace.kubectl(&scale).await.unwrap();
    let gone = [
        "wait",
        "pod",
        "--selector=app=worker",
        "--for=delete",
        "--timeout=60s",
    ];
    namespace.kubectl(&gone).await.unwrap();
}

/// How often the workload's specification has changed, its creation included.
pub(crate) async fn generation(namespace: &Namespace<'_>) -> u32 {
    let asked = [
        "get",
        "deployment/worker",
        "--output=jsonpath={.metadata.generation}",
    ];
    namespace.kubectl(&asked).await.unwrap().parse().unwrap()
}

/// A replica of the activator, ready; it is killed with the value.
pub(crate) struct Replica {
    pub(crate) process: Process,
    /// Where calls by name are taken.
    pub(crate) url: String,
    /// Its admin port.
    pub(crate) admin: String,
    /// Its name, which stands on its slices.
    pub(crate) pod: String,
}

impl Replica {
    /// An activator for the workloads of `namespace`, with its own pod in a namespace that is not there.
    pub(crate) async fn start(cluster: &Cluster, namespace: &Namespace<'_>, flags: &[&str]) -> Self {
        let own = format!("{}-own", namespace.name());
        Self::start_as(cluster, namespace, (&own, &testkit::unique("activator")), flags).await
    }

    /// An activator whose own namespace and pod have these names.
    pub(crate) async fn start_as(
        cluster: &Cluster,
        namespace: &Namespace<'_>,
        (own, pod): (&str, &str),
        flags: &[&str],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_activator"));
        command
            .args(["--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"])
            .args(["--watch-namespace", namespace.name(), "--drain-delay", "1s"])
            .args(flags)
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("KUBEDAEMON_NAMESPACE", own)
            .env("KUBEDAEMON_POD_NAME", pod)
            .env("KUBEDAEMON_POD_IP", cluster.machine().to_string());
        let process = Process::start(command);
        let port = |line: &str| line.rsplit(':').next().unwrap().trim().to_owned();
        let calls = port(&process.wait_for_line("calls are taken").await);
        let admin = port(&process.wait_for_line("admin port open").await);
        let replica = Self {
            process,
            url: format!("http://{}:{calls}", Ipv4Addr::LOCALHOST),
            admin: format!("http://{}:{admin}", Ipv4Addr::LOCALHOST),
            pod: pod.to_owned(),
        };
        until("the activator is ready", PATIENCE, || async {
            let answer = testkit::http::get(&format!("{}/readyz", replica.admin)).await;
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        replica
    }

    /// A document of the admin port.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let answer = testkit::http::get(&format!("{}{path}", self.admin))
            .await
            .unwrap();
        serde_json::from_str(&answer.text()).unwrap()
    }

    /// The address of the worker of `namespace`, by path.
    pub(crate) fn worker(&self, namespace: &Namespace<'_>) -> String {
        format!("{}/{}/worker/", self.url, namespace.name())
    }

    /// Waits until it knows the worker.
    pub(crate) async fn knows(&self, namespace: &Namespace<'_>) {
        let name = format!("{}/worker", namespace.name());
        until("the worker is a target", PATIENCE, || async {
            !self.admin("/status").await["targets"][&name].is_null()
        })
        .await;
    }
}

/// The names of the activators whose slices are behind Services of the namespace, in order.
pub(crate) async fn standing(namespace: &Namespace<'_>) -> Vec<String> {
    let asked = [
        "get",
        "endpointslices",
        "--selector=endpointslice.kubernetes.io/managed-by=kubedaemon-activator",
        "--output=jsonpath={.items[*].metadata.labels.kubedaemon\\.io/activator}",
    ];
    let names = namespace.kubectl(&asked).await.unwrap();
    let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    names.sort();
    names
}

/// Makes a pod that never runs, and says whether it is ready.
pub(crate) async fn stub(namespace: &Namespace<'_>, name: &str, is_ready: bool) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "schedulingGates": [{ "name": "kubedaemon.io/never" }],
            "containers": [{ "name": "stub", "image": "localhost/none:1" }],
        },
    });
    namespace.apply(&pod.to_string()).await;
    set_condition(namespace, name, "Ready", is_ready).await;
}

/// Says of a pod, as its kubelet would, whether a condition holds.
pub(crate) async fn set_condition(namespace: &Namespace<'_>, pod: &str, condition: &str, holds: bool) {
    let status = if holds { "True" } else { "False" };
    let patch = json!({ "status": { "conditions": [{ "type": condition, "status": status }] } }).to_string();
    let patch = ["patch", "pod", pod, "--subresource=status", "--patch", &patch];
    namespace.kubectl(&patch).await.unwrap();
}

/// Calls a worker that is changed as `change` says, and returns what the caller is told after a few seconds.
pub(crate) async fn told(namespace: &Namespace<'_>, change: impl FnOnce(&mut Value)) -> String {
    let cluster = cluster_with_worker().await;
    let mut worker = worker();
    change(&mut worker);
    namespace.apply(&worker.to_string()).await;
    let flags = ["--takeover", "off", "--wake-timeout", "6s"];
    let replica = Replica::start(cluster, namespace, &flags).await;
    replica.knows(namespace).await;
    let url = replica.worker(namespace);
    let call = tokio::spawn(async move { testkit::http::get(&url).await.unwrap() });
    // The autoscaler learns of a call from the moment on at which it begins to wait.
    let name = format!("{}/worker", namespace.name());
    until("the call is counted", PATIENCE, || async {
        replica.admin("/calls").await["calls"][&name] == 1
    })
    .await;
    let answer = call.await.unwrap();
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(replica.admin("/calls").await["calls"], json!({}));
    let problem: Value = serde_json::from_str(&answer.text()).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

/// The name of a pod of the worker, other than these.
pub(crate) async fn another_pod(namespace: &Namespace<'_>, than: &[String]) -> Option<String> {
    let pods = [
        "get",
        "pods",
        "--selector=app=worker",
        "--output=jsonpath={.items[*].metadata.name}",
    ];
    let names = namespace.kubectl(&pods).await.unwrap();
    names
        .split_whitespace()
        .find(|name| than.iter().all(|known| known != name))
        .map(str::to_owned)
}
