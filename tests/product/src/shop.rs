//! A user's namespace with workers in it.

use crate::images::WORKER;
use crate::install::{Product, SYSTEM};
use crate::recorder::Recorded;
use cluster::Namespace;
use lapin::BasicProperties;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use testkit::Amqp;

/// How long the autoscaler may take to declare a queue, on a machine that is busy with a build.
const QUEUE_PATIENCE: Duration = Duration::from_mins(2);

/// A user's namespace: the broker's Secret is in it, and a pod to call from.
#[derive(Debug)]
pub struct Shop<'a> {
    /// The product.
    pub product: &'a Product,
    /// The namespace.
    pub namespace: Namespace<'a>,
    /// A client of the broker.
    pub amqp: Amqp,
}

/// How a worker's Deployment differs from the plainest.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The replicas that its author wrote.
    pub replicas: u32,
    /// The image.
    pub image: String,
    /// What the image is told to do.
    pub arguments: Vec<&'static str>,
    /// `resources` of the container.
    pub resources: Value,
    /// Whether it has a Service of its name.
    pub service: bool,
    /// Whether it says when it is ready.
    pub readiness: bool,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            replicas: 0,
            image: WORKER.to_owned(),
            arguments: vec!["serve"],
            resources: json!({}),
            service: false,
            readiness: false,
        }
    }
}

impl<'a> Shop<'a> {
    pub(crate) async fn open(product: &'a Product, stem: &str) -> Self {
        let namespace = product.namespace(stem).await;
        let secret = format!("--from-literal=url={}", product.broker_url());
        let made = namespace
            .kubectl(&["create", "secret", "generic", "kubedaemon-broker", &secret])
            .await;
        made.unwrap();
        Self {
            product,
            namespace,
            amqp: product.broker.amqp().await,
        }
    }

