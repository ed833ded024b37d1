//! What is fuzzed: functions that take any bytes and panic when a promise is broken.
//!
//! [`TARGETS`] lists them. `tools/fuzz` gives them to libFuzzer, instrumented; `tests/corpus.rs` gives them the files
//! in `corpus/<name>/`, which are the seeds and what was found since, in every run of the tests. `words/<name>` holds
//! words that a fuzzer would hardly guess, in libFuzzer's form of a dictionary.

mod input;
mod targets;
mod wire;

/// One function under test.
#[derive(Debug)]
pub struct Target {
    /// Its name, which is that of its corpus.
    pub name: &'static str,
    /// What it reads and what must hold, in a few words.
    pub what: &'static str,
    /// Takes any bytes; panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = targets::ALL;

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
