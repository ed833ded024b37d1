//! Runners: who is measured, how each is started with the same broker, queue, prefetch and sink, and how it is ended.

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long a runner may take to end after SIGTERM before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A runner as `runners.json` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runner {
    /// Its name in workloads and reports.
    pub name: String,
    /// What it is and with which settings, for the report.
    pub about: String,
    /// The program: `built:<name>`, which cargo built beside the bench, `peer:<path>` below the directory of peers, or
    /// `image:<component>`, an archive that is weighed and not started.
    pub program: String,
    /// Its arguments; `{broker}`, `{queue}`, `{sink}` and the like are filled in.
    pub arguments: Vec<String>,
    /// What is around each body in the queue.
    #[serde(default)]
    pub envelope: Envelope,
    /// Whether it takes no sink and keeps the ledger itself.
    #[serde(default)]
    pub is_sink: bool,
    /// Whether it belongs to the tests of the bench and not to the measured.
    #[serde(default)]
    pub for_tests: bool,
}

/// What a message is to its runner. What arrives at the sink is the same body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// The body alone.
    #[default]
    None,
    /// A task of Celery (message protocol 2) whose one argument is the body in base 64.
    Celery,
}

/// What is filled in, name by name.
pub type Values<'a> = [(&'a str, String)];

/// Where programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Our own, as cargo built them.
    pub built: PathBuf,
    /// Those of others, as `tools/bench` installed them: a directory each, with a file `versions`; for one that could
    /// not be installed a file `<name>.reason`.
    pub peers: PathBuf,
    /// Archives of images, as `tools/images` makes them.
    pub images: PathBuf,
}

impl Programs {
    /// Ours are beside the running program, or, for a test of cargo's, above it.
    ///
    /// # Errors
    /// When the running program has no path.
    pub fn beside(running: &Path, peers: PathBuf, images: PathBuf) -> anyhow::Result<Self> {
        let built = running
            .ancestors()
            .skip(1)
            .find(|directory| directory.join("bench-sink").is_file())
            .with_context(|| {
                format!(
                    "there is no bench-sink beside {}: run `cargo build --package bench`",
                    running.display()
                )
            })?;
        Ok(Self {
            built: built.to_owned(),
            peers,
            images,
        })
    }

    /// The path of a program of ours.
    pub fn built(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }
}

impl Runner {
    /// Reads `runners.json`.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn read_all(path: &Path) -> anyhow::Result<Vec<Self>> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Where its program is.
    ///
    /// # Errors
    /// When it is not there: the runner is then not measured, and the report says so.
    pub fn path(&self, programs: &Programs) -> anyhow::Result<PathBuf> {
        let path = match self.program.split_once(':') {
            Some(("built", name)) => programs.built.join(name),
            Some(("peer", name)) => programs.peers.join(name),
            Some(("image", name)) => programs
                .images
                .join(format!("{name}-{}.tar", env!("CARGO_PKG_VERSION"))),
            _ => bail!(
                "{:?} is neither built:<name> nor peer:<path> nor image:<component>",
                self.program
            ),
        };
        if !path.is_file() {
            bail!(
                "{}",
                self.reason(programs)
                    .unwrap_or_else(|| format!("{} is not there", path.display()))
            );
        }
        Ok(path)
    }

    /// The peer's name: the first directory of its path.
    fn peer(&self) -> Option<&str> {
        self.program.strip_prefix("peer:")?.split('/').next()
    }

    /// Why `tools/bench` could not install it.
    fn reason(&self, programs: &Programs) -> Option<String> {
        let path = programs.peers.join(format!("{}.reason", self.peer()?));
        let reason = fs::read_to_string(path).ok()?;
        Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty())
    }

    /// What a peer is made of, a package and its version a line, as its package client told; empty for our own.
    pub fn versions(&self, programs: &Programs) -> Vec<String> {
        let path = self.peer().map(|peer| programs.peers.join(peer).join("versions"));
        let text = path.and_then(|path| fs::read_to_string(path).ok());
        let text = text.unwrap_or_default();
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// The command that starts it. It inherits nothing of the environment but the search path.
    ///
    /// # Errors
    /// When its program is not there, or an argument names a value that there is none of.
    pub fn command(
        &self,
        programs: &Programs,
        values: &Values<'_>,
        tether: Tether,
    ) -> anyhow::Result<Command> {
        let mut command = tether.command(&self.path(programs)?);
        for argument in &self.arguments {
            command.arg(fill(argument, values)?);
        }
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }
}

/// Makes the kernel end a program with us, however we end; nothing is left behind by a bench that is killed.
const SETPRIV: &str = "/usr/bin/setpriv";

