//! Which release of RabbitMQ a broker of ours is: the machine's own, or one that `tools/rabbitmq` keeps in the cache.

use super::StartError;
use super::run_dir::Environment;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// Environment variable with the release of every broker that tests start: `trixie` or `sid`, or nothing for the
/// machine's own.
pub const RELEASE: &str = "KUBEDAEMON_TEST_RABBITMQ";

/// A node's program, below the root directory; also in `supervisor.sh` and `enter.sh`.
pub(super) const SERVER: &str = "usr/lib/rabbitmq/bin/rabbitmq-server";

/// The program that administrates one, on this machine.
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// Enters the root directory of another release, and its name below the run directory, where `supervisor.sh` looks.
const ENTER: &str = include_str!("enter.sh");
const ENTER_FILE: &str = "enter.sh";

/// Variable of a broker's environment with the root directory of another release.
pub(super) const ROOT: &str = "KUBEDAEMON_RABBITMQ_ROOT";

/// A release of RabbitMQ, by where it comes from: what version that is changes with time, see
/// [`Broker::version`](super::Broker::version).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Release {
    /// The one of this machine, of Debian's package `rabbitmq-server`.
    #[default]
    Installed,
    /// The one of Debian 13: 4.0.
    Trixie,
    /// The newest one that Debian has: 4.3 in November 2026.
    Sid,
}

impl Release {
    /// The word for it in [`RELEASE`]; `tools/rabbitmq build` takes those of the cached ones.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// What [`RELEASE`] says.
    ///
    /// # Errors
    ///
    /// [`StartError::UnknownRelease`].
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where tests are told of a release"
    )]
    pub fn of_environment() -> Result<Self, StartError> {
        Self::parse(&std::env::var(RELEASE).unwrap_or_default())
    }

    fn parse(word: &str) -> Result<Self, StartError> {
        match word {
            "" => Ok(Self::Installed),
            _ => [Self::Installed, Self::Trixie, Self::Sid]
                .into_iter()
                .find(|release| release.as_str() == word)
                .ok_or_else(|| StartError::UnknownRelease(word.to_owned())),
        }
    }

    /// Its root directory; `None` for the machine's own.
    ///
    /// # Errors
    ///
    /// A sentence that says why no broker of this release can be started.
    pub(super) fn root(self) -> Result<Option<PathBuf>, StartError> {
        if self == Self::Installed {
            let is_there = Path::new("/").join(SERVER).exists();
            return is_there.then_some(None).ok_or(StartError::NotInstalled);
        }
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::NotRoot(self));
        }
        let root = cache()
            .map(|cache| cache.join(format!("rabbitmq-{}", self.as_str())).join("root"))
            .filter(|root| root.join(SERVER).exists());
        root.map(Some).ok_or(StartError::NotBuilt(self))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As `tool_cache` of `tools/lib.sh` has it.
fn cache() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = match of("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(of("HOME")?).join(".cache"),
    };
    Some(base.join("kubedaemon-test"))
}

/// Writes what enters another root directory into run directory `dir`.
pub(super) fn write(dir: &Path) -> io::Result<()> {
    // It is read by a shell and not run itself: a program that was just written may be busy for a moment.
    fs::write(dir.join(ENTER_FILE), ENTER)
}

/// `rabbitmqctl` for the broker of run directory `dir`, with nothing but its environment.
pub(super) fn ctl(dir: &Path, environment: &Environment) -> Command {
    let mut command = if environment.iter().any(|(name, _)| name == ROOT) {
        let mut enter = Command::new("/bin/sh");
        enter.arg(dir.join(ENTER_FILE)).arg("rabbitmqctl");
        enter
    } else {
        Command::new(CTL)
    };
    command.env_clear().envs(environment.iter().cloned());
    command
}

/// What the broker on this port of 127.0.0.1 says of itself before anybody has logged in; lapin keeps it to itself.
///
/// Source: AMQP 0-9-1, `connection.start` with `server-properties`, a field table in which `version` is a long string.
pub(super) fn version(port: u16) -> io::Result<(u32, u32, u32)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    // A frame's type, channel and the length of what follows.
    let mut header = [0; 7];
    stream.read_exact(&mut header)?;
    let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    let mut payload = Vec::new();
    stream.take(length.into()).read_to_end(&mut payload)?;
    version_in(&payload).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The value of the field `version`, whose name stands behind its length and whose value behind its type and length.
fn version_in(payload: &[u8]) -> Option<(u32, u32, u32)> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = payload.windows(FIELD.len()).position(|window| window == FIELD)?;
    let (length, rest) = payload.get(at + FIELD.len()..)?.split_first_chunk()?;
    let value = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    // A pre-release has more behind the third number: 4.3.0-rc.1.
    let mut numbers = std::str::from_utf8(value).ok()?.split(['.', '-', '+']);
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::{Release, StartError, version_in};

    #[test]
    fn a_version_is_read_from_what_a_broker_says_first() {
        let said = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x22\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x06";
        let said = |version: &str| [said, version.as_bytes()].concat();
        assert_eq!(version_in(&said("4.3.16")), Some((4, 3, 16)));
        let said = |length: u8, version: &str| {
            let mut bytes = said(version);
            let at = bytes.len() - version.len() - 1;
            bytes[at] = length;
            bytes
        };
        assert_eq!(version_in(&said(10, "4.4.0-rc.1")), Some((4, 4, 0)));
        assert_eq!(version_in(&said(10, "4.4.0")), None, "cut short");
        assert_eq!(version_in(&said(3, "4.4")), None);
        assert_eq!(version_in(b""), None);
    }

    #[test]
    fn a_release_is_named_by_one_word() {
        assert_eq!(Release::parse(""), Ok(Release::Installed));
        for release in [Release::Installed, Release::Trixie, Release::Sid] {
            assert_eq!(Release::parse(release.as_str()), Ok(release));
        }
        let error = Release::parse("4.3").unwrap_err();
        assert_eq!(error, StartError::UnknownRelease("4.3".to_owned()));
        assert!(error.to_string().contains("\"4.3\""), "{error}");
    }
}
