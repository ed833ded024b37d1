//! What can be set: two of the contract's settings, and what only the process has.

use clap::{Arg, ArgMatches, Command};
use contract::broker::BrokerUrl;
use contract::quantity::parse_duration;
use contract::settings::{BROKER, Problem, Problems, VHOST};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

const POD_NAME: &str = contract::pods::POD_NAME_ENV;
const POD_IP: &str = "KUBEDAEMON_POD_IP";
const NAMESPACE: &str = "KUBEDAEMON_NAMESPACE";

/// Everything that an activator on a cluster needs to run, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where calls by name are taken. Ports to stand in on are opened on the same address.
    pub listen: SocketAddr,
    /// The admin port; `None` for none.
    pub admin: Option<SocketAddr>,
    /// The broker of targets whose annotations name none.
    pub broker: BrokerUrl,
    /// The same as it was written, for reading it together with annotations.
    pub(crate) broker_as_written: String,
    pub(crate) vhost: Option<String>,
    /// The only namespace whose workloads are targets; `None` for all.
    pub watch_namespace: Option<String>,
    /// Who this replica is; `None` without takeover.
    pub identity: Option<Identity>,
    /// The ports to stand in on.
    pub takeover_ports: RangeInclusive<u16>,
    /// How long a call waits for its worker.
    pub wake_timeout: Duration,
    /// How long calls are still taken after SIGTERM.
    pub drain_delay: Duration,
}

/// Which of the activator's replicas this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name of its pod.
    pub pod: String,
    /// The pod's address, at which other pods reach it.
    pub ip: IpAddr,
    /// The pod's namespace.
    pub namespace: String,
    /// What owns the slices of all replicas; `None` when each is its Service's.
    pub slice_owner: Option<SliceOwner>,
}

/// A role of the activator's. When it is removed with the rest of an installation, nobody is left who could withdraw
/// slices, and Kubernetes removes those that it owns
/// (<https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceOwner {
    /// A `ClusterRole` of this name.
    ClusterRole(String),
    /// A Role of this name in the only namespace that is watched.
    Role {
        /// That namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Config {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let broker = match cli::read_settings(matches, environment) {
            Ok(settings) => Some(settings.broker),
            Err(wrong) => {
                problems.extend(wrong.0);
                None
            }
        };
        let mut reader = Reader {
            matches,
            problems: &mut problems,
        };
        let listen = reader.address("listen", "an address and a port such as 0.0.0.0:8080");
        let admin = match text(matches, "admin") {
            "off" => None,
            _ => reader.address("admin", "an address and a port such as 0.0.0.0:9464, or off"),
        };
        let (wake_timeout, drain_delay) = (reader.duration("wake-timeout"), reader.duration("drain-delay"));
        let takeover_ports = reader.ports("takeover-ports");
        let identity = match text(matches, "takeover") {
            "off" => None,
            _ => reader.identity(environment),
        };
        match (broker, listen, takeover_ports) {
            (Some(broker), Some(listen), Some(takeover_ports)) if problems.is_empty() => Ok(Self {
                listen,
                admin,
                broker,
                broker_as_written: written(matches, environment, &BROKER)
                    .or_else(|| BROKER.default.map(str::to_owned))
                    .unwrap_or_default(),
                vhost: written(matches, environment, &VHOST),
                watch_namespace: matches.get_one::<String>("watch-namespace").cloned(),
                identity,
                takeover_ports,
                wake_timeout,
                drain_delay,
            }),
            _ => Err(Problems(problems)),
        }
    }
}

fn written(
    matches: &ArgMatches,
    environment: &[(String, String)],
    setting: &contract::settings::Setting,
) -> Option<String> {
    let flag = matches.get_one::<String>(setting.name).map(String::as_str);
    flag.or_else(|| cli::variable(environment, &setting.env()))
        .map(str::to_owned)
}

fn text<'a>(matches: &'a ArgMatches, flag: &str) -> &'a str {
    matches
        .get_one::<String>(flag)
        .map(String::as_str)
        .unwrap_or_default()
}

