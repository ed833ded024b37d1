//! Flags and variables that belong to the process and not to the worker.

use super::{ADMIN_ENV, DEFAULT_ADMIN, GRACE_ENV, REPORT_ONLY_ENV, TARGET_ENV};
use crate::dispatch::Worker;
use crate::domain::lever::Remote;
use clap::ArgMatches;
use contract::pods::{DRAIN_KEY_ENV, POD_NAME_ENV, POD_NAMESPACE_ENV};
use contract::settings::{self, Problem};
use http::Uri;
use std::net::SocketAddr;
use std::time::Duration;

/// The flags that belong to the process and not to the worker.
pub(super) struct Process<'a> {
    pub(super) matches: &'a ArgMatches,
    pub(super) environment: &'a [(String, String)],
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Process<'_> {
    /// The name as the user wrote it, and the value.
    pub(super) fn given(&self, flag: &str, variable: &str) -> Option<(String, String)> {
        let from_flag = self.matches.try_get_one::<String>(flag).ok().flatten();
        from_flag
            .map(|value| (format!("--{flag}"), value.clone()))
            .or_else(|| {
                cli::variable(self.environment, variable).map(|value| (variable.to_owned(), value.to_owned()))
            })
    }

    /// Messages come from a queue, or are not wanted; which of the two must be said, and no more than that.
    pub(super) fn check_intake(&mut self) {
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
    pub(super) fn pod(&mut self) -> Option<String> {
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
    pub(super) fn remote(&mut self, pod: Option<&str>) -> Option<Remote> {
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

    pub(super) fn target(&mut self) -> Option<(Worker, Option<Uri>)> {
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

    pub(super) fn admin(&mut self) -> Option<SocketAddr> {
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

    pub(super) fn grace(&mut self) -> Option<Duration> {
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
    let port = authority.port_u16().unwrap_or(80);
    // Nobody can be reached there.
    if port == 0 || host.is_empty() {
        return None;
    }
    let worker = Worker { host, port };
    let path = uri
        .path_and_query()
        .filter(|path| path.as_str() != "/")
        .map(|path| Uri::from(path.clone()));
    Some((worker, path))
}
