//! The programs of Kubernetes in the cache, and whether this machine can run them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why no cluster can run here, in a sentence; `None` where one can. Only what a machine refuses counts: what is
/// merely not installed or built yet is installed and built by [`Cluster::start`](crate::Cluster::start).
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a node needs root: it makes network namespaces, mounts and control groups".to_owned());
    }
    // A directory of our own that stays is what a node makes too.
    let groups = Path::new("/sys/fs/cgroup");
    let memory = if groups.join("cgroup.controllers").exists() {
        groups.to_owned()
    } else {
        groups.join("memory")
    };
    let own = memory.join(testkit::unique("kubedaemon-look"));
    if let Err(error) = fs::create_dir(&own) {
        return Some(format!(
            "control groups are not available: {}: {error}",
            own.display()
        ));
    }
    // It is empty: nothing else can be in the way, and an empty group does no harm.
    let _removed = fs::remove_dir(&own);
    let namespaces = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--ipc", "--fork", "true"])
        .stdin(Stdio::null())
        .output();
    match namespaces {
        Ok(made) if made.status.success() => None,
        Ok(made) => {
            let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            Some(format!("namespaces are not available: {why}"))
        }
        Err(error) => Some(format!("unshare cannot be run: {error}")),
    }
}

/// As [`unavailable`], and says on standard error that the test at hand is skipped and why, past the capture of the
/// test harness.
pub fn skip(test: &str) -> bool {
    let Some(reason) = unavailable() else {
        return false;
    };
    testkit::say(&format!("skipped: {test}: {reason}"));
    true
}

/// Installs and builds what is missing, once, and returns the directory of the programs.
pub(crate) fn build() -> io::Result<PathBuf> {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/cluster");
    let installed = Command::new(&tool).arg("setup").stdin(Stdio::null()).status()?;
    if !installed.success() {
        return Err(io::Error::other("tools/cluster setup failed, see above"));
    }
    let built = Command::new(&tool)
        .arg("build")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let path = String::from_utf8_lossy(&built.stdout).trim().to_owned();
    if !built.status.success() || path.is_empty() {
        return Err(io::Error::other("tools/cluster build failed, see above"));
    }
    Ok(PathBuf::from(path))
}
