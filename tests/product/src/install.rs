//! The chart, installed as a user would, with a broker beside the cluster.

use crate::images::{self, root};
use crate::kube_api::KubeApi;
use crate::recorder::Recorder;
use crate::shop::Shop;
use cluster::Cluster;
use std::ops::Deref;
use std::process::Command;
use std::time::Duration;
use testkit::Broker;
use tokio::sync::OnceCell;

/// The namespace of our components.
pub const SYSTEM: &str = "kubedaemon-system";

/// How long parts of an installation may take, on a machine that is busy with a build.
const PATIENCE: Duration = Duration::from_mins(3);

/// A cluster with the product on it.
#[derive(Debug)]
pub struct Product {
    cluster: &'static Cluster,
    /// The API server.
    pub api: KubeApi,
    /// The broker.
    pub broker: Broker,
    /// What workers tell.
    pub recorder: Recorder,
}

impl Product {
    /// The product on the cluster that all tests of this process share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Product> = OnceCell::const_new();
        let install = || async {
            let product = Self::prepare().await;
            product.helm(&product.install_command()).unwrap();
            product.is_available().await;
            product
        };
        SHARED.get_or_init(install).await
    }

    /// A cluster with all images and a broker beside it, on which nothing is installed yet.
    pub async fn prepare() -> Self {
        let cluster = cluster::cluster().await;
        let broker = Broker::start_on(cluster.machine()).await;
        let recorder = Recorder::start(cluster.machine()).await;
        images::load(cluster).await;
        let api = KubeApi::new(&cluster.kubeconfig()).await;
        Self {
            cluster,
            api,
            broker,
            recorder,
        }
    }

    /// Waits until all of our components run.
    pub async fn is_available(&self) {
        let path = format!("/apis/apps/v1/namespaces/{SYSTEM}/deployments");
        self.api
            .until("the components are available", PATIENCE, || async {
                let components = self.api.items(&path).await.unwrap_or_default();
                components.len() == 3
                    && components.iter().all(|component| {
                        let wanted = &component["spec"]["replicas"];
                        component["status"]["readyReplicas"] == *wanted
                            && component["status"]["updatedReplicas"] == *wanted
                    })
            })
            .await;
    }

    fn install_command(&self) -> Vec<String> {
        let url = self.broker_url();
        [
            "install",
            "kubedaemon",
            "charts/kubedaemon",
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--set-string",
            &format!("broker.url={}", url.replace(',', "\\,")),
            "--set",
            "activator.wakeTimeout=20s",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// The broker's address for pods.
    pub fn broker_url(&self) -> String {
        self.broker.url_on(self.cluster.machine())
    }

    /// Runs helm on the cluster from the root of the tree; gives what it printed.
    ///
    /// # Errors
    /// What it printed, when it failed.
    pub fn helm(&self, arguments: &[String]) -> Result<String, String> {
        let mut command = Command::new(root().join("tools/helm"));
        command
            .args(arguments)
            .current_dir(root())
            .env("KUBECONFIG", self.cluster.kubeconfig());
        let output = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(said + &String::from_utf8_lossy(&output.stderr))
        }
    }

    /// A namespace for one test, with the Secret that pods find the broker by.
    pub async fn shop(&self, stem: &str) -> Shop<'_> {
        Shop::open(self, stem).await
    }
}

impl Deref for Product {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}
