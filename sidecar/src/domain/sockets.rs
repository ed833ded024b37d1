//! The kernel's tables of TCP sockets, `/proc/net/tcp` and `/proc/net/tcp6`, read as values.
//!
//! A row is `sl local_address rem_address st …`; addresses are hexadecimal, in 32-bit words of the machine's own byte
//! order, and ports are numbers (<https://docs.kernel.org/networking/proc_net_tcp.html>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `TCP_ESTABLISHED` of the kernel's `tcp_states.h`.
const ESTABLISHED: u8 = 1;

/// One socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Our end.
    pub local: SocketAddr,
    /// The other end; unspecified for one that listens.
    pub remote: SocketAddr,
    /// Whether the connection stands.
    pub is_established: bool,
}

impl Socket {
    /// Whether somebody outside of this network namespace is at the other end. A connection to an own address that is
    /// not loopback comes from that address too.
    fn is_from_outside(&self) -> bool {
        let (local, remote) = (self.local.ip().to_canonical(), self.remote.ip().to_canonical());
        !remote.is_loopback() && remote != local
    }
}

/// The sockets of one table; `None` when the text is none, for what cannot be read is not zero.
pub fn read(table: &str) -> Option<Vec<Socket>> {
    let mut lines = table.lines();
    let heading = lines.next()?;
    if !heading.trim_start().starts_with("sl ") {
        return None;
    }
    lines.map(row).collect()
}

/// How many connections from outside stand to `port`.
pub fn from_outside(sockets: &[Socket], port: u16) -> u32 {
    let counted = sockets
        .iter()
        .filter(|socket| socket.is_established && socket.local.port() == port && socket.is_from_outside());
    u32::try_from(counted.count()).unwrap_or(u32::MAX)
}

