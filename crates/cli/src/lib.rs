//! The contract's settings as command-line arguments and environment variables, read in one way by every binary.
//!
//! A flag wins over its variable, a variable over the default. Everything that is wrong is said at once, a sentence
//! each; the exit code for that is 2, as clap's own.

use clap::{Arg, ArgMatches};
use contract::settings::{
    self, Environment, Flags, Layered, Naming, Problems, SETTINGS, Setting, Settings, Unknown,
};
use ops::telemetry::LogFormat;
use std::process::ExitCode;

/// The exit code for a command line or an environment that is not understood.
pub const USAGE: u8 = 2;

/// An argument for each of these settings: `--max-attempts N`, with its help from the table. Values are taken as they
/// are; [`read_settings`] judges them, so that flags and variables are judged alike.
pub fn setting_args(settings: impl IntoIterator<Item = &'static Setting>) -> Vec<Arg> {
    settings
        .into_iter()
        .map(|setting| {
            Arg::new(setting.name)
                .long(setting.name)
                .value_name(setting.value_name())
                .help(setting.help())
                .allow_hyphen_values(true)
        })
        .collect()
}

/// The environment, read once.
pub fn environment() -> Vec<(String, String)> {
    // What is no text cannot be one of our variables.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Every setting, from flags and variables.
///
/// # Errors
/// Everything that is wrong, one sentence each, under the name that the user wrote.
pub fn read_settings(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Settings, Problems> {
    let given = SETTINGS.iter().filter_map(|setting| {
        let value = matches.try_get_one::<String>(setting.name).ok().flatten()?;
        Some((setting.name.to_owned(), value.clone()))
    });
    let flags = Flags::new(given);
    let variables = Environment::new(environment.iter().cloned());
    settings::parse(&Layered(&[&flags, &variables]))
}

/// Variables with our prefix that nothing knows, with the nearest name; `also` are a binary's own.
pub fn unknown_variables(environment: &[(String, String)], also: &[&str]) -> Vec<Unknown> {
    settings::unknown(
        Naming::Env,
        environment.iter().map(|(name, _)| name.as_str()),
        also,
    )
}

/// A variable's value; one that is empty counts as not set.
pub fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment
        .iter()
        .find(|(known, value)| known == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

/// The arguments `--log` and `--log-format`, which [`logging`] reads.
pub fn log_args() -> [Arg; 2] {
    [
        Arg::new("log")
            .long("log")
            .value_name("FILTER")
            .help("What is logged: error, warn, info, debug, or by module")
            .default_value("info"),
        Arg::new("log-format")
            .long("log-format")
            .value_name("FORMAT")
            .help("How it is logged")
            .value_parser(["text", "json"])
            .default_value("text"),
    ]
}

/// How to log: the format and the filter.
pub fn logging(matches: &ArgMatches) -> (LogFormat, &str) {
    let text = |flag: &str| {
        matches
            .get_one::<String>(flag)
            .map(String::as_str)
            .unwrap_or_default()
    };
    let format = match text("log-format") {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    };
    (format, text("log"))
}

/// Runs a program to its end on one thread; refuses when the system has no runtime to give.
pub fn block_on(program: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(program),
        Err(error) => refuse(format!("the runtime cannot be started: {error}")),
    }
}

/// Says what is wrong on standard error, a line each, and gives the exit code for it.
#[expect(
    clippy::print_stderr,
    reason = "the answer to a wrong command line goes to the terminal, not to a log"
)]
pub fn refuse(sentences: impl std::fmt::Display) -> ExitCode {
    eprintln!("{sentences}");
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    fn read(args: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        let command = Command::new("test").args(setting_args(SETTINGS));
        let matches = command
            .try_get_matches_from([&["test"], args].concat())
            .map_err(|error| error.to_string())?;
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        read_settings(&matches, &environment).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let environment = [("KUBEDAEMON_MAX_ATTEMPTS", "7"), ("KUBEDAEMON_QUEUE", "orders")];
        let settings = read(&["--max-attempts", "3"], &environment).unwrap();
        assert_eq!(
            (settings.max_attempts, settings.queue.as_deref()),
            (3, Some("orders"))
        );
    }

    #[test]
    fn everything_wrong_is_said_under_the_name_that_was_written() {
        let said = read(&["--timeout", "soon"], &[("KUBEDAEMON_CONCURRENCY", "-1")]).unwrap_err();
        assert!(
            said.contains("--timeout is \"soon\"") && said.contains("KUBEDAEMON_CONCURRENCY is \"-1\""),
            "{said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
    }

    #[test]
    fn an_unknown_flag_suggests_the_nearest() {
        let said = read(&["--max-atempts", "3"], &[]).unwrap_err();
        assert!(said.contains("--max-attempts"), "{said}");
    }
}
