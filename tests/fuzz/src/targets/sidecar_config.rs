//! What a sidecar is started with. An input is lines: those that begin with `--` are arguments, the others are
//! variables of the environment.

use super::settings::check_sentence;
use crate::Target;
use crate::input::{pairs, text};
use sidecar::Config;
use std::time::Duration;

pub(crate) const TARGET: Target = Target {
    name: "sidecar-config",
    what: "command line and environment of a sidecar: a configuration, or a sentence for each name that is wrong",
    run,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (arguments, variables): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("--"));
    let environment = pairs(&variables.join("\n"));
    let arguments = ["sidecar"].into_iter().chain(arguments);
    let Ok(matches) = sidecar::config::command().try_get_matches_from(arguments) else {
        return;
    };
    match Config::read(&matches, &environment) {
        Ok(config) => {
            assert_eq!(config.report_only, config.queue.is_empty());
            assert!(config.prefetch() >= config.concurrency && config.concurrency > 0);
            assert!(
                config.worker.port > 0 && !config.worker.host.is_empty(),
                "{:?}",
                config.worker
            );
            assert!(config.retry.min <= config.retry.max && config.timeout > Duration::ZERO);
            assert!(config.path.path().starts_with('/'));
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a reason");
            for problem in &problems.0 {
                let name = &problem.name;
                assert!(
                    name.starts_with("--") || name.starts_with("KUBEDAEMON_"),
                    "{name}"
                );
                check_sentence(&problem.to_string(), name);
            }
        }
    }
}
