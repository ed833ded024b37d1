//! What can be set: the contract's settings, and a few that only the process has.

mod process;

use crate::dispatch::Worker;
use crate::domain::budget::Budget;
use crate::domain::lever::Remote;
use crate::domain::request::Target;
use crate::domain::retry;
use clap::{Arg, ArgAction, ArgMatches, Command};
use contract::broker::BrokerUrl;
use contract::pods::{DRAIN_KEY_ENV, POD_NAME_ENV, POD_NAMESPACE_ENV};
use contract::settings::{self, Component, Problem, Problems, Settings, default_prefetch};
use http::Uri;
use ops::telemetry::LogFormat;
use process::Process;
use std::net::SocketAddr;
use std::time::Duration;

/// Process-level variables, besides those of the contract.
pub const VARIABLES: [&str; 9] = [
    TARGET_ENV,
    REPORT_ONLY_ENV,
    ADMIN_ENV,
    GRACE_ENV,
    LOG_ENV,
    LOG_FORMAT_ENV,
    POD_NAMESPACE_ENV,
    POD_NAME_ENV,
    DRAIN_KEY_ENV,
];
const TARGET_ENV: &str = "KUBEDAEMON_TARGET";
const REPORT_ONLY_ENV: &str = "KUBEDAEMON_REPORT_ONLY";
const ADMIN_ENV: &str = "KUBEDAEMON_ADMIN";
const GRACE_ENV: &str = "KUBEDAEMON_GRACE";
const LOG_ENV: &str = "KUBEDAEMON_LOG";
const LOG_FORMAT_ENV: &str = "KUBEDAEMON_LOG_FORMAT";

/// Where the admin port is unless something else is said: loopback, so that nothing is open to a network by default.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:9464";
/// The most that bodies of prefetched messages should take together, in bytes: the sidecar has 64 MiB in a pod.
const BODIES: usize = 24 * 1024 * 1024;
/// What a drain may take beyond the longest message: to confirm a copy and to close.
const GRACE_MARGIN: Duration = Duration::from_secs(5);

/// Everything that a sidecar needs to run, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether there is no queue: no message is taken, the broker is left alone, and what is said of it below has no
    /// meaning.
    pub report_only: bool,
    /// Where messages come from.
    pub broker: BrokerUrl,
    /// The queue; empty when there is none.
    pub queue: String,
    /// Where messages go that no attempt can help.
    pub dead_letter: String,
    /// Where answers go to messages without a `reply-to`, if anywhere.
    pub response_queue: Option<String>,
    /// The longest message that the worker gets, in bytes.
    pub max_body_bytes: usize,
    /// The longest answer that becomes a reply, in bytes.
    pub reply_max_bytes: usize,
    /// How long a message may be deferred, from its dispatch on.
    pub max_defer: Duration,
    /// Whether callbacks get a port of their own on loopback where there is no admin port.
    pub callback_port: bool,
    /// How many accepted messages are remembered; 0 for none.
    pub remember_completed: usize,
    /// Where the worker listens.
    pub worker: Worker,
    /// The path that messages are posted to.
    pub path: Uri,
    /// The path at which the worker is introduced to its work, if any.
    pub init_path: Option<Uri>,
    /// Messages with the worker at once; 1 to 1000.
    pub concurrency: u16,
    /// Deliveries that the broker may hand over before the first is settled, not less than `concurrency`; `None` for as
    /// many as go with that concurrency.
    pub prefetch: Option<u16>,
    /// How long the worker has for one message.
    pub timeout: Duration,
    /// Attempts before a message is given up; at least 1.
    pub max_attempts: u32,
    /// How retries wait.
    pub retry: retry::Policy,
    /// How long a drain may take before it is forced.
    pub grace: Duration,
    /// The admin port; `None` for none.
    pub admin: Option<SocketAddr>,
    /// What calls from the network need to drain and to resume; `None` when only this machine may.
    pub remote: Option<Remote>,
    /// How RabbitMQ's tools show the connections: `namespace/pod` on a cluster.
    pub name: String,
}

/// How the process logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// The format.
    pub format: LogFormat,
    /// The filter, as `ops::telemetry::init` reads it.
    pub filter: String,
}

impl Config {
    /// A sidecar with these settings for a worker on this machine, without an admin port; `None` when there is no
    /// queue.
    pub fn for_worker(settings: &Settings, worker: Worker, name: String) -> Option<Self> {
        settings.queue.as_ref()?;
        let config = Self::build(settings, worker, name)?;
        Some(Self {
            callback_port: true,
            ..config
        })
    }

