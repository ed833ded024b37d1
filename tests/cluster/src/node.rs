//! One node: its directory, its namespaces, its components.

pub(crate) mod addresses;
mod certificates;
pub(crate) mod files;
mod supervisor;

use addresses::Addresses;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use supervisor::Supervisor;

/// A node whose namespaces exist. It ends with the value.
#[derive(Debug)]
pub(crate) struct Node {
    supervisor: Supervisor,
    pub(crate) addresses: Addresses,
    pub(crate) dir: PathBuf,
    /// The node's first process, whose namespaces are the node's.
    pub(crate) pid: u32,
    pub(crate) number: u8,
}

impl Node {
    /// Makes the namespaces and writes the files; no component runs yet.
    pub(crate) fn start(programs: &Path) -> io::Result<Self> {
        let (supervisor, number) = Supervisor::start()?;
        let addresses = Addresses::new(number);
        let dir = PathBuf::from(format!("/tmp/kubedaemon-cluster-{number}"));
        files::write(&dir, programs, addresses)?;
        let pid = supervisor.boot().map_err(|error| {
            let log = fs::read_to_string(dir.join("node.log")).unwrap_or_default();
            io::Error::other(format!("{error}\n{log}"))
        })?;
        Ok(Self {
            supervisor,
            addresses,
            dir,
            pid,
            number,
        })
    }

    /// Starts components; none is ready yet when this returns.
    pub(crate) fn start_components(&self, names: &[&str]) -> io::Result<()> {
        names.iter().try_for_each(|name| self.start_component(name))
    }

    pub(crate) fn start_component(&self, name: &str) -> io::Result<()> {
        self.supervisor.ask(&format!("start {name}")).map(drop)
    }

    /// Ends a component by SIGTERM and waits for its end.
    pub(crate) fn stop_component(&self, name: &str) -> io::Result<()> {
        self.supervisor.ask(&format!("stop {name}")).map(drop)
    }

    /// Ends a component by SIGKILL and waits for its end.
    pub(crate) fn kill_component(&self, name: &str) -> io::Result<()> {
        self.supervisor.ask(&format!("kill {name}")).map(drop)
    }

    /// The first component that does not run any more, with the end of its log.
    pub(crate) fn ended(&self) -> Option<String> {
        files::COMPONENTS
            .iter()
            .find(|name| {
                self.supervisor
                    .ask(&format!("runs {name}"))
                    .is_ok_and(|answer| answer == "no")
            })
            .map(|name| format!("{name} ended:\n{}", self.log(name)))
    }

    /// The last lines that a component logged.
    pub(crate) fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.join(format!("logs/{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