/// Whether a process ends with the bench even when the bench is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tether {
    /// It does, where util-linux is installed.
    Tied,
    /// It does not. Tying takes another `exec`, which would count as the program's own start.
    Loose,
}

impl Tether {
    /// A command that runs `program`.
    pub fn command(self, program: &Path) -> Command {
        if self == Self::Loose || !Path::new(SETPRIV).is_file() {
            return Command::new(program);
        }
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }
}

fn fill(argument: &str, values: &Values<'_>) -> anyhow::Result<String> {
    let mut filled = argument.to_owned();
    for (name, value) in values {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    if filled.contains(['{', '}']) {
        bail!("the argument {argument:?} has a name that nothing is known for");
    }
    Ok(filled)
}

/// A process of the bench. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Running {
    /// Starts it; both outputs, or what of them the caller has not taken, go to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path, piped: bool) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .kill_on_drop(true);
        command.stdout(if piped { Stdio::piped() } else { file.into() });
        let child = command.spawn().with_context(|| {
            let name = command.as_std().get_program().display();
            format!("{name} cannot be started")
        })?;
        let pid = child.id().context("a process that was just started has an id")?;
        Ok(Self {
            child,
            pid,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last lines it logged.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Asks it to end by SIGTERM.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        // Only a child that was not waited for can be signalled: otherwise the id may be another's.
        if self.child.try_wait()?.is_none()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, Signal::TERM)?;
        }
        Ok(())
    }

    /// Asks it to end, waits, and kills it when it does not within 10 s. Returns whether it had to be killed.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(&mut self) -> anyhow::Result<bool> {
        self.terminate()?;
        if let Ok(ended) = tokio::time::timeout(END_PATIENCE, self.child.wait()).await {
            ended?;
            return Ok(false);
        }
        self.kill().await?;
        Ok(true)
    }

    /// Ends it by SIGKILL and waits for it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Envelope, Programs, Runner, fill};
    use crate::workload::Workload;
    use std::path::{Path, PathBuf};

    #[test]
    fn values_are_filled_in_and_a_wrong_name_is_told() {
        let values = [("queue", "orders".to_owned())];
        assert_eq!(fill("--queue={queue}", &values).unwrap(), "--queue=orders");
        assert!(
            fill("{quene}", &values)
                .unwrap_err()
                .to_string()
                .contains("{quene}")
        );
    }

    #[test]
    fn a_peer_tells_its_versions_or_why_it_is_not_there() {
        let peers = std::env::temp_dir().join(testkit::unique("peers"));
        let write = |path: &str, text: &str| {
            let path = peers.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("one/run", "");
        write("one/versions", "Node v20\namqplib 2\n");
        write("two.reason", "npm is missing\n");
        let programs = Programs {
            built: PathBuf::new(),
            peers: peers.clone(),
            images: PathBuf::new(),
        };
        let runner = |program: &str| Runner {
            name: "x".to_owned(),
            about: String::new(),
            program: program.to_owned(),
            arguments: Vec::new(),
            envelope: Envelope::None,
            is_sink: false,
            for_tests: false,
        };
        let one = runner("peer:one/run");
        assert_eq!(one.path(&programs).unwrap(), peers.join("one/run"));
        assert_eq!(one.versions(&programs), ["Node v20", "amqplib 2"]);
        let why = |program: &str| runner(program).path(&programs).unwrap_err().to_string();
        assert_eq!(why("peer:two/run"), "npm is missing");
        assert!(why("peer:three/run").ends_with("three/run is not there"));
        assert!(why("image:sidecar").contains("is not there"));
        assert!(why("other").contains("neither"));
        assert_eq!(runner("built:x").versions(&programs), [""; 0]);
        std::fs::remove_dir_all(peers).unwrap();
    }

    #[test]
    fn every_runner_of_a_workload_is_described() {
        let room = Path::new(env!("CARGO_MANIFEST_DIR"));
        let runners = Runner::read_all(&room.join("runners.json")).unwrap();
        for workload in Workload::read_all(&room.join("workloads")).unwrap() {
            for found in workload.matches() {
                for name in std::iter::once(&found.a).chain(&found.b) {
                    assert!(
                        runners.iter().any(|runner| runner.name == *name),
                        "{name} of {} is not in runners.json",
                        workload.name
                    );
                }
            }
        }
    }

    #[test]
    fn the_page_describes_every_runner_that_is_measured() {
        let room = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(room.join("../../docs/performance.md")).unwrap();
        for runner in Runner::read_all(&room.join("runners.json")).unwrap() {
            if !runner.for_tests {
                assert!(
                    page.contains(&format!("| `{}` |", runner.name)),
                    "{}",
                    runner.name
                );
            }
        }
    }
}
