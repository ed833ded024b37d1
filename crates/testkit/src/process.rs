//! A program under test: its output line by line, its signals, its end.

use crate::wait::{PATIENCE, until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// A running program. Dropping it ends it by SIGKILL; the test fails with its output shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    pid: u32,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` without standard input and reads both its outputs.
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("invariant: piped");
        let stderr = child.stderr.take().expect("invariant: piped");
        let readers = vec![read(stdout, Arc::clone(&lines)), read(stderr, Arc::clone(&lines))];
        Self {
            name,
            pid: child.id(),
            child: Mutex::new(child),
            lines,
            readers,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Every line of both outputs so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines so far that contain `needle`.
    pub fn matching(&self, needle: &str) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line.contains(needle))
            .collect()
    }

    /// Waits for a line that contains `needle`, and returns the first one. Panics with the whole output when the
    /// program ends before.
    pub async fn wait_for_line(&self, needle: &str) -> String {
        let what = format!("{} prints a line with {needle:?}", self.name);
        until(&what, PATIENCE, || async {
            let all_read = self.readers.iter().all(JoinHandle::is_finished);
            let found = self.matching(needle).into_iter().next();
            assert!(
                found.is_some() || !all_read,
                "{} ended without a line with {needle:?}:\n{}",
                self.name,
                self.lines().join("\n"),
            );
            found
        })
        .await
    }

    /// Sends a signal, such as `Signal::TERM`.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .expect("invariant: a child's id");
        // Only a child that was not waited for can be signalled: otherwise the id may be another's.
        if self.ended().is_none() {
            kill_process(pid, signal).expect("a running child can be signalled");
        }
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> ExitStatus {
        until(&format!("{} has ended", self.name), PATIENCE, || async {
            self.ended()
        })
        .await
    }

    /// Memory in KiB from `/proc/<pid>/status`: `VmRSS`, `RssAnon` (`man 5 proc_pid_status`); `None` once it has ended.
    pub fn memory_kib(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "shown with the test that failed")]
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself.
        let _killed = child.kill();
        let _ended = child.wait();
        if thread::panicking() {
            eprintln!(
                "--- output of {} ---\n{}\n---",
                self.name,
                self.lines().join("\n")
            );
            return;
        }
        // Children of the program may hold its outputs for longer: the readers end with them.
        self.readers.clear();
    }
}

fn read(output: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Process, Signal};
    use std::process::Command;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Process::start(command)
    }

    #[tokio::test]
    async fn reads_both_outputs_and_the_exit_code() {
        let process = shell("echo out; echo err >&2; exit 3");
        assert_eq!(process.wait().await.code(), Some(3));
        process.wait_for_line("out").await;
        process.wait_for_line("err").await;
        assert_eq!(process.lines().len(), 2);
    }

    #[tokio::test]
    async fn passes_signals_on() {
        let process = shell("trap 'echo drained; exit 0' TERM; echo ready; while :; do sleep 0.01; done");
        process.wait_for_line("ready").await;
        assert!(process.memory_kib("VmRSS").is_some_and(|kib| kib > 0));
        process.signal(Signal::TERM);
        process.wait_for_line("drained").await;
        assert!(process.wait().await.success());
    }
}
