//! The kernel's tables of sockets.

use crate::Target;
use crate::input::text;
use sidecar::domain::sockets::{from_outside, read};

pub(crate) const TARGET: Target = Target {
    name: "sockets",
    what: "/proc/net/tcp and tcp6: every row is read, or nothing is",
    run,
};

fn run(input: &[u8]) {
    let Some(table) = text(input) else { return };
    let Some(sockets) = read(table) else { return };
    assert_eq!(sockets.len(), table.lines().count() - 1);
    for port in [80, 8080] {
        let counted = usize::try_from(from_outside(&sockets, port)).expect("a count");
        let there = sockets
            .iter()
            .filter(|socket| socket.local.port() == port)
            .count();
        assert!(counted <= there);
    }
}
