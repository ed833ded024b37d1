//! Ports for worker processes: each gets one of its own in the environment variable `PORT`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that operating systems lend to outgoing connections (Linux from 32768, others from 49152), so that
/// a client can't be given a worker's port while the worker restarts.
const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

/// A TCP port on 127.0.0.1 that no other worker gets while this value lives.
///
/// The worker itself must be able to bind the TCP port, so it is the UDP port of the same number that is held: it
/// keeps other `kubedaemon` processes away and does not disturb a server that speaks TCP.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _held: UdpSocket,
}

impl Port {
    /// Finds and holds a free port.
    ///
    /// # Errors
    /// When all are taken.
    pub(crate) fn reserve() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes that start together begin at different places.
        let offset = std::process::id().wrapping_mul(127);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = u16::try_from(FIRST + offset.wrapping_add(step) % COUNT)
                .expect("invariant: the range ends below 65536");
            if let Ok(held) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))
                && is_free(number)
            {
                return Ok(Self { number, _held: held });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "no free port for a worker between {FIRST} and {}",
                FIRST + COUNT - 1
            ),
        ))
    }

    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Where the worker is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.number))
    }

    /// Whether nobody listens on the TCP port now. A foreign listener must not get the worker's messages.
    pub(crate) fn is_free(&self) -> bool {
        is_free(self.number)
    }
}

/// Servers bind loopback or all addresses; not every operating system lets one conflict with the other.
fn is_free(number: u16) -> bool {
    [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
        .iter()
        .all(|address| TcpListener::bind((*address, number)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ports_are_distinct_while_held() {
        let ports: Vec<_> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let numbers: HashSet<_> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }

    #[test]
    fn a_listener_makes_it_taken() {
        let port = Port::reserve().unwrap();
        assert!(port.is_free());
        let listener = TcpListener::bind(port.address()).unwrap();
        assert!(!port.is_free());
        drop(listener);
        assert!(port.is_free());
    }
}
