//! A namespace for one test.

use crate::Cluster;
use std::process::{Command, Stdio};

/// A namespace that no other test uses. It is removed with the value, and Kubernetes removes what is in it soon
/// after.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    pub(crate) fn new(cluster: &'a Cluster, name: String) -> Self {
        Self { cluster, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`Cluster::kubectl`], in this namespace.
    ///
    /// # Errors
    ///
    /// What `kubectl` printed, when it failed.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(&self.within(args)).await
    }

    /// As [`Cluster::apply`], in this namespace.
    pub async fn apply(&self, manifest: &str) {
        let applied = self
            .cluster
            .kubectl_with(&self.within(&["apply", "-f", "-"]), manifest)
            .await;
        applied.unwrap_or_else(|error| panic!("{error}"));
    }

    fn within<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(args);
        all
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let (program, kubeconfig) = self.cluster.kubectl_and_kubeconfig();
        // A test that failed because the API server is away must not wait for it here.
        let arguments = [
            "--request-timeout=5s",
            "delete",
            "namespace",
            "--wait=false",
            &self.name,
        ];
        // What cannot be removed now goes with the cluster, and the test has its own verdict.
        let _removed = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
