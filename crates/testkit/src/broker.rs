//! A real RabbitMQ node of our own.
//!
//! Debian's server is run directly, not through the wrapper and the service that belong to the machine's own
//! broker: own node name, ports, port mapper, configuration, data and cookie, all in one temporary directory. A
//! supervising shell holds a pipe to the test process and removes everything when the process ends, also by SIGKILL.

mod ports;
mod release;
mod run_dir;
mod supervisor;
mod tls;

use crate::Amqp;
use crate::wait::until;
use lapin::{Connection, ConnectionProperties};
use ports::Ports;
pub use release::{RELEASE, Release};
use run_dir::Environment;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use supervisor::Supervisor;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

/// Environment variable with the address of a broker that tests are to use instead of starting one.
pub const SHARED_URL: &str = "KUBEDAEMON_TEST_AMQP";

/// Environment variable with the run directory of that broker, when `with-broker` started it.
pub const SHARED_DIR: &str = "KUBEDAEMON_TEST_BROKER_DIR";

/// A node is ready within four seconds on an idle machine; a build beside it makes that several times as long.
const START_PATIENCE: Duration = Duration::from_mins(2);

/// The broker that all tests of this process share; it is started at the first call.
///
/// Set `KUBEDAEMON_TEST_AMQP=amqp://…` to use a broker that is there already; `with-broker` does so for a whole
/// `cargo test` run. Set `KUBEDAEMON_TEST_RABBITMQ` to have every broker that is started of another [`Release`]. Use queue names from [`unique`](crate::unique), and [`Broker::start`] for what would disturb
/// other tests.
pub async fn broker() -> &'static Broker {
    static SHARED: OnceCell<Broker> = OnceCell::const_new();
    SHARED.get_or_init(shared).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests are told of a broker"
)]
async fn shared() -> Broker {
    let Ok(url) = std::env::var(SHARED_URL) else {
        let mut broker = Broker::start().await;
        broker.shared = true;
        return broker;
    };
    let dir = std::env::var_os(SHARED_DIR).map(PathBuf::from);
    let environment = dir.as_deref().map(run_dir::read_environment).transpose();
    let environment = environment
        .expect("the broker of KUBEDAEMON_TEST_BROKER_DIR runs")
        .unwrap_or_default();
    let url_tls = dir
        .as_deref()
        .map(|dir| std::fs::read_to_string(dir.join(URL_TLS)).unwrap_or_default());
    Broker {
        url,
        url_tls,
        also_on: None,
        dir,
        environment,
        running: None,
        shared: true,
    }
}

/// File below the run directory with the `amqps://` address.
const URL_TLS: &str = "url-tls";

/// A RabbitMQ node, or the address of one.
#[derive(Debug)]
pub struct Broker {
    url: String,
    url_tls: Option<String>,
    /// Where else than on loopback it listens.
    also_on: Option<Ipv4Addr>,
    dir: Option<PathBuf>,
    environment: Environment,
    /// The node when it is ours; dropping it ends the node.
    running: Option<(Supervisor, Ports)>,
    shared: bool,
}

impl Broker {
    /// Starts a node for this test alone, ready to be used. It ends with the value. Its release is the one that
    /// [`RELEASE`] names, if any.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// As [`start`](Self::start), with more lines for `rabbitmq.conf`, such as `consumer_timeout = 5000`.
    pub async fn start_with(configuration: &str) -> Self {
        Self::try_start(configuration)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`start`](Self::start), and reachable from elsewhere: it listens on `ip`, an address of this machine, as
    /// well as on loopback, and on all of them for `0.0.0.0`. See [`url_on`](Self::url_on).
    ///
    /// Its only user has a random password, because anybody who reaches the address may try one.
    pub async fn start_on(ip: Ipv4Addr) -> Self {
        Self::try_start_at("", Some(ip))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`start`](Self::start), of this release, whatever [`RELEASE`] says.
    ///
    /// # Errors
    ///
    /// A sentence that says why there is no node: `tools/rabbitmq` did not fetch the release, which takes root to run.
    pub async fn start_release(release: Release) -> Result<Self, StartError> {
        Self::try_start_of(release, "", None).await
    }

