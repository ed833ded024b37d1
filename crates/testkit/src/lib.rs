//! For tests only: a real broker of our own, workers, publishers, waiting on conditions.
//!
//! | need | use |
//! |---|---|
//! | a RabbitMQ that all tests of a process share | [`broker()`] with queue names from [`unique`] |
//! | a RabbitMQ of another release | [`Broker::start_release`]; [`RELEASE`] for a whole run |
//! | a RabbitMQ to stop, to kill, to cut off | [`Broker::start`] |
//! | a RabbitMQ that pods of a cluster reach | [`Broker::start_on`] with [`machine_ip`] |
//! | to publish, to look at queues | [`Amqp`], usually from [`Broker::amqp`] |
//! | to publish what no AMQP library writes | [`BarePublisher`] |
//! | a worker with scripted answers that records every request | [`worker::Worker`] |
//! | a worker that answers bytes, or breaks the connection at any of them | [`raw::RawWorker`] |
//! | a bad network before a broker | [`toxic::Toxic`] |
//! | a program under test, its output and its signals | [`process::Process`] |
//! | to wait until something is so | [`wait::until`] |
//! | to call over HTTP | [`http`] |
//! | to read what was logged | [`logs::capture`] |
//! | to have a line seen although the test passes | [`say`] |
//!
//! Everything listens on the loopback address only unless a test asks for more, on ports of its own, and nothing is left
//! behind when the test process ends, however it ends.
//!
//! Functions of this crate panic with a sentence where a test could only fail anyway; those that a test may want
//! to fail return a `Result`.

mod amqp;
mod bare;
mod broker;
pub mod http;
pub mod logs;
pub mod process;
pub mod raw;
mod served;
pub mod toxic;
pub mod wait;
pub mod worker;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

pub use amqp::{Amqp, Message, table, text};
pub use bare::BarePublisher;
pub use broker::{Broker, RELEASE, Release, SHARED_DIR, SHARED_URL, StartError, broker};

/// A name that no other test uses, of the form `<stem>-<12 hexadecimal digits>`.
///
/// Queues live on a broker that many tests share, also tests of other processes.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff)
}

/// An address of this machine that is not loopback: the one that it calls others from. `None` when it has none.
pub fn machine_ip() -> Option<Ipv4Addr> {
    // Connecting a datagram socket sends nothing; it only looks up the route. The address is one for documentation.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() => Some(ip),
        _ => None,
    }
}

/// Says a line on standard error past the test harness, which keeps what the print macros write to itself: a seed, a
/// figure, a reason to skip.
pub fn say(line: &str) {
    // Nobody reads it when standard error is gone, and that must not fail a test.
    let _said = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::unique;

    #[test]
    fn names_differ_and_keep_their_stem() {
        let (a, b) = (unique("orders"), unique("orders"));
        assert_ne!(a, b);
        assert!(a.starts_with("orders-"), "{a}");
        assert_eq!(a.len(), "orders-".len() + 12);
    }
}
