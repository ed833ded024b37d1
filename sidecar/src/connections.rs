//! How many callers the worker has: looked up in the kernel's tables when somebody asks, and not before.

use crate::dispatch::Worker;
use crate::domain::sockets;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Tables of the network namespace that this process is in, in a pod the pod's.
const TABLE: &str = "/proc/net/tcp";
/// Absent where the kernel has no IPv6.
const TABLE_V6: &str = "/proc/net/tcp6";
/// The most that is read of a table: 50 000 sockets. One that is longer is not known.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// How old an answer may be. Reading takes about a millisecond of the only thread, and anybody may ask.
const FRESH: Duration = Duration::from_millis(50);

/// Counts connections to a worker's port.
#[derive(Debug)]
pub struct Connections {
    /// `None` for a worker on another machine, whose tables cannot be read.
    port: Option<u16>,
    last: Mutex<Option<(Instant, Option<u32>)>>,
}

impl Connections {
    /// Of this worker.
    pub fn to(worker: &Worker) -> Self {
        let ip: Option<IpAddr> = worker.host.parse().ok();
        let is_here = ip.map_or(worker.host == "localhost", |ip| ip.to_canonical().is_loopback());
        Self {
            port: is_here.then_some(worker.port),
            last: Mutex::new(None),
        }
    }

    /// Established connections from outside the pod to the worker's port; `None` when that cannot be known.
    pub fn count(&self) -> Option<u32> {
        let port = self.port?;
        let mut last = self.last.lock().expect("invariant: no holder panics");
        match *last {
            Some((at, count)) if at.elapsed() < FRESH => count,
            _ => {
                let count = look(port);
                *last = Some((Instant::now(), count));
                count
            }
        }
    }
}

fn look(port: u16) -> Option<u32> {
    let v4 = table(TABLE).ok()?;
    let v6 = match table(TABLE_V6) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        text => Some(text.ok()?),
    };
    let count = |text: &String| Some(sockets::from_outside(&sockets::read(text)?, port));
    let v6 = match &v6 {
        Some(text) => count(text)?,
        None => 0,
    };
    Some(count(&v4)? + v6)
}

fn table(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read < MAX_BYTES) {
        Ok(text)
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn worker(host: &str, port: u16) -> Worker {
        Worker {
            host: host.to_owned(),
            port,
        }
    }

    #[tokio::test]
    async fn the_kernel_tells_of_a_connection_from_both_ends() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue; // This machine has no IPv6.
            };
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let (_accepted, _) = listener.accept().unwrap();
            let name = if server.is_ipv4() { TABLE } else { TABLE_V6 };
            let rows = sockets::read(&table(name).unwrap()).unwrap();
            let established = |local, remote| {
                rows.iter()
                    .any(|row| row.local == local && row.remote == remote && row.is_established)
            };
            let client = client.local_addr().unwrap();
            assert!(
                established(client, server) && established(server, client),
                "{rows:?}"
            );
            let connections = Connections::to(&worker("127.0.0.1", server.port()));
            assert_eq!(connections.count(), Some(0), "loopback is not outside");
        }
    }

    #[tokio::test]
    async fn a_worker_elsewhere_is_not_known() {
        for host in ["example.org", "10.0.0.7", "fd00::7"] {
            assert_eq!(Connections::to(&worker(host, 8080)).count(), None, "{host}");
        }
        for host in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(Connections::to(&worker(host, 1)).count(), Some(0), "{host}");
        }
    }
}