    /// The namespace's name.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Makes a Deployment as somebody would who has never heard of us.
    pub async fn deploy(&self, name: &str, worker: &Worker) {
        let mut container = json!({
            "name": "worker",
            "image": worker.image,
            "imagePullPolicy": "IfNotPresent",
            "args": worker.arguments,
            "env": [{"name": "RECORDER", "value": self.product.recorder.url(self.name())}],
            "ports": [{"containerPort": 8080}],
            "resources": worker.resources,
        });
        if worker.readiness {
            container["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
        }
        let mut manifest = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": worker.replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 30},
                },
            },
        })
        .to_string();
        if worker.service {
            let service = json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
            });
            manifest = format!("{manifest}\n---\n{service}");
        }
        self.namespace.apply(&manifest).await;
    }

    /// Annotates a Deployment; `None` takes an annotation away.
    pub async fn annotate(&self, name: &str, annotations: &[(&str, Option<&str>)]) {
        let mut arguments = vec![
            "annotate".to_owned(),
            "deployment".to_owned(),
            name.to_owned(),
            "--overwrite".to_owned(),
        ];
        arguments.extend(annotations.iter().map(|(key, value)| match value {
            Some(value) => format!("kubedaemon.io/{key}={value}"),
            None => format!("kubedaemon.io/{key}-"),
        }));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.namespace.kubectl(&arguments).await.unwrap();
    }

    /// Makes a Deployment `worker`, annotates it with a queue of its own and with these settings, and waits until the
    /// queue is there; gives the queue's name.
    pub async fn feed(&self, worker: &Worker, settings: &[(&str, &str)]) -> String {
        let queue = testkit::unique("fed");
        self.deploy("worker", worker).await;
        let mut all = vec![("queue", Some(queue.as_str()))];
        all.extend(settings.iter().map(|(key, value)| (*key, Some(*value))));
        self.annotate("worker", &all).await;
        self.is_declared(&queue).await;
        queue
    }

    /// Waits until the autoscaler has declared a queue.
    pub async fn is_declared(&self, queue: &str) {
        let check = || async { self.amqp.depth(queue).await.is_some() };
        let what = "the queue is declared";
        self.product.api.until(what, QUEUE_PATIENCE, check).await;
    }

    /// The Deployment as it is.
    pub async fn deployment(&self, name: &str) -> Value {
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/{name}", self.name());
        self.product.api.get(&path).await.unwrap_or_default()
    }

    /// The replicas that are asked for.
    pub async fn replicas(&self, name: &str) -> Option<u64> {
        self.deployment(name).await["spec"]["replicas"].as_u64()
    }

    /// The pods of a Deployment, those that end too.
    pub async fn pods(&self, name: &str) -> Vec<Value> {
        let path = format!(
            "/api/v1/namespaces/{}/pods?labelSelector=app%3D{name}",
            self.name()
        );
        self.product.api.items(&path).await.unwrap_or_default()
    }

    /// Waits until that many replicas are asked for and as many pods are there, none of them ending.
    pub async fn has_replicas(&self, name: &str, wanted: u64, patience: Duration) {
        let what = format!("{name} has {wanted} replicas");
        let check = || async {
            self.replicas(name).await == Some(wanted) && self.pods(name).await.len() as u64 == wanted
        };
        self.product.api.until(&what, patience, check).await;
    }

    /// Waits until the autoscaler has taken a Deployment over.
    pub async fn is_scaled(&self, name: &str) {
        let check = || async {
            let deployment = self.deployment(name).await;
            deployment["metadata"]["annotations"]["kubedaemon.io/original-replicas"].is_string()
        };
        let what = "the autoscaler takes the Deployment over";
        self.product.api.until(what, testkit::wait::PATIENCE, check).await;
    }

    /// Publishes messages with confirms; each has its index as `id`, and what `body` adds.
    pub async fn publish(&self, queue: &str, count: usize, body: impl Fn(usize) -> Value) {
        let bodies: Vec<String> = (0..count)
            .map(|index| {
                let mut body = body(index);
                body["id"] = json!(index.to_string());
                body.to_string()
            })
            .collect();
        let messages = bodies.into_iter().map(|body| (body, BasicProperties::default()));
        self.amqp.publish_many(queue, messages).await;
    }

    /// What workers told.
    pub fn told(&self) -> Vec<Recorded> {
        self.product.recorder.told(self.name())
    }

    /// How often each message ended, by id.
    pub fn ended(&self) -> BTreeMap<String, usize> {
        self.times("end")
    }

    /// How often each message began, by id.
    pub fn begun(&self) -> BTreeMap<String, usize> {
        self.times("begin")
    }

    fn times(&self, event: &str) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for told in self.told().into_iter().filter(|told| told.event == event) {
            *times.entry(told.id).or_default() += 1;
        }
        times
    }

    /// Waits until that many different messages have ended.
    pub async fn has_ended(&self, count: usize, patience: Duration) {
        let what = format!("{count} messages have ended");
        let check = || async { self.ended().len() >= count };
        self.product.api.until(&what, patience, check).await;
    }

    /// Waits until a queue has no message, ready or in flight, as far as the broker tells.
    pub async fn is_empty(&self, queue: &str, patience: Duration) {
        let check = || async { matches!(self.amqp.depth(queue).await, Some((0, _))) };
        self.product
            .api
            .until("the queue is empty", patience, check)
            .await;
    }

    /// The sentences of the Events on the objects of this namespace, each with its reason before it.
    pub async fn events(&self) -> Vec<String> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.name());
        let events = self.product.api.items(&path).await.unwrap_or_default();
        let word = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let ours = events
            .iter()
            .filter(|event| word(event, "reportingController").starts_with("kubedaemon"));
        ours.map(|event| format!("{}: {}", word(event, "reason"), word(event, "note")))
            .collect()
    }

    /// Makes a pod `caller` to call from, ready when this returns.
    pub async fn caller(&self) {
        let worker = Worker {
            replicas: 1,
            ..Worker::default()
        };
        self.deploy("caller", &worker).await;
        let wait = [
            "wait",
            "deployment/caller",
            "--for=condition=Available",
            "--timeout=120s",
        ];
        self.namespace.kubectl(&wait).await.unwrap();
    }

    /// Runs the worker's program in the pod `caller`, to call from there.
    ///
    /// # Errors
    /// What it printed, when it failed.
    pub async fn call(&self, arguments: &[&str]) -> Result<String, String> {
        let exec = ["exec", "deployment/caller", "--", "/worker"];
        self.namespace.kubectl(&[&exec, arguments].concat()).await
    }
}

/// A test that fails shows what the cluster says about it.
impl Drop for Shop<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let ours = |component: &str| format!("--selector=app.kubernetes.io/component={component}");
        let looks: [&[&str]; 5] = [
            &[
                "get",
                "deployments,pods,endpointslices",
                "--output=wide",
                "--namespace",
                self.name(),
            ],
            &["get", "events", "--namespace", self.name()],
            &[
                "get",
                "deployments",
                "--output=jsonpath={..metadata.annotations}",
                "--namespace",
                self.name(),
            ],
            &[
                "logs",
                &ours("autoscaler"),
                "--prefix",
                "--tail=60",
                "--namespace",
                SYSTEM,
            ],
            &[
                "logs",
                &ours("activator"),
                "--prefix",
                "--tail=60",
                "--namespace",
                SYSTEM,
            ],
        ];
        for look in looks {
            let shown = std::process::Command::new(self.product.programs().join("kubectl"))
                .args(look)
                .env("KUBECONFIG", self.product.kubeconfig())
                .output();
            if let Ok(shown) = shown {
                testkit::say(&format!(
                    "--- kubectl {}\n{}",
                    look.join(" "),
                    String::from_utf8_lossy(&shown.stdout)
                ));
            }
        }
    }
}
