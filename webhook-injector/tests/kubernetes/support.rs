//! An injector in a cluster: its namespace, rights, Service, webhook configuration and processes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster::{Cluster, Namespace, cluster};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use testkit::http;
use testkit::process::Process;
use testkit::wait::{PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const SIDECAR: &str = "example.org/sidecar:1";
const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// How the API server reaches the injector.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Service,
    Url,
}

/// All that an injector needs in the cluster. The webhook configuration goes with it.
pub(crate) struct Installed {
    pub(crate) cluster: &'static Cluster,
    /// The namespace of the components; its name is also that of the webhook configuration.
    pub(crate) release: Namespace<'static>,
    folder: PathBuf,
    by: By,
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Installed {
    /// Everything but the webhook configuration, in the cluster that tests share.
    pub(crate) async fn new(by: By) -> Self {
        Self::on(cluster().await, by).await
    }

    pub(crate) async fn on(cluster: &'static Cluster, by: By) -> Self {
        let release = cluster.namespace("injector").await;
        let folder = std::env::temp_dir().join(testkit::unique("injector"));
        std::fs::create_dir(&folder).unwrap();
        let installed = Self {
            cluster,
            release,
            folder,
            by,
        };
        cluster.apply(&installed.file("permissions.yaml")).await;
        cluster.apply(&installed.bindings()).await;
        installed.write_kubeconfig().await;
        installed
    }

    pub(crate) fn name(&self) -> &str {
        self.release.name()
    }

    fn file(&self, file: &str) -> String {
        let text = std::fs::read_to_string(format!("{FOLDER}/{file}")).unwrap();
        text.replace("WEBHOOK_NAME", self.name())
            .replace("SERVICE_NAME", "injector")
            .replace("RELEASE_NAMESPACE", self.name())
    }

    /// What gives the rights to the injector's account, and the account.
    fn bindings(&self) -> String {
        let name = self.name();
        format!(
            r"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: injector, namespace: {name}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: injector, namespace: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: injector}}
subjects: [{{kind: ServiceAccount, name: injector, namespace: {name}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{{kind: ServiceAccount, name: injector, namespace: {name}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: injector, namespace: {name}}}
spec: {{ports: [{{name: https, port: 443, targetPort: 8443}}]}}
"
        )
    }

    /// With the token of the injector's account instead of an administrator's certificate.
    async fn write_kubeconfig(&self) {
        let token = ["create", "token", "injector", "--duration=1h"];
        let token = self.release.kubectl(&token).await.unwrap();
        let view = ["config", "view", "--raw", "--flatten", "--output=json"];
        let mut config: Value = serde_json::from_str(&self.cluster.kubectl(&view).await.unwrap()).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        std::fs::write(self.folder.join("kubeconfig"), config.to_string()).unwrap();
    }

    /// Makes the webhook configuration; of all namespaces only these are asked about, because other tests run beside.
    pub(crate) async fn configure(&self, targets: &[&Namespace<'_>], replica: &Replica) {
        self.configure_at(targets, replica.address).await;
    }

    /// As [`configure`](Self::configure), of a server that is no process.
    pub(crate) async fn configure_at(&self, targets: &[&Namespace<'_>], address: SocketAddr) {
        self.configure_as(self.name(), targets, address).await;
    }

    /// As [`configure`](Self::configure), under another name, of which the injector does not know.
    pub(crate) async fn configure_as(&self, name: &str, targets: &[&Namespace<'_>], address: SocketAddr) {
        let text = self.file("webhook-configuration.yaml");
        let mut configuration: Value = serde_saphyr::from_str(&text).unwrap();
        configuration["metadata"]["name"] = json!(name);
        let targets: Vec<&str> = targets.iter().map(|target| target.name()).collect();
        for hook in configuration["webhooks"].as_array_mut().unwrap() {
            // A machine that builds beside the tests may well take 2 s.
            hook["timeoutSeconds"] = json!(10);
            let only = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": targets});
            let namespaces = &mut hook["namespaceSelector"]["matchExpressions"];
            namespaces.as_array_mut().unwrap().push(only);
            if self.by == By::Url {
                hook["clientConfig"] = json!({"url": format!("https://{address}/mutate")});
            }
        }
        self.cluster.apply(&configuration.to_string()).await;
    }

    /// Sends the Service's calls to these replicas.
    pub(crate) async fn route(&self, replicas: &[&Replica]) {
        let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address).collect();
        self.route_to(&addresses).await;
    }

    /// As [`route`](Self::route), to servers that are no processes.
    pub(crate) async fn route_to(&self, addresses: &[SocketAddr]) {
        let slice = |(i, address): (usize, &SocketAddr)| {
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("injector-{i}"),
                    "namespace": self.name(),
                    "labels": {"kubernetes.io/service-name": "injector"},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
                "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
            })
        };
        let slices: Vec<Value> = addresses.iter().enumerate().map(slice).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": slices});
        self.cluster.apply(&list.to_string()).await;
    }

    /// Starts a replica; it may not be ready yet.
    pub(crate) async fn start(&self) -> Replica {
        self.start_on(&format!("{}:0", self.cluster.machine())).await
    }

    pub(crate) async fn start_on(&self, listen: &str) -> Replica {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webhook-injector"));
        command
            .args([
                "serve",
                "--image",
                SIDECAR,
                "--broker-secret",
                "kubedaemon-broker/url",
            ])
            .args([
                "--cluster-certificates",
                "--service",
                "injector",
                "--webhook",
                self.name(),
            ])
            .args([
                "--listen",
                listen,
                "--admin",
                "127.0.0.1:0",
                "--drain-delay",
                "0s",
            ])
            .env("KUBEDAEMON_NAMESPACE", self.name())
            .env("KUBECONFIG", self.folder.join("kubeconfig"));
        if self.by == By::Url {
            command.args(["--dns-name", &self.cluster.machine().to_string()]);
        }
        let process = Process::start(command);
        let address = address(&process.wait_for_line("reviews are answered").await);
        let admin = address_of_admin(&process).await;
        Replica {
            process,
            address,
            admin,
        }
    }

    /// One replica that is asked about these namespaces.
    pub(crate) async fn serve(&self, targets: &[&Namespace<'_>]) -> Replica {
        let replica = self.start().await;
        self.route(&[&replica]).await;
        self.configure(targets, &replica).await;
        replica.ready().await;
        for target in targets {
            until("the API server asks the injector", PATIENCE, || async {
                is_asked(self.cluster, target).await
            })
            .await;
        }
        replica
    }

    /// The `caBundle` of each webhook, in base64; empty ones too.
    pub(crate) async fn bundles(&self) -> Vec<String> {
        let get = [
            "get",
            "mutatingwebhookconfiguration",
            self.name(),
            "--output=json",
        ];
        let configuration: Value = serde_json::from_str(&self.cluster.kubectl(&get).await.unwrap()).unwrap();
        let hooks = configuration["webhooks"].as_array().unwrap().iter();
        hooks
            .map(|hook| {
                hook["clientConfig"]["caBundle"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }

    /// A connection to the replica as the API server makes them, trusting what it trusts.
    pub(crate) async fn connect(&self, replica: &Replica) -> TlsStream<TcpStream> {
        let bundle = STANDARD.decode(self.bundles().await.remove(0)).unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&bundle).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(format!("injector.{}.svc", self.name())).unwrap();
        let stream = TcpStream::connect(replica.address).await.unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// An entry of a Secret in the release namespace, in base64.
    pub(crate) async fn secret(&self, name: &str, entry: &str) -> Option<String> {
        let secret = self
            .release
            .kubectl(&["get", "secret", name, "--output=json"])
            .await
            .ok()?;
        let secret: Value = serde_json::from_str(&secret).unwrap();
        Some(secret["data"][entry].as_str()?.to_owned())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // What is not in a namespace does not go with it.
        for kind in [
            "mutatingwebhookconfiguration",
            "clusterrole",
            "clusterrolebinding",
        ] {
            let _removed = Command::new(self.cluster.programs().join("kubectl"))
                .args([
                    "--request-timeout=5s",
                    "delete",
                    "--wait=false",
                    kind,
                    self.name(),
                ])
                .env("KUBECONFIG", self.cluster.kubeconfig())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl Replica {
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = http::get(&format!("http://{}{path}", self.admin)).await.unwrap();
        (answer.status.as_u16(), answer.text())
    }

    pub(crate) async fn ready(&self) {
        until("the injector is ready", PATIENCE, || async {
            self.get("/readyz").await.0 == 200
        })
        .await;
    }

    /// The sum of the samples whose line begins with this.
    pub(crate) async fn metric(&self, begin: &str) -> u64 {
        let (_, page) = self.get("/metrics").await;
        let samples = page.lines().filter(|line| line.starts_with(begin));
        samples
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

/// Sends a review of a pod with a queue and returns the `response` of its answer.
pub(crate) async fn review_on(mut stream: TlsStream<TcpStream>) -> Value {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let request = json!({"uid": "u", "operation": "CREATE", "kind": kind, "object": pod("direct", &queue())});
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    let body = body.to_string();
    let head = format!(
        "POST /mutate HTTP/1.1\r\nhost: injector\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap()["response"].take()
}

fn address(line: &str) -> SocketAddr {
    let (_, address) = line.split_once("address=").unwrap();
    address.split_whitespace().next().unwrap().parse().unwrap()
}

async fn address_of_admin(process: &Process) -> SocketAddr {
    let at = address(&process.wait_for_line("admin port open").await);
    assert_eq!(at.ip(), Ipv4Addr::LOCALHOST);
    at
}

/// Whether pods of this namespace are reviewed at this moment.
pub(crate) async fn is_asked(cluster: &Cluster, target: &Namespace<'_>) -> bool {
    let pod = pod("asked", &json!({"kubedaemon.io/queue": "asked"}));
    created(cluster, target, &pod, &["--dry-run=server"])
        .await
        .is_ok_and(|pod| sidecar(&pod["spec"]).is_some())
}

/// Creates the object and returns it as it is stored, or what `kubectl` said.
pub(crate) async fn created(
    cluster: &Cluster,
    target: &Namespace<'_>,
    object: &Value,
    flags: &[&str],
) -> Result<Value, String> {
    let mut args = vec![
        "--namespace",
        target.name(),
        "create",
        "--filename=-",
        "--output=json",
    ];
    args.extend(flags);
    let out = cluster.kubectl_with(&args, &object.to_string()).await?;
    Ok(serde_json::from_str(&out).unwrap())
}

/// An object as it is stored.
pub(crate) async fn get(namespace: &Namespace<'_>, what: &str) -> Value {
    let out = namespace.kubectl(&["get", what, "--output=json"]).await.unwrap();
    serde_json::from_str(&out).unwrap()
}

/// The specification of pods of a worker that is never started: its image is nowhere. It is of the restricted level.
pub(crate) fn spec() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "app",
            "image": "localhost/nowhere:1",
            "imagePullPolicy": "Never",
            "ports": [{"containerPort": 3000}],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    })
}

pub(crate) fn pod(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": spec(),
    })
}

/// A workload of one replica.
pub(crate) fn workload(kind: &str, name: &str, annotations: &Value) -> Value {
    let labels = json!({"app": name});
    let mut workload = json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec()},
        },
    });
    if kind == "StatefulSet" {
        workload["spec"]["serviceName"] = json!(name);
    }
    workload
}

pub(crate) fn queue() -> Value {
    json!({"kubedaemon.io/queue": "orders"})
}

/// The sidecar in the specification of a pod.
pub(crate) fn sidecar(spec: &Value) -> Option<&Value> {
    let containers = spec["initContainers"].as_array()?;
    containers
        .iter()
        .find(|container| container["name"] == "kubedaemon-sidecar")
}

/// Waits for a pod of the workload of which this holds, and returns it.
pub(crate) async fn pod_of(namespace: &Namespace<'_>, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let selector = format!("--selector=app={name}");
    until("the workload has the pod", PATIENCE, || async {
        let out = namespace
            .kubectl(&["get", "pods", &selector, "--output=json"])
            .await
            .ok()?;
        let list: Value = serde_json::from_str(&out).ok()?;
        let pods = list["items"].as_array()?.iter();
        let mut living = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        living.find(|pod| wanted(pod)).cloned()
    })
    .await
}

/// The names of our annotations at this place.
pub(crate) fn ours(object: &Value, place: &str) -> Vec<String> {
    let annotations = object.pointer(place).and_then(Value::as_object);
    let names = annotations.into_iter().flat_map(|annotations| annotations.keys());
    names
        .filter(|name| name.starts_with("kubedaemon.io/"))
        .cloned()
        .collect()
}
