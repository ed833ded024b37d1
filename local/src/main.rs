//! The `kubedaemon` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    local::command::main(std::env::args_os())
}
