//! The `sidecar` binary: reads its configuration, runs, drains on SIGTERM.

use sidecar::{App, Config, Drained, command, config};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let matches = config::command().get_matches();
    let environment = cli::environment();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return cli::refuse(format!("the runtime cannot be started: {error}")),
    };
    if matches.subcommand_matches("drain").is_some() {
        return runtime.block_on(drain(&matches, &environment));
    }
    let logging = match config::logging(&matches, &environment) {
        Ok(logging) => logging,
        Err(problem) => return cli::refuse(problem),
    };
    if let Err(sentence) = ops::telemetry::init(logging.format, &logging.filter) {
        return cli::refuse(sentence);
    }
    for unknown in cli::unknown_variables(&environment, &config::VARIABLES) {
        tracing::warn!("{unknown}");
    }
    match Config::read(&matches, &environment) {
        Ok(config) => runtime.block_on(run(config)),
        Err(problems) => cli::refuse(problems),
    }
}

async fn run(config: Config) -> ExitCode {
    ops::metrics::install();
    let shutdown = ops::shutdown::Shutdown::new();
    let bound = match ops::shutdown::on_signals(shutdown.clone()) {
        Ok(()) => App::bind(config).await,
        Err(error) => Err(error),
    };
    let bound = match bound {
        Ok(bound) => bound,
        Err(error) => return cli::refuse(error),
    };
    if let Ok(Some(address)) = bound.admin_addr() {
        tracing::info!(%address, "admin port open");
    }
    match bound.run(shutdown).await {
        Drained::Completely => ExitCode::SUCCESS,
        Drained::Forced { in_flight } => {
            tracing::warn!(
                in_flight,
                "forced to end; the broker delivers what was in flight again"
            );
            ExitCode::FAILURE
        }
    }
}

async fn drain(matches: &clap::ArgMatches, environment: &[(String, String)]) -> ExitCode {
    let (admin, grace) = match config::drain_target(matches, environment) {
        Ok(target) => target,
        Err(problems) => return cli::refuse(problems),
    };
    match command::drain(admin, grace.unwrap_or(Duration::MAX)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            cli::refuse(sentence);
            ExitCode::FAILURE
        }
    }
}
