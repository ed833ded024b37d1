//! What `autoscaler` can be told.

use clap::{Arg, ArgMatches, Command};
use contract::broker::BrokerUrl;
use contract::settings::{self, Problem, Problems};
use std::net::SocketAddr;

/// Its own namespace, when no flag names one.
pub const NAMESPACE_ENV: &str = "KUBEDAEMON_NAMESPACE";

/// Environment variables of its own, beside those of the settings.
pub const VARIABLES: [&str; 2] = [NAMESPACE_ENV, contract::pods::POD_NAME_ENV];

/// Everything that the autoscaler needs to run, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The broker of workloads that name none.
    pub broker: BrokerUrl,
    /// Where its Lease, the key for draining and the activator's Service are; `None`: where its service account is.
    pub namespace: Option<String>,
    /// The only namespace whose workloads are scaled; `None` for all.
    pub watch_namespace: Option<String>,
    /// The activator's Service; `None` when nobody tells of calls.
    pub activator_service: Option<String>,
    /// The admin port; `None` for none.
    pub admin: Option<SocketAddr>,
    /// What the identity in the Lease begins with.
    pub name: String,
}

impl Config {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Self, Problems> {
        let given = |flag: &str| {
            matches
                .get_one::<String>(flag)
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let mut problems = Vec::new();
        let settings = cli::read_settings(matches, environment).map_err(|found| problems.extend(found.0));
        let admin = given("admin").unwrap_or_default();
        let admin = match admin.as_str() {
            "off" => None,
            address => address.parse().map_or_else(
                |_| {
                    problems.push(Problem::wrong(
                        "--admin",
                        address,
                        "is no address to listen on",
                        "an address and a port such as 0.0.0.0:9464, or off",
                    ));
                    None
                },
                Some,
            ),
        };
        let variable = |name| cli::variable(environment, name).map(str::to_owned);
        match settings {
            Ok(settings) if problems.is_empty() => Ok(Self {
                broker: settings.broker,
                namespace: given("namespace").or_else(|| variable(NAMESPACE_ENV)),
                watch_namespace: given("watch-namespace"),
                activator_service: given("activator-service"),
                admin,
                name: variable(contract::pods::POD_NAME_ENV).unwrap_or_else(host_name),
            }),
            _ => Err(Problems(problems)),
        }
    }
}

/// What the kernel calls this machine; in a pod its name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "autoscaler".to_owned(),
        name => name.to_owned(),
    }
}

const AFTER_HELP: &str = "\
The Kubernetes API server is found as kubectl finds it: KUBECONFIG, ~/.kube/config, or the pod's service account. Any
number of autoscalers may run; the one that holds the Lease kubedaemon-autoscaler acts, and another takes over within
5 s.

Environment variables: KUBEDAEMON_BROKER, KUBEDAEMON_VHOST, KUBEDAEMON_NAMESPACE and KUBEDAEMON_POD_NAME, which the
identity in the Lease begins with.

Exit status: 0 after SIGTERM, 1 when a second one forced it, 2 when it cannot start.

Example:
  autoscaler --broker amqp://user@rabbitmq.example.org --namespace kubedaemon --activator-service kubedaemon-activator";

/// The command line.
pub fn command() -> Command {
    let own = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("autoscaler")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Scales annotated Deployments and StatefulSets by their queues and calls, to zero and back")
        .after_help(AFTER_HELP)
        .args(cli::setting_args([&settings::BROKER, &settings::VHOST]))
        .arg(own("namespace", "NAME", "The namespace of its Lease, of the key for draining and of the activator's Service [default: that of its service account] [env: KUBEDAEMON_NAMESPACE]"))
        .arg(own("watch-namespace", "NAME", "Scale the workloads of this namespace alone [default: of all]"))
        .arg(own("activator-service", "NAME", "The activator's Service, whose port \"admin\" tells of calls [default: none]"))
        .arg(own("admin", "ADDRESS", "Where probes, status and metrics are served: an address, or off").default_value("127.0.0.1:9464"))
        .args(cli::log_args())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let matches = command()
            .try_get_matches_from([&["autoscaler"], args].concat())
            .map_err(|error| error.to_string())?;
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::read(&matches, &environment).map_err(|problems| problems.to_string())
    }

    #[test]
    fn flags_win_over_variables() {
        let environment = [
            ("KUBEDAEMON_NAMESPACE", "from-env"),
            ("KUBEDAEMON_POD_NAME", "autoscaler-1"),
            ("KUBEDAEMON_BROKER", "amqp://rabbit"),
        ];
        let config = read(&["--admin", "off"], &environment).unwrap();
        assert_eq!(config.namespace.as_deref(), Some("from-env"));
        assert_eq!((config.name.as_str(), config.admin), ("autoscaler-1", None));
        assert_eq!(config.broker.host, "rabbit");
        let config = read(&["--namespace", "flag", "--vhost", "team"], &environment).unwrap();
        assert_eq!(config.namespace.as_deref(), Some("flag"));
        assert_eq!(config.broker.vhost, "team");
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let said = read(&["--admin", "nowhere", "--broker", "http://x"], &[]).unwrap_err();
        assert!(
            said.contains("--admin is \"nowhere\"") && said.contains("--broker is"),
            "{said}"
        );
    }
}
