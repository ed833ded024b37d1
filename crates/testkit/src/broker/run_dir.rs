//! The directory of one broker: its configuration, data and logs, and the environment that leads there.

use super::ports::Ports;
use super::tls::Certificates;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

/// File with the environment of the node, one `NAME=value` a line: enough for `rabbitmqctl` from any process.
const ENVIRONMENT: &str = "environment";

/// The node's log file below the run directory.
pub(super) const LOG: &str = "rabbit.log";

/// What the node and its shell scripts print before the log is open.
pub(super) const CONSOLE_LOG: &str = "console.log";

/// The certificate authority's certificate below the run directory.
pub(super) const CA: &str = "ca.pem";

/// Where a node listens, and the user that it lets in.
pub(super) struct Listeners<'a> {
    pub(super) ports: &'a Ports,
    /// Besides loopback; all addresses when it is `0.0.0.0`.
    pub(super) also_on: Option<Ipv4Addr>,
    pub(super) user: &'a str,
    pub(super) password: &'a str,
}

/// A list of environment variables.
pub(super) type Environment = Vec<(String, String)>;

/// Everything that a node and its tools are told. Nothing is inherited: settings of a broker that belongs to the
/// machine (`/etc/rabbitmq`, `RABBITMQ_…`) must not reach ours.
///
/// Names: <https://www.rabbitmq.com/docs/3.13/configure#supported-environment-variables>.
pub(super) fn environment(dir: &Path, ports: &Ports, node: &str) -> Environment {
    let at = |name: &str| dir.join(name).display().to_string();
    let loopback = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}";
    let values = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("LC_ALL", "C.UTF-8".to_owned()),
        // The Erlang cookie is made in the home directory.
        ("HOME", dir.display().to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_EPMD_PORT", ports.epmd.to_string()),
        // The supervisor starts the only port mapper.
        ("ERL_FLAGS", "-start_epmd false".to_owned()),
        ("RABBITMQ_NODENAME", node.to_owned()),
        ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
        ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
        ("RABBITMQ_CONFIG_FILES", at("conf.d")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config")),
        ("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", at("generated")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", at("data")),
        ("RABBITMQ_LOG_BASE", dir.display().to_string()),
        ("RABBITMQ_PID_FILE", at("node.pid")),
        ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            format!("-noinput +S 2:2 +sbwt none {loopback}"),
        ),
        ("RABBITMQ_CTL_ERL_ARGS", loopback.to_owned()),
        // Any free port: the default range of ten would run out with many tools at once.
        ("RABBITMQ_CTL_DIST_PORT_MIN", "0".to_owned()),
        ("RABBITMQ_CTL_DIST_PORT_MAX", "0".to_owned()),
    ];
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Writes everything that a node reads at its start. `extra` is appended to `rabbitmq.conf`.
pub(super) fn write(
    dir: &Path,
    listeners: &Listeners<'_>,
    certificates: &Certificates,
    environment: &Environment,
    extra: &str,
) -> io::Result<()> {
    fs::write(dir.join(CA), &certificates.ca)?;
    fs::write(dir.join("server.pem"), &certificates.server)?;
    fs::write(dir.join("server-key.pem"), &certificates.server_key)?;
    fs::write(dir.join("enabled_plugins"), "[].\n")?;
    fs::write(dir.join("rabbitmq-env.conf"), "")?;
    fs::write(dir.join("rabbitmq.conf"), configuration(dir, listeners, extra))?;
    let lines: Vec<String> = environment
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    fs::write(dir.join(ENVIRONMENT), lines.concat())
}

/// Reads the environment that [`write`] left in `dir`.
pub(super) fn read_environment(dir: &Path) -> io::Result<Environment> {
    let text = fs::read_to_string(dir.join(ENVIRONMENT))?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// The node's `rabbitmq.conf`.
///
/// The limits keep a node small (about 150 MB) without ever blocking a test's publishers.
fn configuration(dir: &Path, listeners: &Listeners<'_>, extra: &str) -> String {
    let Ports { amqp, amqps, .. } = listeners.ports;
    let (user, password) = (listeners.user, listeners.password);
    let plain = match listeners.also_on {
        // It includes loopback.
        Some(all) if all.is_unspecified() => format!("listeners.tcp.1 = {all}:{amqp}"),
        Some(ip) if ip != Ipv4Addr::LOCALHOST => {
            format!("listeners.tcp.1 = 127.0.0.1:{amqp}\nlisteners.tcp.2 = {ip}:{amqp}")
        }
        _ => format!("listeners.tcp.1 = 127.0.0.1:{amqp}"),
    };
    let dir = dir.display();
    format!(
        "{plain}\n\
         default_user = {user}\n\
         default_pass = {password}\n\
         listeners.ssl.1 = 127.0.0.1:{amqps}\n\
         ssl_options.cacertfile = {dir}/{CA}\n\
         ssl_options.certfile = {dir}/server.pem\n\
         ssl_options.keyfile = {dir}/server-key.pem\n\
         ssl_options.verify = verify_none\n\
         ssl_options.fail_if_no_peer_cert = false\n\
         vm_memory_high_watermark.absolute = 2GB\n\
         disk_free_limit.absolute = 50MB\n\
         raft.wal_max_size_bytes = 67108864\n\
         log.dir = {dir}\n\
         log.file = {LOG}\n\
         log.console = false\n\
         {extra}\n"
    )
}
