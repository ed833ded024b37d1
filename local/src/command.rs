//! The `kubedaemon` command line.

pub(crate) mod publish;
pub(crate) mod run;
pub(crate) mod up;

use crate::app::{App, Config, Drained};
use crate::display::Screen;
use crate::telemetry;
use clap::{Arg, ArgMatches, Command};
use ops::shutdown::Shutdown;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

/// The filter for log lines unless something else is said: of the parts that every worker has many of, only what is
/// wrong.
const DEFAULT_LOG: &str = "warn,lapin=off,local=info";
const ADMIN_ENV: &str = "KUBEDAEMON_ADMIN";
const LOG_ENV: &str = "KUBEDAEMON_LOG";
/// Variables besides those of the contract.
const VARIABLES: [&str; 2] = [ADMIN_ENV, LOG_ENV];
/// The exit code after a second Ctrl-C: 128 + SIGINT, as shells count.
const INTERRUPTED: u8 = 130;

/// What goes on standard error before the process ends with exit code 2: one sentence a line.
pub(crate) type Refusal = String;

/// Runs the command line `arguments` (the program's name first) to its end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Help and clap's own refusals (exit code 2) end here.
    let matches = command()
        .try_get_matches_from(arguments)
        .unwrap_or_else(|error| error.exit());
    let environment = cli::environment();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(format!("the runtime cannot be started: {error}")),
    };
    let outcome = match matches.subcommand() {
        Some(("run", matches)) => run::read(matches, &environment)
            .and_then(|config| Process::read(matches, &environment)?.run(config, &runtime)),
        Some(("up", matches)) => up::read(matches, &environment)
            .and_then(|config| Process::read(matches, &environment)?.run(config, &runtime)),
        Some(("publish", matches)) => publish::read(matches, &environment).map(|publish| {
            runtime
                .block_on(publish.run())
                .map_or_else(failure, |()| ExitCode::SUCCESS)
        }),
        _ => unreachable!("invariant: clap knows these subcommands and wants one"),
    };
    outcome.unwrap_or_else(cli::refuse)
}

/// The whole command line, for the parser and for documents.
pub fn command() -> Command {
    Command::new("kubedaemon")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Workers that scale to zero, fed from RabbitMQ or called over HTTP, on this machine.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([run::command(), up::command(), publish::command()])
}

/// Flags of every command that runs workers.
fn process_args() -> [Arg; 2] {
    [
        own(
            "admin",
            "ADDRESS",
            "Serve health, status and metrics here, such as 127.0.0.1:9400",
            Some(ADMIN_ENV),
        ),
        own(
            "log",
            "FILTER",
            "What is logged: error, warn, info, debug, or by module",
            Some(LOG_ENV),
        ),
    ]
}

fn own(name: &'static str, value: &'static str, help: &str, variable: Option<&str>) -> Arg {
    let variable = variable
        .map(|variable| format!(" [env: {variable}]"))
        .unwrap_or_default();
    Arg::new(name)
        .long(name)
        .value_name(value)
        .help(format!("{help}{variable}"))
}

/// A flag's value, or its variable's, under the name that the user wrote.
fn given(
    matches: &ArgMatches,
    environment: &[(String, String)],
    flag: &str,
    variable: &str,
) -> Option<(String, String)> {
    let from_flag = matches
        .get_one::<String>(flag)
        .map(|value| (format!("--{flag}"), value.clone()));
    from_flag
        .or_else(|| cli::variable(environment, variable).map(|value| (variable.to_owned(), value.to_owned())))
}

/// An address to listen on.
fn read_address(name: &str, value: &str) -> Result<SocketAddr, Refusal> {
    value.parse().map_err(|_| {
        format!(
            "{name} is {value:?}, which is no address to listen on: write an address and a port such as \
             127.0.0.1:8000 (port 0 chooses one)"
        )
    })
}

/// What a process that runs workers has besides them.
struct Process {
    admin: Option<SocketAddr>,
    log: String,
    warnings: Vec<String>,
}

impl Process {
    fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Self, Refusal> {
        // A sidecar on the same machine has its admin port on unless it is "off".
        let admin = given(matches, environment, "admin", ADMIN_ENV).filter(|(_, value)| value != "off");
        let admin = admin
            .map(|(name, value)| read_address(&name, &value))
            .transpose()?;
        let log = given(matches, environment, "log", LOG_ENV);
        let log = log.map_or_else(|| DEFAULT_LOG.to_owned(), |(_, value)| value);
        let unknown = cli::unknown_variables(environment, &VARIABLES);
        Ok(Self {
            admin,
            log,
            warnings: unknown.iter().map(ToString::to_string).collect(),
        })
    }

    fn run(self, config: Config, runtime: &tokio::runtime::Runtime) -> Result<ExitCode, Refusal> {
        let screen =
            Screen::of_process().map_err(|error| format!("the display cannot be started: {error}"))?;
        telemetry::init(&screen, &self.log)?;
        Ok(runtime.block_on(async {
            ops::metrics::install();
            let code = self.run_until_signal(config, &screen).await;
            screen.close().await;
            code
        }))
    }

    async fn run_until_signal(self, mut config: Config, screen: &Screen) -> ExitCode {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        config.admin = self.admin;
        let shutdown = Shutdown::new();
        let bound = match crate::signals::install(shutdown.clone(), screen.clone()) {
            Ok(()) => App::bind(config, screen.clone()).await,
            Err(error) => Err(format!("signals cannot be received: {error}")),
        };
        match bound {
            Ok(bound) => match bound.run(shutdown).await {
                Drained::Completely => ExitCode::SUCCESS,
                Drained::Forced => ExitCode::from(INTERRUPTED),
            },
            Err(sentence) => {
                screen.note(sentence);
                ExitCode::FAILURE
            }
        }
    }
}

/// Says what went wrong on standard error; for commands that show nothing else.
#[expect(
    clippy::print_stderr,
    reason = "the command's answer to the one who called it"
)]
fn failure(sentence: impl std::fmt::Display) -> ExitCode {
    eprintln!("{sentence}");
    ExitCode::FAILURE
}
