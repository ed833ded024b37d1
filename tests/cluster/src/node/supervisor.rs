//! The shell processes that hold a node for us and outlive us just long enough to clean up.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

const SUPERVISOR: &str = include_str!("supervisor.sh");
const NODE: &str = include_str!("node.sh");

/// A running supervisor. Dropping it ends the node and removes what it left, and waits for both; when this process
/// dies instead, the supervisor notices and does the same.
#[derive(Debug)]
pub(super) struct Supervisor {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts the shell, which claims a number and makes its directory; returns the number.
    pub(super) fn start() -> io::Result<(Self, u8)> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "kubedaemon-cluster", NODE])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
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
        };
        let number = inner.answer()?;
        let number = number
            .parse()
            .map_err(|_| io::Error::other(format!("no number of a node: {number}")))?;
        let supervisor = Self {
            inner: Mutex::new(inner),
        };
        Ok((supervisor, number))
    }

    /// Makes the node's namespaces, once its files are written; returns the id of its first process.
    pub(super) fn boot(&self) -> io::Result<u32> {
        let answer = self.ask("boot")?;
        let pid = answer.strip_prefix("ready ").and_then(|pid| pid.parse().ok());
        pid.ok_or_else(|| io::Error::other(format!("no id of a process: {answer}")))
    }

    /// One command and its answer, see `node.sh`.
    pub(super) fn ask(&self, command: &str) -> io::Result<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = inner.commands.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(commands, "{command}")?;
        inner.answer()
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
    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the supervisor of the node ended",
            ));
        }
        Ok(line.trim().to_owned())
    }
}
