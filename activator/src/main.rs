//! The `activator` binary: reads its configuration, runs, drains on SIGTERM.

use activator::kubernetes::{self, Config};
use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = kubernetes::command().get_matches();
    let environment = cli::environment();
    let (format, filter) = cli::logging(&matches);
    if let Err(sentence) = ops::telemetry::init(format, filter) {
        return cli::refuse(sentence);
    }
    let config = match Config::read(&matches, &environment) {
        Ok(config) => config,
        Err(problems) => return cli::refuse(problems),
    };
    cli::block_on(run(config))
}

async fn run(config: Config) -> ExitCode {
    ops::metrics::install();
    let shutdown = ops::shutdown::Shutdown::new();
    if let Err(error) = ops::shutdown::on_signals(shutdown.clone()) {
        return cli::refuse(error);
    }
    let bound = match kubernetes::bind(config).await {
        Ok(bound) => bound,
        Err(error) => return cli::refuse(error),
    };
    tracing::info!(address = %bound.addr(), "calls are taken once the cluster is known");
    if let Ok(Some(address)) = bound.admin_addr() {
        tracing::info!(%address, "admin port open");
    }
    if bound.run(shutdown).await {
        ExitCode::SUCCESS
    } else {
        tracing::warn!("ended with calls cut off");
        ExitCode::FAILURE
    }
}
