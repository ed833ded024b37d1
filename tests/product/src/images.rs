//! The images that the cluster runs: ours, as they are shipped, and an ordinary worker.

use cluster::Cluster;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An ordinary HTTP server with nothing of ours in it.
pub const WORKER: &str = "localhost/worker:1";

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Gives the node all images.
pub(crate) async fn load(cluster: &Cluster) {
    let archives = build_ours();
    for archive in archives {
        cluster.load_archive(&archive).await;
    }
    let worker = root().join("tests/product/worker");
    cluster.load_go_program(WORKER, &worker).await;
}

/// Environment variable with a directory of archives to use instead of building them from the tree as it is.
const PREBUILT: &str = "KUBEDAEMON_TEST_IMAGES";

/// The archives of our four images; built once, which takes minutes.
fn build_ours() -> Vec<PathBuf> {
    if let Some(directory) = std::env::var_os(PREBUILT) {
        let archives = std::fs::read_dir(directory).unwrap();
        return archives.map(|archive| archive.unwrap().path()).collect();
    }
    let built = Command::new(root().join("tools/images"))
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "tools/images: {said}");
    String::from_utf8(built.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| Path::new(word).extension() == Some("tar".as_ref()))
        })
        .map(PathBuf::from)
        .collect()
}
