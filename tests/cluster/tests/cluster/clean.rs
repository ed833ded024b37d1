//! Nothing is left of a cluster: neither after its end nor after that of its owner.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use crate::support::IMAGE;
use cluster::{Cluster, Image};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::wait::{PATIENCE, until};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Set for the process that owns a cluster until it is killed.
const OWNER: &str = "KUBEDAEMON_TEST_CLUSTER_OWNER";

/// What is to be gone, each in a line of words. Namespaces of a process are what hold its mounts and network.
fn rests(number: u8, pid_namespace: &str) -> Vec<String> {
    let mut rests = Vec::new();
    let name = format!("kubedaemon-cluster-{number}");
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let in_it =
            fs::read_link(process.path().join("ns/pid")).is_ok_and(|own| own == Path::new(pid_namespace));
        if in_it {
            rests.push(format!("process {}", process.file_name().display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    rests.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&name))
            .map(|line| format!("mount {line}")),
    );
    let device = format!("/sys/class/net/kd{number}");
    let groups = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let groups = groups.map(|controller| controller.path().join(&name));
    let places = [
        device.into(),
        format!("/sys/fs/cgroup/{name}").into(),
        format!("/tmp/{name}").into(),
    ];
    rests.extend(
        groups
            .chain(places)
            .filter(|path| path.exists())
            .map(|path| path.display().to_string()),
    );
    rests
}

/// Runs a pod, so that there are shims, control groups, mounts and network namespaces of containers.
async fn run_a_pod(cluster: &Cluster) {
    let pause = Image {
        name: IMAGE,
        program: &cluster.programs().join("pause"),
        arguments: &[],
        user: "",
    };
    cluster.load_image(&pause).await;
    let account = ["get", "serviceaccount", "default"];
    until("there is a service account", PATIENCE, || async {
        cluster.kubectl(&account).await.is_ok()
    })
    .await;
    let image = format!("--image={IMAGE}");
    let run = ["run", "left", &image, "--image-pull-policy=Never"];
    cluster.kubectl(&run).await.unwrap();
    let wait = ["wait", "pod/left", "--for=condition=Ready", "--timeout=60s"];
    cluster.kubectl(&wait).await.unwrap();
}

fn pid_namespace(pid: u32) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    link.display().to_string()
}

#[tokio::test]
async fn nothing_is_left_after_stop() {
    if cluster::skip("nothing_is_left_after_stop") {
        return;
    }
    let cluster = Cluster::start().await;
    run_a_pod(&cluster).await;
    let (number, namespace) = (cluster.number(), pid_namespace(cluster.pid()));
    assert!(
        rests(number, &namespace).len() > 10,
        "what is looked for is there before"
    );
    cluster.stop();
    assert_eq!(rests(number, &namespace), Vec::<String>::new());
}

/// Not a test by itself: the process that the next test kills.
#[expect(
    clippy::disallowed_methods,
    reason = "the role of a process that a test started"
)]
#[tokio::test]
async fn owner_of_a_cluster() {
    if std::env::var(OWNER).is_err() {
        return;
    }
    let cluster = Cluster::start().await;
    run_a_pod(&cluster).await;
    // Past the capture of the test harness; what follows the mark is read by the test below.
    let mark = format!("owns {} {}\n", cluster.number(), pid_namespace(cluster.pid()));
    std::io::Write::write_all(&mut std::io::stdout(), mark.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_is_left_after_its_owner_was_killed() {
    if cluster::skip("nothing_is_left_after_its_owner_was_killed") {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "clean::owner_of_a_cluster", "--nocapture"])
        .env(OWNER, "yes")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut owner = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let (number, namespace) = loop {
        let line = lines
            .next_line()
            .await
            .unwrap()
            .expect("the owner starts a cluster");
        // The harness begins the line with the name of the test.
        if let Some((_, rest)) = line.split_once("owns ") {
            let (number, namespace) = rest.split_once(' ').unwrap();
            break (number.parse().unwrap(), namespace.to_owned());
        }
    };
    assert!(
        rests(number, &namespace).len() > 10,
        "what is looked for is there before"
    );
    let pid = i32::try_from(owner.id().unwrap()).ok().and_then(Pid::from_raw);
    kill_process(pid.unwrap(), Signal::KILL).unwrap();
    owner.wait().await.unwrap();
    until("everything is gone", PATIENCE, || async {
        rests(number, &namespace).is_empty()
    })
    .await;
}
