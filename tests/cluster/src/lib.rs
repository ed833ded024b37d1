//! For tests only: a real Kubernetes of one node, and images made without Docker.
//!
//! | need | use |
//! |---|---|
//! | a cluster that all tests of a process share | [`cluster()`] with a [`Namespace`] for each test |
//! | a cluster whose components are to be stopped | [`Cluster::start`] |
//! | an image from a static program | [`Image`], [`Cluster::load_image`] |
//! | an image from a Go program's source | [`Cluster::load_go_program`] |
//! | to know whether this machine can run one | [`skip`], [`unavailable`] |
//!
//! etcd, the API server, the controller manager, the scheduler, the kubelet, the proxy, containerd and the cluster's
//! DNS run in process, mount and network namespaces of the node's own, in which they have their usual ports and
//! places. When the process that started a node ends, however it ends, the kernel ends all of it.
//!
//! The machine reaches pods and Services by their addresses, and pods reach the machine by [`Cluster::machine`];
//! nothing leaves the machine.

mod namespace;
mod node;
mod programs;

pub use image::Image;
pub use namespace::Namespace;
pub use programs::{skip, unavailable};

use node::{Node, files};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use testkit::wait::until;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// A node is ready within six seconds on an idle machine; builds beside it make that many times as long.
const START_PATIENCE: Duration = Duration::from_mins(3);

/// The cluster that all tests of this process share; it is started at the first call.
pub async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(Cluster::start).await
}

/// A Kubernetes of one node. It ends with the value, and nothing is left of it.
#[derive(Debug)]
pub struct Cluster {
    node: Node,
    programs: PathBuf,
}

