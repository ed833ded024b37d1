//! `with-broker COMMAND [ARGUMENT…]`: runs a command while a private RabbitMQ is up.
//!
//! The command finds the broker by `KUBEDAEMON_TEST_AMQP` (its address) and `KUBEDAEMON_TEST_BROKER_DIR` (its run
//! directory, for `rabbitmqctl`); [`testkit::broker`] uses both. `KUBEDAEMON_TEST_RABBITMQ=trixie|sid` makes it a broker
//! of that release, see `tools/rabbitmq`, and likewise all others that the command starts. Ends with the command's exit code, or 128 + the
//! signal that ended it; the broker and its files are gone by then.
#![expect(clippy::print_stderr, reason = "a command line tool speaks on standard error")]

use std::env::args_os;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use testkit::Broker;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// As `sh` says it when a command cannot be run.
const CANNOT_RUN: u8 = 127;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(program) = args_os().nth(1) else {
        eprintln!("usage: with-broker COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("with-broker: signals cannot be handled: {error}");
            return ExitCode::FAILURE;
        }
    };
    // A signal during the start drops the broker, which removes it.
    let broker = tokio::select! {
        started = Broker::try_start("") => match started {
            Ok(broker) => broker,
            Err(error) => {
                eprintln!("with-broker: {error}");
                return ExitCode::FAILURE;
            }
        },
        number = signals.next() => return ExitCode::from(128 + number),
    };
    let (major, minor, patch) = broker.version();
    eprintln!("with-broker: RabbitMQ {major}.{minor}.{patch} runs");
    let command = Command::new(&program)
        .args(args_os().skip(2))
        .env(testkit::SHARED_URL, broker.url())
        .env(testkit::SHARED_DIR, broker.dir())
        .spawn();
    match command {
        Ok(child) => ExitCode::from(attend(child, signals).await),
        Err(error) => {
            eprintln!("with-broker: {}: {error}", program.display());
            ExitCode::from(CANNOT_RUN)
        }
    }
}

/// Waits for the command and returns its exit code.
///
/// A terminal sends Ctrl-C to the command itself as well; SIGTERM reaches only us and is passed on.
async fn attend(mut child: Child, mut signals: Signals) -> u8 {
    loop {
        // Both branches may be dropped and taken up again: neither loses anything.
        tokio::select! {
            status = child.wait() => return status.map_or(1, code),
            number = signals.next() => pass_on(&child, number),
        }
    }
}

fn pass_on(child: &Child, number: u8) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if number == SIGTERM
        && let Some(pid) = pid
    {
        // It may have ended in this moment.
        let _sent = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => SIGINT,
            _ = self.terminate.recv() => SIGTERM,
        }
    }
}
