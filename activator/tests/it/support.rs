//! Targets that a test moves by hand, an activator over them, and raw connections.

use activator::{
    Activator, Config, Limits, Message, Outbox, OutboxError, Routing, TargetName, TargetState, Targets,
};
use futures_util::future::BoxFuture;
use ops::shutdown::Shutdown;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use testkit::logs::Logs;
pub(crate) use testkit::wait::PATIENCE;
use testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// `name` in the namespace `default`, or `namespace/name`.
pub(crate) fn target(name: &str) -> TargetName {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    TargetName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// Targets that do what the test says, and remember what the activator said.
#[derive(Default)]
pub(crate) struct FakeTargets(Mutex<HashMap<TargetName, Entry>>);

struct Entry {
    state: watch::Sender<TargetState>,
    queue: Option<String>,
    wakes: u32,
    loads: Vec<u32>,
    on_wake: Option<SocketAddr>,
}

impl FakeTargets {
    /// Targets at zero, with queues of their names.
    pub(crate) fn at_zero(names: &[&str]) -> Arc<Self> {
        let targets = Self::default();
        for name in names {
            targets.add(name);
        }
        Arc::new(targets)
    }

    pub(crate) fn add(&self, name: &str) {
        let entry = Entry {
            state: watch::Sender::default(),
            queue: Some(target(name).name),
            wakes: 0,
            loads: Vec::new(),
            on_wake: None,
        };
        self.0.lock().unwrap().insert(target(name), entry);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().unwrap().remove(&target(name));
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Entry) -> T) -> T {
        act(self.0.lock().unwrap().get_mut(&target(name)).unwrap())
    }

    /// The target has these endpoints now.
    pub(crate) fn endpoints(&self, name: &str, endpoints: &[SocketAddr]) {
        self.with(name, |entry| {
            entry
                .state
                .send_modify(|state| state.endpoints = endpoints.to_vec());
        });
    }

    /// A wake lists this endpoint at once.
    pub(crate) fn wakes_to(&self, name: &str, endpoint: SocketAddr) {
        self.with(name, |entry| entry.on_wake = Some(endpoint));
    }

    pub(crate) fn trouble(&self, name: &str, trouble: &str) {
        self.with(name, |entry| {
            entry
                .state
                .send_modify(|state| state.trouble = Some(trouble.to_owned()));
        });
    }

    pub(crate) fn queue(&self, name: &str, queue: Option<&str>) {
        self.with(name, |entry| entry.queue = queue.map(str::to_owned));
    }

    pub(crate) fn wakes(&self, name: &str) -> u32 {
        self.with(name, |entry| entry.wakes)
    }

    /// Every load that was told, oldest first.
    pub(crate) fn loads(&self, name: &str) -> Vec<u32> {
        self.with(name, |entry| entry.loads.clone())
    }

    /// Waits until the target has so many calls.
    pub(crate) async fn loaded(&self, name: &str, calls: u32) {
        let what = format!("{name} has {calls} calls");
        until(&what, PATIENCE, || async {
            self.loads(name).last().copied().unwrap_or(0) == calls
        })
        .await;
    }
}

impl Targets for FakeTargets {
    fn watch(&self, target: &TargetName) -> Option<watch::Receiver<TargetState>> {
        self.0
            .lock()
            .unwrap()
            .get(target)
            .map(|entry| entry.state.subscribe())
    }

    fn wake(&self, target: &TargetName) {
        if let Some(entry) = self.0.lock().unwrap().get_mut(target) {
            entry.wakes += 1;
            if let Some(endpoint) = entry.on_wake {
                entry.state.send_modify(|state| state.endpoints = vec![endpoint]);
            }
        }
    }

    fn load_changed(&self, target: &TargetName, calls: u32) {
        if let Some(entry) = self.0.lock().unwrap().get_mut(target) {
            entry.loads.push(calls);
        }
    }

    fn queue(&self, target: &TargetName) -> Option<String> {
        self.0
            .lock()
            .unwrap()
            .get(target)
            .and_then(|entry| entry.queue.clone())
    }

    fn names(&self) -> Vec<TargetName> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

/// An outbox that answers as the test says and keeps what it was given.
#[derive(Default)]
pub(crate) struct FakeOutbox {
    pub(crate) answer: Mutex<Option<OutboxError>>,
    pub(crate) published: Mutex<Vec<(String, Message)>>,
}

impl Outbox for FakeOutbox {
    fn publish<'a>(
        &'a self,
        queue: &'a str,
        message: Message,
        _deadline: Instant,
    ) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(async move {
            self.published.lock().unwrap().push((queue.to_owned(), message));
            self.answer.lock().unwrap().clone().map_or(Ok(()), Err)
        })
    }
}

/// An activator that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<activator::Drained>,
}

impl Running {
    /// Starts one that routes by name.
    pub(crate) async fn start(targets: &Arc<FakeTargets>, limits: Limits) -> Self {
        Self::start_with(targets, limits, Routing::ByName, Arc::<FakeOutbox>::default()).await
    }

    pub(crate) async fn start_with(
        targets: &Arc<FakeTargets>,
        limits: Limits,
        routing: Routing,
        outbox: Arc<dyn Outbox>,
    ) -> Self {
        let mut config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), routing);
        config.limits = limits;
        let targets: Arc<dyn Targets> = Arc::clone(targets) as _;
        let bound = Activator::bind(config, targets, outbox).await.unwrap();
        let (address, shutdown) = (bound.addr(), Shutdown::new());
        let task = tokio::spawn(bound.run(shutdown.clone()));
        Self {
            address,
            shutdown,
            task,
        }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.force();
    }
}

/// Captures what this test logs.
///
/// While a process has one subscriber only, tracing asks the *current thread* whether a line is of interest when it is
/// first met, and another test's thread would say no for all. A second subscriber, which wants nothing, prevents that.
pub(crate) fn captured_logs() -> Logs {
    static SECOND: OnceLock<tracing::Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new()));
    testkit::logs::capture()
}

/// Limits under which a wait in vain is over soon.
pub(crate) fn impatient() -> Limits {
    Limits {
        wake_timeout: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// A connection on which a test says each byte itself.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// Sends a request: a line and headers, each ended by `\n` for brevity, then a body.
    pub(crate) async fn send(&mut self, head: &str, body: &[u8]) {
        let head = head.replace('\n', "\r\n") + "\r\n";
        self.0.write_all(head.as_bytes()).await.unwrap();
        self.0.write_all(body).await.unwrap();
    }

    /// Reads until what came contains `end`, or the connection ends.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&said).contains(end) {
            match tokio::time::timeout(PATIENCE, self.0.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(length)) => said.extend_from_slice(&buffer[..length]),
                Err(elapsed) => panic!("{elapsed} after {:?}", String::from_utf8_lossy(&said)),
            }
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Reads until the connection ends.
    pub(crate) async fn read_to_end(&mut self) -> String {
        self.read_until("\u{0}never sent").await
    }
}
