//! The shell process that runs a node for us and outlives us just long enough to clean up.

use super::run_dir::Environment;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

const SCRIPT: &str = include_str!("supervisor.sh");

/// A running supervisor. Dropping it kills the node and removes the run directory, and waits for both; when this
/// process dies instead, the supervisor notices and does the same.
#[derive(Debug)]
pub(super) struct Supervisor {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<u32>,
}

impl Supervisor {
    /// Starts the shell, which makes `dir` and starts the node's port mapper.
    pub(super) fn start(dir: &Path, environment: &Environment) -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "kubedaemon-broker"])
            .arg(dir)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            // Of its own process group: the Ctrl-C that ends a test run must not end the clean-up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let commands = child.stdin.take();
        let answers = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut inner = Inner {
            child,
            commands,
            answers: BufReader::new(answers),
            server: None,
        };
        inner.answer()?;
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// Starts the node; it is not ready yet when this returns.
    pub(super) fn start_server(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = inner.ask("start")?;
        inner.server = pid.parse().ok();
        Ok(())
    }

    /// Asks the node to stop by SIGTERM, as an orderly shutdown does; it is still running when this returns.
    pub(super) fn stop_server(&self) -> io::Result<()> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ask("stop")
            .map(drop)
    }

    /// Ends the node by SIGKILL.
    pub(super) fn kill_server(&self) -> io::Result<()> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ask("kill")
            .map(drop)
    }

    /// Forgets a node that has ended.
    pub(super) fn reap_server(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.server = None;
        inner.ask("reap").map(drop)
    }

    /// The node's process id, from its start until it is reaped.
    pub(super) fn server_pid(&self) -> Option<u32> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).server
    }

    /// Whether the node's process runs.
    pub(super) fn server_runs(&self) -> bool {
        self.server_pid().is_some_and(runs)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.commands = None;
        // Nothing can be done about a supervisor that cannot be waited for, and the test has its own verdict.
        let _ended = inner.child.wait();
    }
}

impl Inner {
    /// One command and its answer: the shell answers at once, so that blocking is a matter of microseconds.
    fn ask(&mut self, command: &str) -> io::Result<String> {
        let commands = self.commands.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(commands, "{command}")?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the supervisor of the broker ended",
            ));
        }
        Ok(line.trim().to_owned())
    }
}

/// Whether process `pid` exists and is no zombie.
fn runs(pid: u32) -> bool {
    // The state is the first field after the command's name, which is in parentheses: see `man 5 proc_pid_stat`.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}
