//! The real `sidecar` binary.

use super::PATIENCE;
use std::process::{Command, Stdio};
use testkit::http::get;
use testkit::process::Process;
use testkit::wait::until;

/// A run that ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with these arguments, and with no other environment than this.
fn command(args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecar"));
    command.args(args).env_clear().envs(environment.iter().copied());
    command
}

/// Starts it.
pub fn start(args: &[&str], environment: &[(&str, &str)]) -> Process {
    Process::start(command(args, environment))
}

/// Runs it to its end.
pub async fn run(args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = tokio::process::Command::from(command(args, environment));
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, running)
        .await
        .unwrap_or_else(|_| panic!("{args:?} {environment:?} does not end"))
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Its admin address, from the log.
pub async fn admin(process: &Process) -> String {
    let line = process.wait_for_line("admin port open").await;
    let (_, address) = line.rsplit_once("address=").expect("the line names the address");
    format!("http://{address}")
}

/// Waits until `/status` satisfies `wanted`.
pub async fn until_status(process: &Process, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) {
    let url = format!("{}/status", admin(process).await);
    until(what, PATIENCE, || async {
        let answer = get(&url).await.ok()?;
        let status = serde_json::from_slice(&answer.body).ok()?;
        wanted(&status).then_some(())
    })
    .await;
}
