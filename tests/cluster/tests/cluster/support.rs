//! The image that the tests run, and a Deployment of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use cluster::{Cluster, Image, Namespace, cluster};
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::sync::OnceCell;

pub(crate) const IMAGE: &str = "localhost/probe:1";

/// The shared cluster with the image of the tests in it.
pub(crate) async fn cluster_with_probe() -> &'static Cluster {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let cluster = cluster().await;
    let load = || async {
        let dir = std::env::temp_dir().join(testkit::unique("probe"));
        std::fs::create_dir(&dir).unwrap();
        let program = build_probe(&dir);
        let image = Image {
            name: IMAGE,
            program: &program,
            arguments: &["serve"],
            user: "65532",
        };
        cluster.load_image(&image).await;
        std::fs::remove_dir_all(&dir).unwrap();
    };
    LOADED.get_or_init(load).await;
    cluster
}

fn build_probe(dir: &Path) -> PathBuf {
    let program = dir.join("probe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe");
    let built = Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off")
        .status();
    assert!(built.unwrap().success(), "the probe is built");
    program
}

/// A Deployment `probe` of one pod behind a Service `probe`, available when this returns.
pub(crate) async fn deploy(namespace: &Namespace<'_>) {
    let manifest = format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: probe}}
spec:
  selector: {{matchLabels: {{app: probe}}}}
  template:
    metadata: {{labels: {{app: probe}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: probe
        image: {IMAGE}
        imagePullPolicy: Never
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: probe}}
spec:
  selector: {{app: probe}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    );
    namespace.apply(&manifest).await;
    let wait = [
        "wait",
        "deployment/probe",
        "--for=condition=Available",
        "--timeout=60s",
    ];
    namespace.kubectl(&wait).await.unwrap();
}
