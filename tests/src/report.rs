//! Lines that a test wants seen although it passes: its seed, its figures.

use std::io::{self, Write};

/// Writes a line to standard error past the test harness, which keeps what the print macros write to itself.
pub fn line(text: &str) {
    // A closed standard error must not fail a test.
    let _written_or_nobody_reads = writeln!(io::stderr(), "{text}");
}