    /// As [`start_with`](Self::start_with).
    ///
    /// # Errors
    ///
    /// A sentence that says why there is no node: RabbitMQ is not installed, or it did not start, or [`RELEASE`] names
    /// one that is not there.
    pub async fn try_start(configuration: &str) -> Result<Self, StartError> {
        Self::try_start_at(configuration, None).await
    }

    async fn try_start_at(configuration: &str, also_on: Option<Ipv4Addr>) -> Result<Self, StartError> {
        Self::try_start_of(Release::of_environment()?, configuration, also_on).await
    }

    async fn try_start_of(
        release: Release,
        configuration: &str,
        also_on: Option<Ipv4Addr>,
    ) -> Result<Self, StartError> {
        let root = release.root()?;
        // A foreign process may take one of the ports between our look and the node's: then others are tried.
        let mut tries = 0;
        loop {
            tries += 1;
            let broker = Self::prepare(root.as_deref(), configuration, also_on)
                .map_err(|error| StartError::Io(error.to_string()))?;
            match broker.boot().await {
                Ok(()) => return Ok(broker),
                Err(StartError::Ended(log)) if log.contains("eaddrinuse") && tries < 3 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(root: Option<&Path>, configuration: &str, also_on: Option<Ipv4Addr>) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = crate::unique(&format!("kubedaemon-broker-{process}-{number}"));
        let dir = std::env::temp_dir().join(name);
        let ports = Ports::claim()?;
        let node = format!("kd{process}-{number}@localhost");
        let mut environment = run_dir::environment(&dir, &ports, &node);
        environment.extend(root.map(|root| (release::ROOT.to_owned(), root.display().to_string())));
        let certificates = tls::make().map_err(io::Error::other)?;
        // RabbitMQ lets the user "guest" in over loopback only.
        let (user, password) = match also_on {
            None => ("guest".to_owned(), "guest".to_owned()),
            Some(_) => ("kubedaemon".to_owned(), crate::unique("password")),
        };
        let listeners = run_dir::Listeners {
            ports: &ports,
            also_on,
            user: &user,
            password: &password,
        };

        let supervisor = Supervisor::start(&dir, &environment)?;
        release::write(&dir)?;
        run_dir::write(&dir, &listeners, &certificates, &environment, configuration)?;
        let url_tls = format!("amqps://{user}:{password}@127.0.0.1:{}/%2f", ports.amqps);
        std::fs::write(dir.join(URL_TLS), &url_tls)?;
        Ok(Self {
            url: format!("amqp://{user}:{password}@127.0.0.1:{}/%2f", ports.amqp),
            url_tls: Some(url_tls),
            also_on,
            dir: Some(dir),
            environment,
            running: Some((supervisor, ports)),
            shared: false,
        })
    }

    /// Starts the node's process and waits until it takes AMQP connections.
    async fn boot(&self) -> Result<(), StartError> {
        let supervisor = self.supervisor();
        supervisor
            .start_server()
            .map_err(|error| StartError::Io(error.to_string()))?;
        let deadline = Instant::now() + START_PATIENCE;
        while !self.takes_connections().await {
            if !supervisor.server_runs() {
                return Err(StartError::Ended(self.console()));
            }
            if Instant::now() > deadline {
                return Err(StartError::Slow(self.console()));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Whether connections and channels can be had now.
    async fn takes_connections(&self) -> bool {
        let connect = async {
            let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            // It is ready whether or not it takes leave properly.
            let _closed = connection.close(200, "ready".into()).await;
            drop(channel);
            Ok::<(), lapin::Error>(())
        };
        matches!(timeout(Duration::from_secs(10), connect).await, Ok(Ok(()))) && self.listens_for_tls().await
    }

    /// Whether the port with TLS is open too, which is the later one by some 100 ms.
    async fn listens_for_tls(&self) -> bool {
        match &self.running {
            Some((_, ports)) => TcpStream::connect((Ipv4Addr::LOCALHOST, ports.amqps))
                .await
                .is_ok(),
            None => true,
        }
    }

    /// The address, `amqp://guest:guest@127.0.0.1:<port>/%2f` for a node of ours.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address as seen from elsewhere, `amqp://kubedaemon:<password>@<ip>:<port>/%2f`: for pods, which reach this
    /// machine and not its loopback. Only of a broker from [`start_on`](Self::start_on) that listens there.
    pub fn url_on(&self, ip: Ipv4Addr) -> String {
        let listens = self.also_on.is_some_and(|on| on == ip || on.is_unspecified());
        assert!(
            listens,
            "the broker does not listen on {ip}: start it by Broker::start_on({ip})"
        );
        let loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port());
        self.url.replace(
            &format!("@{loopback}/"),
            &format!("@{}/", SocketAddrV4::new(ip, self.port())),
        )
    }

    /// The address with TLS, `amqps://guest:guest@127.0.0.1:<port>/%2f`. Its certificate is of [`ca_path`](Self::ca_path).
    pub fn url_tls(&self) -> &str {
        self.url_tls.as_deref().unwrap_or_else(|| panic!("{NOT_OURS}"))
    }

    /// The certificate authority of [`url_tls`](Self::url_tls), as a PEM file. A program under test trusts it with
    /// `SSL_CERT_FILE` set to this path.
    pub fn ca_path(&self) -> PathBuf {
        self.dir().join(run_dir::CA)
    }

    /// The port without TLS, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        let port = self
            .url
            .rsplit_once('@')
            .and_then(|(_, rest)| rest.split('/').next()?.rsplit(':').next()?.parse().ok());
        port.unwrap_or(5672)
    }

    /// The node's log file.
    pub fn log_path(&self) -> PathBuf {
        self.dir().join(run_dir::LOG)
    }

    /// The run directory. Gone as soon as the broker is.
    pub fn dir(&self) -> &Path {
        self.dir.as_deref().unwrap_or_else(|| panic!("{NOT_OURS}"))
    }

    /// The process id of the node while it runs; `None` when it is stopped or runs elsewhere.
    pub fn pid(&self) -> Option<u32> {
        self.running
            .as_ref()
            .and_then(|(supervisor, _)| supervisor.server_pid())
    }

    /// The version that runs, such as `(4, 3, 6)`.
    pub fn version(&self) -> (u32, u32, u32) {
        release::version(self.port())
            .unwrap_or_else(|error| panic!("{} does not say its version: {error}", self.url))
    }

    /// A test client, connected to this broker.
    pub async fn amqp(&self) -> Amqp {
        Amqp::connect(&self.url).await
    }

    /// Stops the node as an administrator would; connections are closed with a reason. Durable data is kept.
    pub async fn stop(&self) {
        self.own().stop_server().expect("the supervisor answers");
        self.ended().await;
    }

    /// Ends the node by SIGKILL, as a crash does. What was confirmed is kept.
    pub async fn kill(&self) {
        self.own().kill_server().expect("the supervisor answers");
        self.ended().await;
    }

    /// Starts the node again after [`stop`](Self::stop) or [`kill`](Self::kill): same port, same data.
    pub async fn start_again(&self) {
        assert!(!self.own().server_runs(), "the broker runs already");
        self.boot().await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn ended(&self) {
        let supervisor = self.supervisor();
        until("the broker has ended", START_PATIENCE, || async {
            !supervisor.server_runs()
        })
        .await;
        supervisor.reap_server().expect("the supervisor answers");
    }

    /// Runs `rabbitmqctl` with `args` on this node and returns what it printed. Takes about a second.
    ///
    /// # Errors
    ///
    /// What it printed, when it failed.
    pub async fn ctl(&self, args: &[&str]) -> Result<String, String> {
        assert!(!self.environment.is_empty(), "{NOT_OURS}");
        let mut command = release::ctl(self.dir(), &self.environment);
        command.arg("--quiet").args(args);
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = command
            .output()
            .await
            .map_err(|error| format!("rabbitmqctl cannot be run: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() {
            Ok(stdout)
        } else {
            Err(format!("rabbitmqctl {args:?}: {stdout}{stderr}"))
        }
    }

    /// Closes every connection from the broker's side, as an administrator can; their clients see
    /// `CONNECTION_FORCED`. Returns when the broker was told, about a second later; some may close after that.
    pub async fn close_all_connections(&self) {
        self.own();
        let closed = self
            .ctl(&["close_all_connections", "--global", "closed by a test"])
            .await;
        closed.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Adds a user with all permissions on a vhost of its own, and returns the address with both percent-encoded.
    ///
    /// Use names from [`unique`](crate::unique); any characters are fine in all three.
    pub async fn add_user(&self, user: &str, password: &str, vhost: &str) -> String {
        let commands: [&[&str]; 3] = [
            &["add_vhost", vhost],
            &["add_user", "--", user, password],
            &["set_permissions", "-p", vhost, user, ".*", ".*", ".*"],
        ];
        for command in commands {
            self.ctl(command).await.unwrap_or_else(|error| panic!("{error}"));
        }
        let (user, password, vhost) = (encode(user), encode(password), encode(vhost));
        format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", self.port())
    }

    fn supervisor(&self) -> &Supervisor {
        let (supervisor, _) = self.running.as_ref().unwrap_or_else(|| panic!("{NOT_OURS}"));
        supervisor
    }

    /// The supervisor of a node that no other test uses.
    fn own(&self) -> &Supervisor {
        assert!(
            !self.shared,
            "the shared broker serves other tests too: take one of your own by Broker::start()"
        );
        self.supervisor()
    }

    /// The end of what the node printed and logged.
    fn console(&self) -> String {
        let tail = |name| {
            let text = std::fs::read_to_string(self.dir().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(15)..].join("\n")
        };
        format!("{}\n{}", tail(run_dir::CONSOLE_LOG), tail(run_dir::LOG))
    }
}

const NOT_OURS: &str = "this needs a broker that the tests started: unset KUBEDAEMON_TEST_AMQP";

/// Percent-encodes everything but letters, digits and `-._~` (RFC 3986, section 2.3).
fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

/// Why no broker could be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// Debian's server is not on this machine.
    NotInstalled,
    /// [`RELEASE`] says this, which is none.
    UnknownRelease(String),
    /// The release is not in the cache.
    NotBuilt(Release),
    /// The release takes root, to enter its root directory.
    NotRoot(Release),
    /// The node ended before it was ready; with the end of its log.
    Ended(String),
    /// The node runs but takes no connections; with the end of its log.
    Slow(String),
    /// A file, a port or the supervising shell.
    Io(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => write!(
                f,
                "RabbitMQ is not installed (there is no /{}): run tools/setup, or give tests a broker by \
                 {SHARED_URL}=amqp://…",
                release::SERVER
            ),
            Self::UnknownRelease(word) => write!(
                f,
                "{RELEASE}={word:?} is no release: use trixie or sid, or leave it out for the one of this machine"
            ),
            Self::NotBuilt(release) => write!(
                f,
                "RabbitMQ of {release} is not in the cache: run tools/rabbitmq build {release}"
            ),
            Self::NotRoot(release) => write!(
                f,
                "RabbitMQ of {release} lives in a root directory of its own, and entering it takes root"
            ),
            Self::Ended(log) => write!(f, "the broker ended before it was ready:\n{log}"),
            Self::Slow(log) => write!(
                f,
                "the broker took no connection within {START_PATIENCE:?}:\n{log}"
            ),
            Self::Io(cause) => write!(f, "the broker could not be started: {cause}"),
        }
    }
}

impl std::error::Error for StartError {}
