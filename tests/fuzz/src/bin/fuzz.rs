//! libFuzzer around one of the targets, which `--target=NAME` names; started by `tools/fuzz`.

#![no_main]

use fuzz::Target;
use std::sync::OnceLock;

static TARGET: OnceLock<&Target> = OnceLock::new();

fn named() -> &'static Target {
    // libFuzzer passes over what begins with two dashes.
    let name = std::env::args().find_map(|arg| arg.strip_prefix("--target=").map(str::to_owned));
    fuzz::find(&name.unwrap_or_default()).expect("--target=NAME names a target")
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.get_or_init(named).run)(input));
