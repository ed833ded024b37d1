//! What `webhook-injector serve` can be told.

use super::files::Files;
use super::kubernetes::{ClusterCertificates, Times};
use super::self_signed::SelfSigned;
use crate::domain::pod::{Injection, SecretKey};
use clap::{Arg, ArgAction, ArgMatches, Command};
use contract::pods::DRAINED_PATH;
use contract::quantity::parse_duration;
use contract::settings::{Problem, Problems};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How often certificate files are read.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// The environment variable with the namespace that we run in.
const NAMESPACE_ENV: &str = "KUBEDAEMON_NAMESPACE";
/// The Secret of `--cluster-certificates` unless `--secret` names another one.
const SECRET: &str = "kubedaemon-injector-tls";
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
    /// The namespace that we run in; with one the key for drains is kept in it and goes into pods.
    pub namespace: Option<String>,
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
    /// From the cluster, where all replicas keep them together.
    Cluster(ClusterCertificates),
}

impl Config {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Self, Problems> {
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
        let drained_path = drained_path.filter(|path| path != "off");
        if let Some(path) = drained_path.as_deref().filter(|path| !path.starts_with('/')) {
            let why = "does not begin with /";
            let accepted = format!("a path such as {DRAINED_PATH}, or off");
            problems.push(Problem::wrong("--drained-path", path, why, &accepted));
        }
        let namespace = cli::variable(environment, NAMESPACE_ENV).map(str::to_owned);
        let tls = tls_source(matches);
        if let (TlsSource::Cluster(_), None) = (&tls, &namespace) {
            let accepted = "the namespace that the injector runs in";
            problems.push(Problem::missing(NAMESPACE_ENV, accepted));
        }
        let injection = Injection {
            image: text("image").to_owned(),
            broker_secret: read_secret(matches, &mut problems),
            drained_path,
            drain_key: None,
        };
        match (listen, problems.is_empty()) {
            (Some(listen), true) => Ok(Self {
                listen,
                admin,
                tls,
                namespace,
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

/// The command line gives one of the three; see [`command`].
fn tls_source(matches: &ArgMatches) -> TlsSource {
    let text = |flag| matches.get_one::<String>(flag).cloned().unwrap_or_default();
    let names = || {
        let names = matches.get_many::<String>("dns-name");
        names.into_iter().flatten().cloned().collect()
    };
    if matches.get_flag("self-signed") {
        return TlsSource::SelfSigned(SelfSigned {
            names: names(),
            lifetime: LIFETIME,
        });
    }
    if matches.get_flag("cluster-certificates") {
        return TlsSource::Cluster(ClusterCertificates {
            service: text("service"),
            webhook: text("webhook"),
            secret: text("secret"),
            names: names(),
            times: Times::default(),
        });
    }
    TlsSource::Files(Files {
        certificate: PathBuf::from(text("tls-cert")),
        key: PathBuf::from(text("tls-key")),
        every: FILES_EVERY,
    })
}

const AFTER_HELP: &str = "\
Certificates come from files, which are read again every 5 s, or are made by the server itself and renewed in time;
a change fails no review. With --cluster-certificates all replicas share those in a Secret, and keep the caBundle of
the MutatingWebhookConfiguration in place. Otherwise it has to be the authority of the files, or what --ca-out writes.

KUBEDAEMON_NAMESPACE is the namespace that the injector runs in. When it is set, the Secret kubedaemon-drain-key is
made there, and pods get the public key in it.

Exit status: 0 after a drain in which everything ended by itself, 1 when it was forced, 2 when it cannot start.

Examples:
  webhook-injector serve --image example.org/sidecar:1 --cluster-certificates --service injector --webhook kubedaemon
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
        .arg(own("drained-path", "PATH", "A path of the sidecar's admin port that answers GET once it has drained: workers get a preStop hook that waits for it; off for none").default_value(DRAINED_PATH))
        .arg(own("listen", "ADDRESS", "Where reviews are answered, at /mutate").default_value("0.0.0.0:8443"))
        .arg(own("admin", "ADDRESS", "Where probes and metrics are served: an address, or off").default_value("127.0.0.1:9464"))
        .arg(own("tls-cert", "FILE", "The certificate, with its chain, as PEM").requires("tls-key").required_unless_present_any(["self-signed", "cluster-certificates"]))
        .arg(own("tls-key", "FILE", "The private key, as PEM").requires("tls-cert"))
        .arg(Arg::new("self-signed").long("self-signed").action(ArgAction::SetTrue).help("Make certificates instead of reading them").conflicts_with_all(["tls-cert", "tls-key"]).requires("dns-name").requires("ca-out"))
        .arg(own("dns-name", "NAME", "With --self-signed or --cluster-certificates: a further name or address under which the server is called; may be repeated").action(ArgAction::Append).conflicts_with("tls-cert"))
        .arg(own("ca-out", "FILE", "With --self-signed: where the certificate is written that callers have to trust; - for standard output").requires("self-signed"))
        .arg(Arg::new("cluster-certificates").long("cluster-certificates").action(ArgAction::SetTrue).help("Keep certificates in a Secret that all replicas share, and the caBundle in place").conflicts_with_all(["tls-cert", "tls-key", "self-signed"]).requires("service").requires("webhook"))
        .arg(own("service", "NAME", "With --cluster-certificates: the Service under which the API server calls").requires("cluster-certificates"))
        .arg(own("webhook", "NAME", "With --cluster-certificates: the MutatingWebhookConfiguration whose caBundle is kept").requires("cluster-certificates"))
        .arg(own("secret", "NAME", "With --cluster-certificates: the Secret with the certificates").default_value(SECRET))
        .arg(own("deadline", "DURATION", "How long a review may take to arrive").default_value("2s"))
        .arg(own("drain-delay", "DURATION", "How long reviews are still answered after SIGTERM, when /readyz already says no").default_value("5s"))
        .args(cli::log_args())
}
