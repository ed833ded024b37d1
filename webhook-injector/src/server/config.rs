//! What `webhook-injector serve` can be told.

use super::files::Files;
use super::self_signed::SelfSigned;
use crate::domain::pod::{Injection, SecretKey};
use clap::{Arg, ArgAction, ArgMatches, Command};
use contract::quantity::parse_duration;
use contract::settings::{Problem, Problems};
use ops::telemetry::LogFormat;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How often certificate files are read.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// How long a certificate of our own lives.
const LIFETIME: Duration = Duration::from_hours(90 * 24);

/// Everything that a server needs to run, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where reviews are answered.
    pub listen: SocketAddr,
    /// The admin port; `None` for none.
    pub admin: Option<SocketAddr>,
    /// Where the certificate comes from.
    pub tls: TlsSource,
    /// What is added to pods.
    pub injection: Injection,
    /// How long a review may take, from its head to its answer.
    pub deadline: Duration,
    /// How long reviews are still answered after the server has said that it is no longer ready.
    pub drain_delay: Duration,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSource {
    /// From files, which may change.
    Files(Files),
    /// From ourselves.
    SelfSigned(SelfSigned),
}

impl Config {
    /// Reads the command line.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub fn read(matches: &ArgMatches) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let text = |flag: &str| {
            matches
                .get_one::<String>(flag)
                .map(String::as_str)
                .unwrap_or_default()
        };
        let mut parsed = |flag: &str, why: &str, accepted: &str| {
            let value = text(flag);
            let address = value.parse::<SocketAddr>().ok();
            if address.is_none() {
                problems.push(Problem::wrong(format!("--{flag}"), value, why, accepted));
            }
            address
        };
        let why = "is no address to listen on";
        let listen = parsed("listen", why, "an address and a port such as 0.0.0.0:8443");
        let admin = match text("admin") {
            "off" => None,
            _ => parsed("admin", why, "an address and a port such as 0.0.0.0:9464, or off"),
        };
        let mut duration = |flag: &str| {
            let value = text(flag);
            parse_duration(value).unwrap_or_else(|_| {
                let accepted = "a duration such as 5s or 500ms";
                problems.push(Problem::wrong(
                    format!("--{flag}"),
                    value,
                    "is no duration",
                    accepted,
                ));
                Duration::ZERO
            })
        };
        let (deadline, drain_delay) = (duration("deadline"), duration("drain-delay"));
        if text("image").trim().is_empty() {
            problems.push(Problem::missing("--image", "the image of the sidecar"));
        }
        let drained_path = matches.get_one::<String>("drained-path").cloned();
        if let Some(path) = drained_path.as_deref().filter(|path| !path.starts_with('/')) {
            let why = "does not begin with /";
            problems.push(Problem::wrong(
                "--drained-path",
                path,
                why,
                "a path such as /drained",
            ));
        }
        let injection = Injection {
            image: text("image").to_owned(),
            broker_secret: read_secret(matches, &mut problems),
            drained_path,
        };
        match (listen, problems.is_empty()) {
            (Some(listen), true) => Ok(Self {
                listen,
                admin,
                tls: tls_source(matches),
                injection,
                deadline,
                drain_delay,
            }),
            _ => Err(Problems(problems)),
        }
    }
}

fn read_secret(matches: &ArgMatches, problems: &mut Vec<Problem>) -> Option<SecretKey> {
    let value = matches.get_one::<String>("broker-secret")?;
    match value.split_once('/') {
        Some((name, key)) if !name.is_empty() && !key.is_empty() && !key.contains('/') => Some(SecretKey {
            name: name.to_owned(),
            key: key.to_owned(),
        }),
        _ => {
            let accepted = "the name of a Secret and a key in it, such as kubedaemon-broker/url";
            problems.push(Problem::wrong(
                "--broker-secret",
                value,
                "is not NAME/KEY",
                accepted,
            ));
            None
        }
    }
}

/// The command line gives one of the two; see [`command`].
fn tls_source(matches: &ArgMatches) -> TlsSource {
    let path = |flag| PathBuf::from(matches.get_one::<String>(flag).cloned().unwrap_or_default());
    if matches.get_flag("self-signed") {
        return TlsSource::SelfSigned(SelfSigned {
            names: matches
                .get_many::<String>("dns-name")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            lifetime: LIFETIME,
        });
    }
    TlsSource::Files(Files {
        certificate: path("tls-cert"),
        key: path("tls-key"),
        every: FILES_EVERY,
    })
}

/// How to log: the format and the filter.
pub fn logging(matches: &ArgMatches) -> (LogFormat, &str) {
    let text = |flag: &str| {
        matches
            .get_one::<String>(flag)
            .map(String::as_str)
            .unwrap_or_default()
    };
    let format = if text("log-format") == "json" {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    (format, text("log"))
}

const AFTER_HELP: &str = "\
Certificates come from files, which are read again every 5 s, or are made by the server itself and renewed in time;
a change fails no review. The caBundle of the MutatingWebhookConfiguration is the authority of the former, or what
--ca-out writes of the latter.

Exit status: 0 after a drain in which everything ended by itself, 1 when it was forced, 2 when it cannot start.

Examples:
  webhook-injector serve --image example.org/sidecar:1 --tls-cert /tls/tls.crt --tls-key /tls/tls.key
  webhook-injector serve --image example.org/sidecar:1 --self-signed --dns-name localhost --ca-out ca.pem";

/// The command line of `webhook-injector serve`.
pub fn command() -> Command {
    let own = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("serve")
        .about("Answers admission reviews of Kubernetes: annotations reach pod templates, annotated pods get the sidecar")
        .after_help(AFTER_HELP)
        .arg(own("image", "IMAGE", "The image of the sidecar").required(true))
        .arg(own("broker-secret", "NAME/KEY", "The Secret, in each pod's own namespace, and the key in it that has the broker's address, for pods whose annotations name none"))
        .arg(own("drained-path", "PATH", "A path of the sidecar's admin port that answers GET once it has drained: workers get a preStop hook that waits for it"))
        .arg(own("listen", "ADDRESS", "Where reviews are answered, at /mutate").default_value("0.0.0.0:8443"))
        .arg(own("admin", "ADDRESS", "Where probes and metrics are served: an address, or off").default_value("127.0.0.1:9464"))
        .arg(own("tls-cert", "FILE", "The certificate, with its chain, as PEM").requires("tls-key").required_unless_present("self-signed"))
        .arg(own("tls-key", "FILE", "The private key, as PEM").requires("tls-cert"))
        .arg(Arg::new("self-signed").long("self-signed").action(ArgAction::SetTrue).help("Make certificates instead of reading them").conflicts_with_all(["tls-cert", "tls-key"]).requires("dns-name").requires("ca-out"))
        .arg(own("dns-name", "NAME", "With --self-signed: a name under which the server is called; may be repeated").action(ArgAction::Append).requires("self-signed"))
        .arg(own("ca-out", "FILE", "With --self-signed: where the certificate is written that callers have to trust; - for standard output").requires("self-signed"))
        .arg(own("deadline", "DURATION", "How long a review may take to arrive").default_value("2s"))
        .arg(own("drain-delay", "DURATION", "How long reviews are still answered after SIGTERM, when /readyz already says no").default_value("5s"))
        .arg(own("log", "FILTER", "What is logged: error, warn, info, debug, or by module").default_value("info"))
        .arg(own("log-format", "FORMAT", "How it is logged").value_parser(["text", "json"]).default_value("text"))
}
