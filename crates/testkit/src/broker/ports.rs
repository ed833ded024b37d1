//! Ports for a broker, so that brokers of many test processes never meet.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which Linux takes the local ports of outgoing connections (32768–60999 by default,
/// `net.ipv4.ip_local_port_range`): a port that is free while the broker is down stays free.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_700;

/// Ports are handed out in blocks; binding a block's first port claims the block.
const BLOCK: u16 = 8;

/// A block of ports that belongs to one broker.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) amqp: u16,
    pub(super) amqps: u16,
    pub(super) distribution: u16,
    pub(super) epmd: u16,
    /// Held for as long as the broker lives, stopped or running, and given up with the process.
    _claim: TcpListener,
}

impl Ports {
    /// Claims a block whose ports are all free.
    pub(super) fn claim() -> io::Result<Self> {
        let mut refused = None;
        for _ in 0..200 {
            let base = FIRST + BLOCK * fastrand::u16(..(LAST - FIRST) / BLOCK);
            match Self::claim_block(base) {
                Ok(ports) => return Ok(ports),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrInUse)))
    }

    fn claim_block(base: u16) -> io::Result<Self> {
        let claim = TcpListener::bind((Ipv4Addr::LOCALHOST, base))?;
        for port in base + 1..=base + 4 {
            drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?);
        }
        Ok(Self {
            amqp: base + 1,
            amqps: base + 2,
            distribution: base + 3,
            epmd: base + 4,
            _claim: claim,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Ports;

    #[test]
    fn a_claimed_block_is_claimed_once() {
        let ports = Ports::claim().unwrap();
        Ports::claim_block(ports.amqp - 1).unwrap_err();
        let base = ports.amqp - 1;
        drop(ports);
        Ports::claim_block(base).unwrap();
    }
}