fn row(line: &str) -> Option<Socket> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let local = address(columns.next()?)?;
    let remote = address(columns.next()?)?;
    let state = u8::from_str_radix(columns.next()?, 16).ok()?;
    Some(Socket {
        local,
        remote,
        is_established: state == ESTABLISHED,
    })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADING: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";

    /// A row as the kernel writes it.
    fn write(local: SocketAddr, remote: SocketAddr, state: u8) -> String {
        let side = |address: SocketAddr| {
            let words: Vec<u8> = match address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let words = words.chunks(4).map(|word| {
                let word = u32::from_ne_bytes(word.try_into().unwrap());
                format!("{word:08X}")
            });
            format!("{}:{:04X}", words.collect::<String>(), address.port())
        };
        format!(
            "   0: {} {} {state:02X} 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 20 4 30 10 -1      ",
            side(local),
            side(remote)
        )
    }

    fn table(rows: &[String]) -> String {
        format!("{HEADING}\n{}\n", rows.join("\n"))
    }

    fn count(local: &str, remote: &str, state: u8) -> u32 {
        let row = write(local.parse().unwrap(), remote.parse().unwrap(), state);
        from_outside(&read(&table(&[row])).unwrap(), 8080)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_table_of_a_kernel_is_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 29614 1 0000000000000000 100 0 0 10 0                     \n\
            \x20  1: 0700000A:1F90 0200A8C0:D431 01 00000000:00000000 02:000003E8 00000000     0        0 29615 2 0000000000000000 20 4 30 10 -1                    \n";
        let sockets = read(text).unwrap();
        assert_eq!(sockets[0].local, "127.0.0.1:8080".parse().unwrap());
        let expected = Socket {
            local: "10.0.0.7:8080".parse().unwrap(),
            remote: "192.168.0.2:54321".parse().unwrap(),
            is_established: true,
        };
        assert_eq!((sockets.len(), sockets[1]), (2, expected));
        assert_eq!(from_outside(&sockets, 8080), 1);
        let mapped = "  sl  local_address                         remote_address                        st\n\
            \x20  0: 0000000000000000FFFF00000700000A:1F90 0000000000000000FFFF00000200A8C0:D431 01\n";
        let sockets = read(mapped).unwrap();
        assert_eq!(sockets[0].remote, "[::ffff:192.168.0.2]:54321".parse().unwrap());
        assert_eq!(from_outside(&sockets, 8080), 1);
    }

    #[test]
    fn only_established_ones_from_outside_to_the_port_count() {
        assert_eq!(count("10.0.0.7:8080", "10.0.0.9:40000", ESTABLISHED), 1);
        assert_eq!(count("[fd00::7]:8080", "[fd00::9]:40000", ESTABLISHED), 1);
        for state in (0..=12).filter(|state| *state != ESTABLISHED) {
            assert_eq!(count("10.0.0.7:8080", "10.0.0.9:40000", state), 0, "{state}");
        }
        // Its own calls to others, other ports, loopback in its three forms, and its own address.
        assert_eq!(count("10.0.0.7:40000", "10.0.0.9:8080", ESTABLISHED), 0);
        assert_eq!(count("10.0.0.7:8081", "10.0.0.9:40000", ESTABLISHED), 0);
        assert_eq!(count("127.0.0.1:8080", "127.0.0.1:40000", ESTABLISHED), 0);
        assert_eq!(count("[::1]:8080", "[::1]:40000", ESTABLISHED), 0);
        let mapped = "[::ffff:127.0.0.1]:8080";
        assert_eq!(count(mapped, "[::ffff:127.0.0.1]:40000", ESTABLISHED), 0);
        assert_eq!(count("10.0.0.7:8080", "10.0.0.7:40000", ESTABLISHED), 0);
        assert_eq!(count("[::ffff:10.0.0.7]:8080", "10.0.0.7:40000", ESTABLISHED), 0);
    }

    #[test]
    fn what_is_no_table_is_not_an_empty_one() {
        assert_eq!(
            read(&table(&[])).map(|rows| rows.len()),
            None,
            "an empty line is no row"
        );
        assert_eq!(read(&format!("{HEADING}\n")), Some(Vec::new()));
        for text in [
            "",
            "\n",
            "0: 0100007F:1F90 00000000:0000 0A",
            &format!("{HEADING}\n   0: 0100007F:1F90"),
            &format!("{HEADING}\n   0: 0100007F 00000000:0000 0A"),
            &format!("{HEADING}\n   0: 0100007:1F90 00000000:0000 0A"),
            &format!("{HEADING}\n   0: 010000éF:1F90 00000000:0000 0A"),
            &format!("{HEADING}\n   0: 0100007F:1FFFF 00000000:0000 0A"),
            &format!("{HEADING}\n   0: 0100007F:1F90 00000000:0000 XX"),
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(
            sockets in prop::collection::vec((any::<SocketAddr>(), any::<SocketAddr>(), any::<u8>()), 0..8),
        ) {
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            let rows: String = sockets.iter().map(|(local, remote, state)| write(*local, *remote, *state) + "\n").collect();
            let read = read(&format!("{HEADING}\n{rows}")).unwrap();
            let expected: Vec<_> = sockets
                .iter()
                .map(|(local, remote, state)| Socket {
                    local: plain(*local),
                    remote: plain(*remote),
                    is_established: *state == ESTABLISHED,
                })
                .collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn garbage_is_refused_or_counted_but_never_a_panic(text in "\\PC*", port in any::<u16>()) {
            let garbage = format!("{HEADING}\n{text}");
            for text in [&text, &garbage] {
                let _counted = read(text).map(|sockets| from_outside(&sockets, port));
            }
        }

        #[test]
        fn a_damaged_table_is_never_a_panic(
            at in any::<prop::sample::Index>(), by in any::<char>(), port in any::<u16>(),
        ) {
            let row = write("10.0.0.7:8080".parse().unwrap(), "[fd00::9]:1".parse().unwrap(), 1);
            let mut text: Vec<char> = table(&[row]).chars().collect();
            let at = at.index(text.len());
            text[at] = by;
            let text: String = text.into_iter().collect();
            let _counted = read(&text).map(|sockets| from_outside(&sockets, port));
        }
    }
}