struct Reader<'a> {
    matches: &'a ArgMatches,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn wrong(&mut self, flag: &str, why: &str, accepted: &str) {
        let value = text(self.matches, flag);
        self.problems
            .push(Problem::wrong(format!("--{flag}"), value, why, accepted));
    }

    fn address(&mut self, flag: &str, accepted: &str) -> Option<SocketAddr> {
        let address = text(self.matches, flag).parse().ok();
        if address.is_none() {
            self.wrong(flag, "is no address to listen on", accepted);
        }
        address
    }

    fn duration(&mut self, flag: &str) -> Duration {
        parse_duration(text(self.matches, flag)).unwrap_or_else(|_| {
            self.wrong(flag, "is no duration", "a duration such as 5s or 500ms");
            Duration::ZERO
        })
    }

    fn ports(&mut self, flag: &str) -> Option<RangeInclusive<u16>> {
        let range = text(self.matches, flag)
            .split_once('-')
            .and_then(|(first, last)| Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?)))
            .filter(|(first, last)| *first > 0 && first <= last);
        if range.is_none() {
            self.wrong(
                flag,
                "is no range of ports",
                "the first and the last port, such as 20000-29999",
            );
        }
        range.map(|(first, last)| first..=last)
    }

    fn identity(&mut self, environment: &[(String, String)]) -> Option<Identity> {
        let mut get = |name: &str, field: &str| {
            let value = cli::variable(environment, name);
            if value.is_none() {
                let accepted = format!("{field} by the downward API, or --takeover off");
                self.problems.push(Problem::missing(name, &accepted));
            }
            value
        };
        let pod = get(POD_NAME, "metadata.name");
        let ip = get(POD_IP, "status.podIP");
        let namespace = match self.matches.get_one::<String>("namespace") {
            Some(namespace) => Some(namespace.as_str()),
            None => get(NAMESPACE, "metadata.namespace"),
        };
        let (pod, ip, namespace) = (pod?, ip?, namespace?);
        let Ok(address) = ip.parse() else {
            self.problems.push(Problem::wrong(
                POD_IP,
                ip,
                "is no IP address",
                "status.podIP by the downward API",
            ));
            return None;
        };
        Some(Identity {
            pod: pod.to_owned(),
            ip: address,
            namespace: namespace.to_owned(),
            slice_owner: self.slice_owner(),
        })
    }

    fn slice_owner(&self) -> Option<SliceOwner> {
        let name = self.matches.get_one::<String>("slice-owner")?.clone();
        let watched = self.matches.get_one::<String>("watch-namespace");
        Some(match watched {
            Some(namespace) => SliceOwner::Role {
                namespace: namespace.clone(),
                name,
            },
            None => SliceOwner::ClusterRole(name),
        })
    }
}

const AFTER_HELP: &str = "\
Runs in a pod with a service account, or where KUBECONFIG points to a cluster. With --takeover on, the variables
KUBEDAEMON_POD_NAME, KUBEDAEMON_POD_IP and KUBEDAEMON_NAMESPACE say which replica this is.

Exit status: 0 after a drain in which everything ended by itself, 1 when calls were cut off, 2 when it cannot start.

Examples:
  activator --admin 0.0.0.0:9464
  activator --takeover off --watch-namespace shop";

/// The command line.
pub fn command() -> Command {
    let own = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("activator")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Takes calls for workers at zero on a Kubernetes cluster, wakes them, forwards")
        .after_help(AFTER_HELP)
        .args(cli::setting_args([&BROKER, &VHOST]))
        .arg(
            own(
                "listen",
                "ADDRESS",
                "Where calls are taken for targets that their host or path names",
            )
            .default_value("0.0.0.0:8080"),
        )
        .arg(
            own(
                "admin",
                "ADDRESS",
                "Where probes, metrics and /calls are served: an address, or off",
            )
            .default_value("127.0.0.1:9464"),
        )
        .arg(own(
            "namespace",
            "NAMESPACE",
            "The activator's own namespace; else KUBEDAEMON_NAMESPACE says it",
        ))
        .arg(own(
            "watch-namespace",
            "NAMESPACE",
            "Only workloads of this namespace are targets; else those of all",
        ))
        .arg(
            own(
                "takeover",
                "WHETHER",
                "Whether the activator stands in for Services of targets that have no ready pod",
            )
            .value_parser(["on", "off"])
            .default_value("on"),
        )
        .arg(
            own(
                "takeover-ports",
                "PORTS",
                "The ports on which it does so, one for each port of each such Service",
            )
            .default_value("20000-29999"),
        )
        .arg(own(
            "slice-owner",
            "ROLE",
            "The ClusterRole, with --watch-namespace the Role in it, with which the activator's EndpointSlices are to go; \
             else they go with their Services",
        ))
        .arg(own("wake-timeout", "DURATION", "How long a call waits for its worker").default_value("60s"))
        .arg(
            own(
                "drain-delay",
                "DURATION",
                "How long calls are still taken after SIGTERM, when /readyz already says no",
            )
            .default_value("5s"),
        )
        .args(cli::log_args())
}

#[cfg(test)]
mod tests;