impl Cluster {
    /// Starts a cluster: its API is ready and its node takes pods. What is not installed or built yet is so first,
    /// which takes minutes, once.
    pub async fn start() -> Self {
        Self::try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// A sentence that says why there is no cluster, with the end of the log that tells more.
    pub async fn try_start() -> io::Result<Self> {
        if let Some(reason) = unavailable() {
            return Err(io::Error::other(reason));
        }
        let cluster = tokio::task::spawn_blocking(|| {
            let programs = programs::build()?;
            let node = Node::start(&programs)?;
            node.start_components(&["containerd", "etcd", "kube-apiserver"])?;
            Ok::<_, io::Error>(Self { node, programs })
        });
        let cluster = cluster.await.map_err(io::Error::other)??;
        let pause = Image {
            name: files::PAUSE,
            program: &cluster.programs.join("pause"),
            arguments: &[],
            user: "",
        };
        // containerd is the first to be ready, and the first pod needs this image.
        cluster
            .became("containerd", || cluster.try_load_image(&pause))
            .await?;
        // Neither the kubelet nor the controller manager waits for long for what it needs.
        cluster.node.start_components(&["kubelet"])?;
        let ready = ["get", "--raw=/readyz"];
        let api = || async { cluster.kubectl(&ready).await.map(drop) };
        cluster.became("kube-apiserver", api).await?;
        let others = [
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "coredns",
        ];
        cluster.node.start_components(&others)?;
        let node = [
            "get",
            "node",
            files::NODE,
            "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}",
        ];
        cluster
            .became("kubelet", || async {
                let status = cluster.kubectl(&node).await?;
                (status == "True")
                    .then_some(())
                    .ok_or_else(|| format!("the node's condition Ready is {status:?}"))
            })
            .await?;
        Ok(cluster)
    }

    /// Waits until `check` succeeds; `component` is who is to blame when it does not.
    async fn became<F, Fut>(&self, component: &str, mut check: F) -> io::Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), String>>,
    {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let Err(error) = check().await else { return Ok(()) };
            if let Some(ended) = self.node.ended() {
                return Err(io::Error::other(ended));
            }
            if Instant::now() > deadline {
                let log = self.node.log(component);
                return Err(io::Error::other(format!(
                    "no cluster within {START_PATIENCE:?}: {error}\n{log}"
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The kubeconfig of an administrator. Gone as soon as the cluster is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.node.dir.join(files::KUBECONFIG)
    }

    /// The name of the only node.
    pub fn node_name(&self) -> &'static str {
        files::NODE
    }

    /// The node's address, where the API server listens on port 6443.
    pub fn node_address(&self) -> Ipv4Addr {
        self.node.addresses.node()
    }

    /// The machine's address as pods see it: what listens on it, pods can call.
    pub fn machine(&self) -> Ipv4Addr {
        self.node.addresses.machine()
    }

    /// The directory of `kubectl`, for people.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The directory with the logs of the components, `<name>.log`. Gone as soon as the cluster is.
    pub fn logs(&self) -> PathBuf {
        self.node.dir.join("logs")
    }

    /// The number of this cluster, from 0 to 31, which names what is outside of its namespaces: the network device
    /// `kd<number>`, the control groups and the directory `/tmp/kubedaemon-cluster-<number>`.
    pub fn number(&self) -> u8 {
        self.node.number
    }

    /// The id of the node's first process; all others are in its process namespace and end with it.
    pub fn pid(&self) -> u32 {
        self.node.pid
    }

    /// Runs `kubectl` as an administrator and returns what it printed on standard output.
    ///
    /// # Errors
    ///
    /// What it printed, when it failed.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.kubectl_with(args, "").await
    }

    /// As [`kubectl`](Self::kubectl), with `input` on standard input.
    ///
    /// # Errors
    ///
    /// What it printed, when it failed.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String, String> {
        let (program, kubeconfig) = self.kubectl_and_kubeconfig();
        let mut command = Command::new(program);
        command.args(args).env("KUBECONFIG", kubeconfig);
        run(command, input)
            .await
            .map_err(|error| format!("kubectl {}: {error}", args.join(" ")))
    }

    /// Creates or changes what the manifest says, YAML or JSON. Panics with what `kubectl` says when it is refused.
    pub async fn apply(&self, manifest: &str) {
        let applied = self.kubectl_with(&["apply", "-f", "-"], manifest).await;
        applied.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Makes a namespace of the name `<stem>-<random>`, ready for pods.
    pub async fn namespace(&self, stem: &str) -> Namespace<'_> {
        let name = testkit::unique(stem);
        let created = self.kubectl(&["create", "namespace", &name]).await;
        created.unwrap_or_else(|error| panic!("{error}"));
        let namespace = Namespace::new(self, name);
        // Pods are refused before this account exists.
        let account = ["get", "serviceaccount", "default"];
        until(
            "the namespace has its service account",
            START_PATIENCE,
            || async { namespace.kubectl(&account).await.is_ok() },
        )
        .await;
        namespace
    }

    /// Makes an image and gives it to the node, where pods find it with `imagePullPolicy: Never` or `IfNotPresent`.
    /// Panics with what containerd says when it cannot be had.
    pub async fn load_image(&self, image: &Image<'_>) {
        let loaded = self.try_load_image(image).await;
        loaded.unwrap_or_else(|error| panic!("{}: {error}", image.name));
    }

    /// Builds the Go program in the directory `source` and gives the node an image in which it lies at `/<name of the
    /// directory>`, and is run with the argument `serve` by a user who is not root. Panics with what Go says when it
    /// cannot be built.
    pub async fn load_go_program(&self, image: &str, source: &Path) {
        let directory = std::env::temp_dir().join(testkit::unique("program"));
        std::fs::create_dir(&directory).expect("a directory can be made");
        let program = directory.join(source.file_name().expect("the directory has a name"));
        let built = Command::new("go")
            .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(source)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-buildvcs=false")
            .env("GOWORK", "off")
            .status()
            .await
            .expect("Go is installed");
        assert!(built.success(), "{} cannot be built", source.display());
        let image = Image {
            name: image,
            program: &program,
            arguments: &["serve"],
            user: "65532",
        };
        self.load_image(&image).await;
        std::fs::remove_dir_all(&directory).expect("the directory can be removed");
    }

    /// Gives the node the images of an archive, as [`load_image`](Self::load_image) does.
    pub async fn load_archive(&self, archive: &Path) {
        let loaded = self.import(archive).await;
        loaded.unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    }

    async fn import(&self, archive: &Path) -> Result<String, String> {
        let path = archive.display().to_string();
        self.on_node(&["ctr", "--namespace=k8s.io", "images", "import", &path])
            .await
    }

    async fn try_load_image(&self, image: &Image<'_>) -> Result<(), String> {
        let archive = self.node.dir.join(testkit::unique("image"));
        image.write(&archive).map_err(|error| error.to_string())?;
        let imported = self.import(&archive).await;
        let removed = tokio::fs::remove_file(&archive).await;
        imported?;
        removed.map_err(|error| error.to_string())
    }

    /// Runs a program of the machine inside of the node, as root, and returns what it printed on standard output:
    /// `ctr`, `nft`, `ip`.
    ///
    /// # Errors
    ///
    /// What it printed, when it failed.
    pub async fn on_node(&self, command_line: &[&str]) -> Result<String, String> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.node.pid))
            .args(["--mount", "--net", "--pid", "--ipc"])
            .args(command_line);
        run(command, "").await
    }

    /// Ends a component, such as `kube-scheduler`, by SIGTERM; returns when it has ended. The API server takes a minute,
    /// in which it answers some requests still; see [`kill_component`](Self::kill_component).
    pub fn stop_component(&self, name: &str) {
        self.node.stop_component(name).expect("the node answers");
    }

    /// Ends a component by SIGKILL; returns when it has ended.
    pub fn kill_component(&self, name: &str) {
        self.node.kill_component(name).expect("the node answers");
    }

    /// Starts a component again; it is not ready yet when this returns.
    pub fn start_component(&self, name: &str) {
        self.node.start_component(name).expect("the node answers");
    }

    /// Ends the cluster and returns when nothing is left of it, as dropping it does.
    pub fn stop(self) {
        drop(self);
    }

    pub(crate) fn kubectl_and_kubeconfig(&self) -> (PathBuf, PathBuf) {
        (self.programs.join("kubectl"), self.kubeconfig())
    }
}

/// Runs a command to its end with `input` on its standard input.
async fn run(mut command: Command, input: &str) -> Result<String, String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that ends without reading says itself what is wrong.
            let _written = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Err(format!("{}: {stdout}{stderr}", output.status))
    }
}
