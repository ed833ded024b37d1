//! The `autoscaler` binary: scales annotated workloads of a Kubernetes cluster until SIGTERM.

use autoscaler::kubernetes::{App, Config, config};
use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = config::command().get_matches();
    let environment = cli::environment();
    let (format, filter) = cli::logging(&matches);
    if let Err(sentence) = ops::telemetry::init(format, filter) {
        return cli::refuse(sentence);
    }
    for unknown in cli::unknown_variables(&environment, &config::VARIABLES) {
        tracing::warn!("{unknown}");
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
    let app = match App::bind(config).await {
        Ok(app) => app,
        Err(sentence) => return cli::refuse(sentence),
    };
    if let Ok(Some(address)) = app.admin_addr() {
        tracing::info!(%address, "admin port open");
    }
    if app.run(shutdown).await {
        ExitCode::SUCCESS
    } else {
        tracing::warn!("forced to end; the Lease ends by itself");
        ExitCode::FAILURE
    }
}
