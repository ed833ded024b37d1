//! The five commands of the README, from an empty cluster to the first message that a worker got.
#![expect(clippy::unwrap_used, reason = "everything here is a test")]

use product::{Product, WORKER, root};
use std::os::unix::fs::symlink;
use std::time::Duration;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_mins(3);

/// The commands below the heading, a line each.
fn commands(readme: &str) -> Vec<&str> {
    let section = readme
        .split("## On Kubernetes")
        .nth(1)
        .expect("the README has the section");
    let block = section.split("```").nth(1).expect("the section has a block");
    block.lines().skip(1).filter(|line| !line.is_empty()).collect()
}

#[tokio::test]
async fn the_five_commands_of_the_readme_feed_a_worker() {
    if cluster::skip("the_five_commands_of_the_readme_feed_a_worker") {
        return;
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let commands = commands(&readme);
    assert_eq!(commands.len(), 5, "{commands:#?}");

    let product = Product::prepare().await;
    let programs = programs(&product);
    let path = format!("{}:{}", programs.display(), env!("PATH"));
    for command in commands {
        testkit::say(&format!("$ {command}"));
        let ran = Command::new("bash")
            .args(["-euo", "pipefail", "-c", command])
            .current_dir(root())
            .env("PATH", &path)
            .env("KUBECONFIG", product.kubeconfig())
            .env("BROKER", product.broker_url())
            .env("IMAGE", WORKER)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        testkit::say(&said);
        assert!(ran.status.success(), "{command}: {said}");
        if command.starts_with("helm install") {
            product.is_available().await;
            let test = ["test", "kubedaemon", "--namespace", product::SYSTEM];
            testkit::say(&product.helm(&test.map(str::to_owned)).unwrap());
        }
    }
    let logs = ["logs", "deployment/worker", "--container=worker"];
    let got = || async {
        product
            .kubectl(&logs)
            .await
            .is_ok_and(|logs| logs.contains("message "))
    };
    product
        .api
        .until("the worker got the message", PATIENCE, got)
        .await;
    std::fs::remove_dir_all(programs).unwrap();
    uninstalling_leaves_no_service_behind_an_activator_that_is_gone(&product).await;
}

/// A worker at zero has activators behind its Service, which must go with them.
async fn uninstalling_leaves_no_service_behind_an_activator_that_is_gone(product: &Product) {
    let image = format!("--image={WORKER}");
    let commands: [&[&str]; 3] = [
        &[
            "create",
            "deployment",
            "called",
            &image,
            "--port=8080",
            "--replicas=0",
        ],
        &[
            "expose",
            "deployment",
            "called",
            "--port=80",
            "--target-port=8080",
        ],
        &["annotate", "deployment", "called", "kubedaemon.io/inject=true"],
    ];
    for command in commands {
        product.kubectl(command).await.unwrap();
    }
    let slices = "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=\
                  endpointslice.kubernetes.io%2Fmanaged-by%3Dkubedaemon-activator";
    let stands = || async {
        product
            .api
            .items(slices)
            .await
            .is_ok_and(|slices| !slices.is_empty())
    };
    let what = "an activator stands behind the Service";
    product.api.until(what, PATIENCE, stands).await;
    let uninstall = ["uninstall", "kubedaemon", "--namespace", product::SYSTEM];
    product.helm(&uninstall.map(str::to_owned)).unwrap();
    let gone = || async {
        product
            .api
            .items(slices)
            .await
            .is_ok_and(|slices| slices.is_empty())
    };
    product
        .api
        .until("its EndpointSlices are gone", PATIENCE, gone)
        .await;
    let replicas = [
        "get",
        "deployment",
        "worker",
        "--output=jsonpath={.spec.template.spec.containers[*].name}",
    ];
    assert_eq!(
        product.kubectl(&replicas).await.unwrap(),
        "worker",
        "the workload is as its author wrote it"
    );
}

/// A directory with `helm`, `kubectl` and `kubedaemon` under these names.
fn programs(product: &Product) -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(testkit::unique("programs"));
    std::fs::create_dir(&directory).unwrap();
    symlink(root().join("tools/helm"), directory.join("helm")).unwrap();
    symlink(product.programs().join("kubectl"), directory.join("kubectl")).unwrap();
    let running = std::env::current_exe().unwrap();
    let kubedaemon = running
        .ancestors()
        .map(|above| above.join("kubedaemon"))
        .find(|program| program.is_file());
    symlink(
        kubedaemon.expect("`cargo build --workspace` was run"),
        directory.join("kubedaemon"),
    )
    .unwrap();
    directory
}
