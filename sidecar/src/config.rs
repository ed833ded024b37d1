//! What can be set: the contract's settings, and a few that only the process has.

use crate::dispatch::Worker;
use crate::domain::lever::Remote;
use crate::domain::request::Target;
use crate::domain::retry;
use clap::{Arg, ArgAction, ArgMatches, Command};
use contract::broker::BrokerUrl;
use contract::pods::{DRAIN_KEY_ENV, POD_NAME_ENV, POD_NAMESPACE_ENV};
use contract::settings::{self, Component, Problem, Problems, Settings};
use http::{HeaderValue, Uri};
use ops::telemetry::LogFormat;
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
    /// Where the worker listens.
    pub worker: Worker,
    /// The path that messages are posted to.
    pub path: Uri,
    /// Messages with the worker at once; 1 to 1000.
    pub concurrency: u16,
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
    /// The filter, as `EnvFilter` reads it.
    pub filter: String,
}

impl Config {
    /// A sidecar with these settings for a worker on this machine, without an admin port; `None` when there is no
    /// queue.
    pub fn for_worker(settings: &Settings, worker: Worker, name: String) -> Option<Self> {
        settings.queue.as_ref()?;
        Self::build(settings, worker, name)
    }

    /// As [`for_worker`](Self::for_worker), with or without a queue.
    fn build(settings: &Settings, worker: Worker, name: String) -> Option<Self> {
        Some(Self {
            report_only: settings.queue.is_none(),
            broker: settings.broker.clone(),
            queue: settings.queue.clone().unwrap_or_default(),
            dead_letter: settings.dead_letter.clone().unwrap_or_default(),
            worker,
            path: settings.path.parse().ok()?,
            concurrency: settings.concurrency,
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

    /// Deliveries that the broker may hand over before the first is settled: what the worker can take, and a spare
    /// that covers acknowledgements waiting to be written together. With a concurrency of 1 there is no spare: a
    /// message must not wait behind a slow one while another replica is idle.
    pub fn prefetch(&self) -> u16 {
        self.concurrency + (self.concurrency - 1).min(32)
    }

    /// Where requests go, with their constant parts.
    pub(crate) fn request_target(&self) -> Target {
        let host = if self.worker.host.contains(':') {
            format!("[{}]:{}", self.worker.host, self.worker.port)
        } else {
            format!("{}:{}", self.worker.host, self.worker.port)
        };
        Target {
            path: self.path.clone(),
            host: HeaderValue::from_str(&host).unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            queue: self.queue.clone(),
            max_attempts: self.max_attempts,
            timeout: self.timeout,
        }
    }
}

/// The flags that belong to the process and not to the worker.
struct Process<'a> {
    matches: &'a ArgMatches,
    environment: &'a [(String, String)],
    problems: &'a mut Vec<Problem>,
}

impl Process<'_> {
    /// The name as the user wrote it, and the value.
    fn given(&self, flag: &str, variable: &str) -> Option<(String, String)> {
        let from_flag = self.matches.try_get_one::<String>(flag).ok().flatten();
        from_flag
            .map(|value| (format!("--{flag}"), value.clone()))
            .or_else(|| {
                cli::variable(self.environment, variable).map(|value| (variable.to_owned(), value.to_owned()))
            })
    }

    /// Messages come from a queue, or are not wanted; which of the two must be said, and no more than that.
    fn check_intake(&mut self) {
        let queue = self.given(settings::QUEUE.name, &settings::QUEUE.env());
        match (queue, self.report_only()) {
            (Some(_), None) | (None, Some(_)) => {}
            (Some((name, queue)), Some(switch)) => {
                let accepted = format!("either {name} or {switch}");
                self.problems.push(Problem::wrong(
                    name,
                    &queue,
                    "is of no use to a sidecar that only reports",
                    &accepted,
                ));
            }
            (None, None) => self.problems.push(Problem::missing(
                "--queue",
                "the name of the queue that messages come from",
            )),
        }
    }

    /// The switch as the user wrote it, when it is on.
    fn report_only(&mut self) -> Option<String> {
        if self.matches.get_flag("report-only") {
            return Some("--report-only".to_owned());
        }
        match cli::variable(self.environment, REPORT_ONLY_ENV)? {
            "true" => Some(REPORT_ONLY_ENV.to_owned()),
            "false" => None,
            other => {
                self.problems.push(Problem::wrong(
                    REPORT_ONLY_ENV,
                    other,
                    "is neither yes nor no",
                    "true or false",
                ));
                None
            }
        }
    }

    /// The pod that this is, as `namespace/name`.
    fn pod(&mut self) -> Option<String> {
        let namespace = cli::variable(self.environment, POD_NAMESPACE_ENV);
        let name = cli::variable(self.environment, POD_NAME_ENV);
        let missing = match (namespace, name) {
            (Some(namespace), Some(name)) => return Some(format!("{namespace}/{name}")),
            (None, None) => return None,
            (Some(_), None) => (POD_NAME_ENV, "the pod's name, for its namespace is given"),
            (None, Some(_)) => (POD_NAMESPACE_ENV, "the pod's namespace, for its name is given"),
        };
        self.problems.push(Problem::missing(missing.0, missing.1));
        None
    }

    /// What permissions from the network are checked with.
    fn remote(&mut self, pod: Option<&str>) -> Option<Remote> {
        let key = cli::variable(self.environment, DRAIN_KEY_ENV)?;
        let verifier = token::Verifier::read(key);
        if verifier.is_err() {
            let why = "is no public key to check permissions with";
            let accepted = "the 32 bytes of an Ed25519 key in base64url without padding";
            self.problems
                .push(Problem::wrong(DRAIN_KEY_ENV, key, why, accepted));
        }
        // Half of a pod's name was found missing already.
        let is_named = |variable| cli::variable(self.environment, variable).is_some();
        if !is_named(POD_NAME_ENV) && !is_named(POD_NAMESPACE_ENV) {
            let accepted = format!(
                "the pod's name, and its namespace to {POD_NAMESPACE_ENV}, for {DRAIN_KEY_ENV} is given"
            );
            self.problems.push(Problem::missing(POD_NAME_ENV, &accepted));
        }
        Some(Remote {
            pod: pod?.to_owned(),
            verifier: verifier.ok()?,
        })
    }

    fn target(&mut self) -> Option<(Worker, Option<Uri>)> {
        let (name, value) = self.given("target", TARGET_ENV)?;
        let parsed = read_target(&value);
        if parsed.is_none() {
            let accepted = "an address such as http://127.0.0.1:8080 or http://127.0.0.1:8080/message";
            self.problems.push(Problem::wrong(
                name,
                &value,
                "is no HTTP address of a worker",
                accepted,
            ));
        }
        parsed
    }

    fn admin(&mut self) -> Option<SocketAddr> {
        let (name, value) = self
            .given("admin", ADMIN_ENV)
            .unwrap_or_else(|| ("--admin".to_owned(), DEFAULT_ADMIN.to_owned()));
        if value == "off" {
            return None;
        }
        let parsed = value.parse().ok();
        if parsed.is_none() {
            let accepted = "an address and a port such as 127.0.0.1:9464 (port 0 chooses one), or off";
            self.problems.push(Problem::wrong(
                name,
                &value,
                "is no address to listen on",
                accepted,
            ));
        }
        parsed
    }

    fn grace(&mut self) -> Option<Duration> {
        let (name, value) = self.given("grace", GRACE_ENV)?;
        let parsed = contract::quantity::parse_duration(&value).ok();
        if parsed.is_none() {
            self.problems.push(Problem::wrong(
                name,
                &value,
                "is no duration",
                "a duration such as 30s or 1m30s",
            ));
        }
        parsed
    }
}

/// `http://host:port` with or without a path.
fn read_target(text: &str) -> Option<(Worker, Option<Uri>)> {
    let uri: Uri = text.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let worker = Worker {
        host,
        port: authority.port_u16().unwrap_or(80),
    };
    let path = uri
        .path_and_query()
        .filter(|path| path.as_str() != "/")
        .map(|path| Uri::from(path.clone()));
    Some((worker, path))
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
mod tests {
    use super::*;

    fn read(args: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let matches = command()
            .try_get_matches_from([&["sidecar"], args].concat())
            .map_err(|error| error.to_string())?;
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Config::read(&matches, &environment).map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_least_is_a_queue() {
        let config = read(&["--queue", "orders"], &[]).unwrap();
        assert_eq!(
            (config.worker.host.as_str(), config.worker.port),
            ("127.0.0.1", 8080)
        );
        assert_eq!(
            (config.path.path(), config.dead_letter.as_str()),
            ("/message", "orders.dead")
        );
        assert_eq!(config.grace, Duration::from_secs(65));
        assert_eq!(
            read(&[], &[]).unwrap_err(),
            "--queue is missing: write the name of the queue that messages come from"
        );
    }

    #[test]
    fn a_target_stands_for_host_port_and_path() {
        let config = read(&["--queue", "q", "--target", "http://127.0.0.1:9000"], &[]).unwrap();
        assert_eq!((config.worker.port, config.path.path()), (9000, "/message"));
        let config = read(
            &["--queue", "q"],
            &[("KUBEDAEMON_TARGET", "http://[::1]:9000/in?x=1")],
        )
        .unwrap();
        assert_eq!(
            (config.worker.host.as_str(), config.path.to_string()),
            ("::1", "/in?x=1".to_owned())
        );
        assert_eq!(config.request_target().host, "[::1]:9000");
    }

    #[test]
    fn wrong_process_flags_get_a_sentence_each() {
        for (flag, value, expected) in [
            (
                "--target",
                "https://a:1",
                "--target is \"https://a:1\", which is no HTTP address of a worker",
            ),
            ("--target", "127.0.0.1:80", "--target is \"127.0.0.1:80\""),
            ("--target", "http://u:p@h", "--target is \"http://u:p@h\""),
            (
                "--admin",
                "9464",
                "--admin is \"9464\", which is no address to listen on",
            ),
            ("--grace", "30", "--grace is \"30\", which is no duration"),
        ] {
            let said = read(&["--queue", "q", flag, value], &[]).unwrap_err();
            assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
        }
        let wrong = ["--admin", "x", "--timeout", "-1s"];
        let said = read(&wrong, &[("KUBEDAEMON_GRACE", "y")]).unwrap_err();
        assert_eq!(said.lines().count(), 4, "{said}");
        let said = read(
            &wrong,
            &[("KUBEDAEMON_GRACE", "y"), ("KUBEDAEMON_QUEUE", "orders")],
        )
        .unwrap_err();
        assert_eq!(said.lines().count(), 3, "{said}");
    }

    #[test]
    fn without_a_queue_it_must_be_said_that_it_only_reports() {
        assert!(
            !read(&["--queue", "q"], &[(REPORT_ONLY_ENV, "false")])
                .unwrap()
                .report_only
        );
        for config in [
            read(&["--report-only"], &[]),
            read(&[], &[(REPORT_ONLY_ENV, "true")]),
            read(
                &["--report-only"],
                &[(REPORT_ONLY_ENV, "false"), ("KUBEDAEMON_QUEUE", "")],
            ),
        ] {
            let config = config.unwrap();
            assert!(config.report_only && config.queue.is_empty(), "{config:?}");
        }
        for (args, environment, expected) in [
            (
                &["--report-only", "--queue", "orders"][..],
                &[][..],
                "--queue is \"orders\", which is of no use to a sidecar that only reports: write either --queue or \
                 --report-only",
            ),
            (
                &[],
                &[(REPORT_ONLY_ENV, "true"), ("KUBEDAEMON_QUEUE", "orders")],
                "KUBEDAEMON_QUEUE is \"orders\", which is of no use to a sidecar that only reports: write either \
                 KUBEDAEMON_QUEUE or KUBEDAEMON_REPORT_ONLY",
            ),
            (
                &["--queue", "orders"],
                &[(REPORT_ONLY_ENV, "1")],
                "KUBEDAEMON_REPORT_ONLY is \"1\", which is neither yes nor no: write true or false",
            ),
        ] {
            assert_eq!(read(args, environment).unwrap_err(), expected);
        }
    }

    #[test]
    fn permissions_are_checked_when_key_and_pod_are_given() {
        let key = token::Signer::generate().unwrap().public_key();
        let (name, namespace) = ((POD_NAME_ENV, "worker-1"), (POD_NAMESPACE_ENV, "shop"));
        let key = (DRAIN_KEY_ENV, key.as_str());
        let queue = &["--queue", "orders"];
        let config = read(queue, &[name, namespace, key]).unwrap();
        assert_eq!(config.remote.unwrap().pod, "shop/worker-1");
        assert_eq!(config.name, "kubedaemon sidecar shop/worker-1");
        let without_key = read(queue, &[name, namespace, (DRAIN_KEY_ENV, "")]).unwrap();
        assert_eq!(without_key.remote, None);
        assert_eq!(read(queue, &[]).unwrap().name, "kubedaemon sidecar orders");
        for (environment, expected) in [
            (
                &[key][..],
                "KUBEDAEMON_POD_NAME is missing: write the pod's name, and its namespace to \
                 KUBEDAEMON_POD_NAMESPACE, for KUBEDAEMON_DRAIN_KEY is given",
            ),
            (
                &[key, name],
                "KUBEDAEMON_POD_NAMESPACE is missing: write the pod's namespace, for its name is given",
            ),
            (
                &[namespace],
                "KUBEDAEMON_POD_NAME is missing: write the pod's name, for its namespace is given",
            ),
            (
                &[(DRAIN_KEY_ENV, "secret"), name, namespace],
                "KUBEDAEMON_DRAIN_KEY is \"secret\", which is no public key to check permissions with: write the 32 \
                 bytes of an Ed25519 key in base64url without padding",
            ),
        ] {
            assert_eq!(read(queue, environment).unwrap_err(), expected);
        }
    }

    #[test]
    fn prefetch_has_a_spare_only_with_concurrency() {
        for (concurrency, prefetch) in [("1", 1), ("2", 3), ("10", 19), ("64", 96), ("1000", 1032)] {
            assert_eq!(
                read(&["--queue", "q", "--concurrency", concurrency], &[])
                    .unwrap()
                    .prefetch(),
                prefetch
            );
        }
    }
}
