//! Logs on standard error.

use std::io::{self, IsTerminal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: text, coloured on a terminal.
    #[default]
    Text,
    /// For log collectors: one JSON object a line.
    Json,
}

/// Begins logging to standard error. `filter` is a level, or levels by module as tracing-subscriber's `Targets` reads
/// them (`info`, `sidecar=debug,info`); a second call in the same process changes nothing.
///
/// # Errors
/// One sentence when `filter` cannot be read.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let targets = targets(filter)?;
    let lines = fmt::layer().with_writer(io::stderr);
    let logs = Registry::default().with(targets);
    // Not being the first to install a subscriber is no error: tests run many components in one process.
    let _already_installed = match format {
        LogFormat::Text => logs
            .with(lines.with_ansi(io::stderr().is_terminal()).with_target(false))
            .try_init()
            .is_err(),
        LogFormat::Json => logs.with(lines.json().flatten_event(true)).try_init().is_err(),
    };
    Ok(())
}

fn targets(filter: &str) -> Result<Targets, String> {
    with_quiet_libraries(filter).parse().map_err(|error| {
        format!("log filter {filter:?} is not understood ({error}); try \"info\" or \"sidecar=debug,info\"")
    })
}

/// Libraries that log errors which they also return. We report those once, at a change; a library reports each try.
const QUIET: [&str; 3] = ["lapin", "kube_client", "kube_runtime"];

/// The filter with those libraries silenced, unless it names them.
fn with_quiet_libraries(filter: &str) -> String {
    let silenced = QUIET
        .into_iter()
        .filter(|library| !filter.contains(library))
        .map(|library| format!("{library}=off"));
    std::iter::once(filter.to_owned())
        .chain(silenced)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::filter::LevelFilter;

    #[test]
    fn a_bad_filter_is_named_in_a_sentence() {
        let sentence = init(LogFormat::Text, "side car=loud").unwrap_err();
        assert!(sentence.contains("side car=loud"), "{sentence}");
    }

    #[test]
    fn modules_have_levels_of_their_own() {
        let targets = targets("sidecar=debug,info").unwrap();
        let is_logged =
            |module, level: LevelFilter| targets.would_enable(module, &level.into_level().unwrap());
        assert!(is_logged("sidecar::pipeline", LevelFilter::DEBUG));
        assert!(is_logged("ops", LevelFilter::INFO) && !is_logged("ops", LevelFilter::DEBUG));
        assert!(!is_logged("lapin", LevelFilter::ERROR));
    }

    #[test]
    fn libraries_are_silenced_unless_they_are_named() {
        assert_eq!(
            with_quiet_libraries("info"),
            "info,lapin=off,kube_client=off,kube_runtime=off"
        );
        assert_eq!(
            with_quiet_libraries("info,lapin=debug"),
            "info,lapin=debug,kube_client=off,kube_runtime=off"
        );
    }
}
