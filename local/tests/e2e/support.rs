//! A running `kubedaemon` and what tests want to know of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::http;
use testkit::process::Process;
use testkit::wait::{PATIENCE, until};

/// The worker for tests; see its source for what bodies it understands.
pub(crate) fn worker_script() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e/worker.py")
        .display()
        .to_string()
}

/// The binary, without any of our variables around.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubedaemon"));
    for (name, _) in std::env::vars() {
        if name.starts_with("KUBEDAEMON_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) struct Kubedaemon {
    pub(crate) process: Process,
}

impl Kubedaemon {
    /// `kubedaemon run FLAGS -- python3 worker.py`, once it says that it runs.
    pub(crate) async fn run(flags: &[&str]) -> Self {
        Self::run_command(flags, &["python3", &worker_script()]).await
    }

    pub(crate) async fn run_command(flags: &[&str], worker: &[&str]) -> Self {
        Self::start(&[&["run", "--admin", "127.0.0.1:0"], flags, &["--"], worker].concat()).await
    }

    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let mut command = binary();
        command.args(arguments);
        let this = Self {
            process: Process::start(command),
        };
        this.process.wait_for_line("state=zero").await;
        this
    }

    /// `http://127.0.0.1:PORT`, of the first line that names where calls are taken.
    pub(crate) fn url(&self) -> String {
        let lines = self.process.matching("calls at ");
        let url = lines[0]
            .split("calls at ")
            .nth(1)
            .unwrap()
            .splitn(4, '/')
            .take(3)
            .collect::<Vec<_>>();
        url.join("/")
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        let line = self.process.matching("status at ").remove(0);
        let answer = http::get(line.split("status at ").nth(1).unwrap()).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Waits until the status says so of its only worker.
    pub(crate) async fn wait_for_status(&self, what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
        until(what, PATIENCE, || async {
            holds(&self.status().await["workers"][0])
        })
        .await;
    }

    /// Waits until every worker's queue was made and asked for its depth. A quorum queue that is just being made is
    /// seen by the broker's other clients before it takes messages.
    pub(crate) async fn wait_for_queue(&self) {
        until("the queues are there", PATIENCE, || async {
            let status = self.status().await;
            status["workers"]
                .as_array()
                .unwrap()
                .iter()
                .all(|worker| worker["waiting"].is_number())
        })
        .await;
    }

    /// Waits until its only process was asked to end.
    pub(crate) async fn wait_until_stopping(&self) {
        self.wait_for_status("stopping", |worker| worker["replicas"][0]["state"] == "stopping")
            .await;
    }

    /// Worker processes that were ever up, by their ids.
    pub(crate) fn worker_ids(&self) -> Vec<String> {
        let id = |line: String| {
            line.split("pid=")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        self.process.matching("| up pid=").into_iter().map(id).collect()
    }

    /// Waits until this many worker processes were up, those that are gone included, and panics when it was one more.
    pub(crate) async fn wait_for_workers(&self, count: usize) {
        until(&format!("{count} workers were up"), PATIENCE, || async {
            self.worker_ids().len() >= count
        })
        .await;
        assert_eq!(self.worker_ids().len(), count);
    }

    /// Panics when a worker process is left.
    pub(crate) fn assert_nothing_is_left(&self) {
        for id in self.worker_ids() {
            assert!(!is_running(&id), "worker process {id} is left");
        }
    }

    /// Waits until the last status line ends so. What a process has written arrives after its end, too.
    pub(crate) async fn wait_for_last_status(&self, end: &str) {
        until(
            &format!("the last status ends with {end:?}"),
            PATIENCE,
            || async {
                self.process
                    .matching(": state=")
                    .pop()
                    .is_some_and(|line| line.ends_with(end))
            },
        )
        .await;
    }
}

pub(crate) fn is_running(process_id: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process_id).join("stat"));
    // A zombie is nobody's problem but its parent's.
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A folder that is removed with the value.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(testkit::unique("kubedaemon"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover in the temporary folder is no reason to fail.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}
