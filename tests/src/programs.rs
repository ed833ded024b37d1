//! Our programs as cargo built them, and ports for them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The program of this name, in the directory that the running one was built into.
///
/// Panics with a sentence when it is not there: cargo builds the programs of other crates only when asked.
pub fn program(name: &str) -> PathBuf {
    let running = std::env::current_exe().expect("a running program has a path");
    let built = running
        .ancestors()
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file());
    built.unwrap_or_else(|| {
        panic!(
            "there is no {name} beside {}: run `cargo build --workspace`",
            running.display()
        )
    })
}

/// A command that runs it.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.env("RUST_BACKTRACE", "0");
    command
}

/// Runs a program to its end; gives its status and everything that it said.
pub async fn run(mut command: Command) -> (Output, String) {
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = ended
        .await
        .expect("waiting does not panic")
        .expect("the program starts");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    (output, said)
}

/// A TCP port that was free a moment ago, for programs that must be told one.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}

/// A port for a program that ends and starts again: below the range from which Linux takes the local ports of outgoing
/// connections, so that nobody is given it meanwhile.
pub fn lasting_port() -> u16 {
    let free = std::iter::repeat_with(|| fastrand::u16(12_000..19_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("the ports do not end")
}
