//! One worker process: started in a process group of its own, its output shown line by line, ended as a whole.
//!
//! The group matters: a worker started through a shell or a supervisor has children, and none of them may outlive a
//! stop. If this program itself is killed with SIGKILL it cannot end anything, and workers go on running.

use crate::display::Screen;
use crate::domain::expand::expand_all;
use crate::domain::life::Failure;
use crate::output;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How often the end of a process group is looked for; there is no event for it.
const GROUP_POLL: Duration = Duration::from_millis(10);
/// How long to wait for a killed group to be gone. Only a process in an uninterruptible system call takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// How long the pipes are read after the process is gone. A descendant that left the group may hold them open.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// A path, or a name that is looked for on `PATH`; then its arguments. Never empty.
    pub(crate) words: Vec<String>,
    /// The environment to begin with; see [`inherited`].
    pub(crate) environment: BTreeMap<OsString, OsString>,
    /// Variables of a manifest, in order. `$(NAME)` is then expanded in them and in `words`; without a manifest
    /// (`None`) everything is as it was written.
    pub(crate) variables: Option<Vec<(String, String)>>,
    /// Where it runs; this program's own directory when `None`.
    pub(crate) directory: Option<PathBuf>,
}

/// The environment that a worker gets from the one of this program.
///
/// Variables that begin with `KUBEDAEMON_` are not passed on: on a cluster the worker does not see them either, and the
/// broker's address has a password in it. `PYTHONUNBUFFERED` is set unless it is there, because Python otherwise keeps
/// what it prints to a pipe to itself for a long time.
pub(crate) fn inherited(own: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<_, _> = own
        .filter(|(name, _)| !name.to_string_lossy().starts_with("KUBEDAEMON_"))
        .collect();
    environment
        .entry("PYTHONUNBUFFERED".into())
        .or_insert_with(|| "1".into());
    environment
}

/// A running process group. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Pid,
    output: JoinSet<()>,
    is_over: bool,
}

impl Process {
    /// Starts `command` with `PORT=port`. Its standard input is empty and its output goes to `screen` line by line
    /// after the name `replica`.
    ///
    /// # Errors
    /// [`Failure::CannotStart`] with a sentence that names the command.
    pub(crate) fn start(
        command: &CommandLine,
        port: u16,
        replica: &str,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let variables = command.variables.as_deref().unwrap_or_default();
        let mut expanded = expand_all(&command.words, variables, port);
        if command.variables.is_none() {
            expanded.words.clone_from(&command.words);
        }
        let program = expanded.words.first().map(String::as_str).unwrap_or_default();
        let mut builder = tokio::process::Command::new(program);
        builder
            .args(expanded.words.iter().skip(1))
            .env_clear()
            .envs(&command.environment)
            .envs(&expanded.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(directory) = &command.directory {
            builder.current_dir(directory);
        }
        let mut child = builder.spawn().map_err(|error| {
            Failure::CannotStart(why_not_started(program, command.directory.as_deref(), &error))
        })?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .expect("invariant: a child that was just started has an id");
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(output::show_lines(stdout, replica.to_owned(), screen.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(output::show_lines(stderr, replica.to_owned(), screen.clone()));
        }
        Ok(Self {
            child,
            group,
            output,
            is_over: false,
        })
    }

    /// Waits until the process ends by itself, ends what it left behind, and says how it ended. Cancel safe: when
    /// dropped before the process has ended, nothing has happened.
    pub(crate) async fn ended(&mut self) -> Failure {
        let status = self.child.wait().await;
        // What it started may hold the port that the next start needs.
        self.finish().await;
        match status {
            Ok(status) => how(status),
            Err(error) => Failure::CannotStart(format!("its end cannot be observed: {error}")),
        }
    }

    /// Asks the group to end with SIGTERM, waits up to `grace`, then kills it. Kills it at once when `forced`
    /// resolves. Returns when nothing of the group is left.
    pub(crate) async fn stop(mut self, grace: Duration, forced: impl Future<Output = ()>) {
        self.signal(Signal::TERM);
        let ending = async {
            let _status = self.child.wait().await;
            group_gone(self.group).await;
        };
        tokio::select! {
            () = ending => {}
            () = sleep(grace) => {}
            () = forced => {}
        }
        self.finish().await;
    }

    /// Kills what is left of the group and reads its output to the end.
    async fn finish(&mut self) {
        self.signal(Signal::KILL);
        let _status = timeout(KILL_PATIENCE, self.child.wait()).await;
        let _gone = timeout(KILL_PATIENCE, group_gone(self.group)).await;
        self.is_over = true;
        let _all_read = timeout(OUTPUT_PATIENCE, async {
            while self.output.join_next().await.is_some() {}
        })
        .await;
        self.output.shutdown().await;
    }

    /// A group that is gone already cannot be signalled, and need not be.
    ///
    /// The leader may have been collected by then. Its number cannot be given to another group while members are
    /// left, and is not given out again at once when none are.
    fn signal(&self, signal: Signal) {
        let _gone = kill_process_group(self.group, signal).is_err();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(Signal::KILL);
        }
    }
}

async fn group_gone(group: Pid) {
    while test_kill_process_group(group).is_ok() && has_running_member(group) {
        sleep(GROUP_POLL).await;
    }
}

/// Whether a member of the group is more than a zombie. A member whose parent is gone stays one until process 1
/// collects it, which in a container may be never.
///
/// Source: proc(5), `/proc/pid/stat`: the state is the third field, the process group the fifth. Where there is no
/// `/proc`, every group that exists counts as running.
fn has_running_member(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return true;
    };
    let group = group.as_raw_nonzero().to_string();
    let mut seen_any = false;
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        seen_any = true;
        // The second field is a name in brackets that may itself hold brackets and spaces.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_ascii_whitespace();
        let (state, its_group) = (fields.next(), fields.nth(1));
        if its_group == Some(group.as_str()) && !matches!(state, Some("Z" | "X")) {
            return true;
        }
    }
    !seen_any
}

fn how(status: ExitStatus) -> Failure {
    match (status.code(), status.signal()) {
        (Some(code), _) => Failure::Exited(code),
        (None, signal) => Failure::Killed(signal.unwrap_or_default()),
    }
}

fn why_not_started(program: &str, directory: Option<&Path>, error: &io::Error) -> String {
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        return format!("its working directory {} does not exist", directory.display());
    }
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            format!("there is no file `{program}` (or its interpreter is missing)")
        }
        io::ErrorKind::NotFound => format!("there is no command `{program}` on PATH"),
        io::ErrorKind::PermissionDenied => format!("`{program}` is not executable (chmod +x?)"),
        _ => format!("`{program}` cannot be executed: {error}"),
    }
}

#[cfg(test)]
mod tests;