    /// As [`for_worker`](Self::for_worker), with or without a queue.
    fn build(settings: &Settings, worker: Worker, name: String) -> Option<Self> {
        Some(Self {
            report_only: settings.queue.is_none(),
            broker: settings.broker.clone(),
            queue: settings.queue.clone().unwrap_or_default(),
            dead_letter: settings.dead_letter.clone().unwrap_or_default(),
            response_queue: settings.response_queue.clone(),
            max_body_bytes: usize::try_from(settings.max_body_bytes).ok()?,
            reply_max_bytes: usize::try_from(settings.reply_max_bytes).ok()?,
            max_defer: settings.max_defer,
            callback_port: false,
            remember_completed: usize::try_from(settings.remember_completed).ok()?,
            worker,
            path: settings.path.parse().ok()?,
            init_path: settings.init_path.as_ref().and_then(|path| path.parse().ok()),
            concurrency: settings.concurrency,
            prefetch: settings.prefetch,
            timeout: settings.timeout,
            max_attempts: settings.max_attempts,
            retry: retry::Policy {
                min: settings.retry_backoff.min,
                max: settings.retry_backoff.max,
            },
            grace: settings.timeout + GRACE_MARGIN,
            admin: None,
            remote: None,
            name,
        })
    }

    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let settings = cli::read_settings(matches, environment)
            .map_err(|problems| problems.0)
            .unwrap_or_else(|wrong| {
                problems.extend(wrong);
                settings::parse(&settings::Flags::default()).expect("invariant: the defaults are valid")
            });
        let mut process = Process {
            matches,
            environment,
            problems: &mut problems,
        };
        let target = process.target();
        let admin = process.admin();
        let grace = process.grace();
        let pod = process.pod();
        let remote = process.remote(pod.as_deref());
        process.check_intake();
        let (worker, path) = target.unwrap_or_else(|| {
            (
                Worker {
                    host: "127.0.0.1".to_owned(),
                    port: settings.port,
                },
                None,
            )
        });
        let queue = settings.queue.as_deref().unwrap_or_default();
        let name = format!("kubedaemon sidecar {}", pod.as_deref().unwrap_or(queue));
        let config = Self::build(&settings, worker, name);
        match config {
            Some(config) if problems.is_empty() => Ok(Self {
                path: path.unwrap_or(config.path),
                grace: grace.unwrap_or(config.grace),
                admin,
                remote,
                ..config
            }),
            _ => Err(Problems(problems)),
        }
    }

    /// Deliveries that the broker may hand over before the first is settled.
    pub fn prefetch(&self) -> u16 {
        self.prefetch
            .unwrap_or_else(|| default_prefetch(self.concurrency))
    }

    /// The prefetch, which is less while bodies are so large that they would not fit into memory.
    pub(crate) fn budget(&self) -> Budget {
        Budget::new(BODIES, self.prefetch())
    }

    /// Where requests go, with their constant parts.
    pub(crate) fn request_target(&self) -> Target {
        let host = if self.worker.host.contains(':') {
            format!("[{}]:{}", self.worker.host, self.worker.port)
        } else {
            format!("{}:{}", self.worker.host, self.worker.port)
        };
        Target::new(
            self.path.clone(),
            host,
            self.queue.clone(),
            self.max_attempts,
            self.timeout,
        )
    }
}

/// Which sidecar `sidecar drain` speaks to, and for how long it waits.
///
/// # Errors
/// Everything that is wrong, one sentence each.
pub fn drain_target(
    matches: &ArgMatches,
    environment: &[(String, String)],
) -> Result<(SocketAddr, Option<Duration>), Problems> {
    let mut problems = Vec::new();
    let mut process = Process {
        matches,
        environment,
        problems: &mut problems,
    };
    let (admin, grace) = (process.admin(), process.grace());
    match admin {
        Some(admin) if problems.is_empty() => Ok((admin, grace)),
        None if problems.is_empty() => Err(Problems(vec![Problem::wrong(
            "--admin",
            "off",
            "leaves nobody to ask",
            "the sidecar's admin address",
        )])),
        _ => Err(Problems(problems)),
    }
}

/// How to log.
///
/// # Errors
/// A sentence about a log format that is none.
pub fn logging(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Logging, Problem> {
    let mut problems = Vec::new();
    let process = Process {
        matches,
        environment,
        problems: &mut problems,
    };
    let (_, filter) = process
        .given("log", LOG_ENV)
        .unwrap_or_else(|| (String::new(), "info".to_owned()));
    let format = match process.given("log-format", LOG_FORMAT_ENV) {
        None => LogFormat::Text,
        Some((name, value)) => match value.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(Problem::wrong(name, &value, "is no log format", "text or json")),
        },
    };
    Ok(Logging { format, filter })
}

/// The command line.
pub fn command() -> Command {
    Command::new("sidecar")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Pulls messages from RabbitMQ, posts each to a worker, settles it by the answer.")
        .after_help(format!(
            "Example: sidecar --queue orders --target http://127.0.0.1:8080\n\n\
             In a pod, {POD_NAMESPACE_ENV} and {POD_NAME_ENV} tell which one it is, and {DRAIN_KEY_ENV} is the \
             public key of who may drain and resume it over the network."
        ))
        .args(cli::setting_args(settings::used_by(Component::Sidecar)))
        .arg(own("target", "URL", "Where the worker listens, instead of --port on this machine; with a path also instead of --path", TARGET_ENV))
        .arg(
            Arg::new("report-only")
                .long("report-only")
                .action(ArgAction::SetTrue)
                .help(format!("Without a queue: takes no messages and needs no broker, tells whether the worker is up [env: {REPORT_ONLY_ENV}]")),
        )
        .arg(own("admin", "ADDRESS", "Where probes, status and metrics are served: an address, or off [default: 127.0.0.1:9464]", ADMIN_ENV).global(true))
        .arg(own("grace", "DURATION", "How long a drain may take before it is forced [default: timeout + 5s]", GRACE_ENV).global(true))
        .arg(own("log", "FILTER", "What is logged: error, warn, info, debug, or by module [default: info]", LOG_ENV))
        .arg(own("log-format", "FORMAT", "How it is logged: text or json [default: text]", LOG_FORMAT_ENV))
        .subcommand(Command::new("drain").about(
            "Stops the intake of the sidecar on this machine and waits until nothing is in flight; for a preStop hook",
        ))
}

fn own(name: &'static str, value: &'static str, help: &'static str, variable: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .help(format!("{help} [env: {variable}]"))
}

#[cfg(test)]
mod tests;
