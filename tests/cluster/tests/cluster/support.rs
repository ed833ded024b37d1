//! The image that the tests run, and a Deployment of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use cluster::{Cluster, Namespace, cluster};
use std::path::Path;
use tokio::sync::OnceCell;

pub(crate) const IMAGE: &str = "localhost/probe:1";

/// The shared cluster with the image of the tests in it.
pub(crate) async fn cluster_with_probe() -> &'static Cluster {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let cluster = cluster().await;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe");
    LOADED
        .get_or_init(|| async { cluster.load_go_program(IMAGE, &source).await })
        .await;
    cluster
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
