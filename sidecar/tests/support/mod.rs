//! A sidecar in this process between a real RabbitMQ and a scripted worker.
#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    missing_debug_implementations,
    reason = "every test binary uses its own part of this"
)]

pub mod binary;

use ops::shutdown::Shutdown;
use sidecar::{App, Config, Drained, Handle, State, Worker as WorkerAddress, domain::retry};
use std::time::Duration;
use testkit::worker::{Answer, Received, Worker};
use testkit::{Amqp, Broker, unique};
use tokio::task::JoinHandle;

/// Longer than anything here takes on a slow machine; a test that needs it all has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A sidecar that runs.
pub struct Running {
    pub handle: Handle,
    pub shutdown: Shutdown,
    pub admin: Option<std::net::SocketAddr>,
    task: JoinHandle<Drained>,
}

impl Running {
    pub async fn start(config: Config) -> Self {
        let bound = App::bind(config).await.unwrap();
        let (handle, shutdown, admin) = (bound.handle(), Shutdown::new(), bound.admin_addr().unwrap());
        let task = tokio::spawn(bound.run(shutdown.clone()));
        Self {
            handle,
            shutdown,
            admin,
            task,
        }
    }

    /// Drains as on SIGTERM and waits for the end.
    pub async fn stop(self) -> Drained {
        self.shutdown.drain();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the sidecar does not end")
            .unwrap()
    }

    /// Ends without settling anything, as SIGKILL would.
    pub async fn kill(self) {
        self.shutdown.force();
        self.task.await.unwrap();
    }
}

/// Quick retries, so that tests need not wait.
pub fn config(broker: &str, queue: &str, port: u16) -> Config {
    Config {
        report_only: false,
        broker: broker.parse().unwrap(),
        queue: queue.to_owned(),
        dead_letter: format!("{queue}.dead"),
        response_queue: None,
        max_body_bytes: 16 * 1024 * 1024,
        reply_max_bytes: 1024 * 1024,
        max_defer: Duration::from_mins(25),
        init_path: None,
        callback_port: false,
        remember_completed: 10_000,
        worker: WorkerAddress {
            host: "127.0.0.1".to_owned(),
            port,
        },
        path: "/message".parse().unwrap(),
        concurrency: 4,
        prefetch: None,
        timeout: Duration::from_secs(20),
        max_attempts: 3,
        retry: retry::Policy {
            min: Duration::from_millis(100),
            max: Duration::from_millis(200),
        },
        grace: Duration::from_secs(20),
        admin: Some("127.0.0.1:0".parse().unwrap()),
        remote: None,
        name: format!("test {queue}"),
    }
}

/// The attempt journal of a dead letter, a line an attempt.
pub fn journal(letter: &testkit::Message) -> String {
    let Some(lapin::types::AMQPValue::FieldArray(lines)) = letter.header("x-kubedaemon-journal") else {
        panic!("there is no journal in {letter:?}");
    };
    let line = |value: &lapin::types::AMQPValue| match value {
        lapin::types::AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        other => panic!("{other:?} is no line"),
    };
    lines.as_slice().iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Waits until so many messages are ready in the queue. Its consumers are not compared: a quorum queue counts one that
/// was cancelled for as long as it holds messages.
pub async fn until_ready(amqp: &Amqp, queue: &str, messages: u32) {
    let what = format!("{messages} messages are in the queue");
    testkit::wait::until(&what, PATIENCE, || async {
        amqp.depth(queue)
            .await
            .is_some_and(|(ready, _)| ready == messages)
    })
    .await;
}

/// RabbitMQ 3.10 keeps the list of its quorum queues in a table that it writes with a delay; a node that is killed before
/// comes back with its newest queues empty, whatever it confirmed. That is not what is tested here.
pub async fn registered(broker: &Broker) {
    let write = ["eval", "dets:sync(ra_directory_reverse)."];
    assert_eq!(broker.ctl(&write).await.unwrap().trim(), "ok");
}

/// One queue, one worker, one sidecar.
pub struct Scene {
    pub queue: String,
    pub worker: Worker,
    pub sidecar: Running,
    pub amqp: Amqp,
}

impl Scene {
    /// A scene on the shared broker.
    pub async fn new<A: Into<Answer>>(script: impl Fn(&Received) -> A + Send + Sync + 'static) -> Self {
        Self::with(testkit::broker().await, script, |_| {}).await
    }

    pub async fn with<A: Into<Answer>>(
        broker: &Broker,
        script: impl Fn(&Received) -> A + Send + Sync + 'static,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let queue = unique("orders");
        let worker = Worker::start(script).await;
        let mut config = config(broker.url(), &queue, worker.port());
        change(&mut config);
        let amqp = broker.amqp().await;
        let sidecar = Running::start(config).await;
        let scene = Self {
            queue,
            worker,
            sidecar,
            amqp,
        };
        scene.until_state(State::Consuming).await;
        scene
    }

    /// Waits until the sidecar is in a state.
    pub async fn until_state(&self, wanted: State) {
        let mut state = self.sidecar.handle.watch_state();
        let reached = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state == wanted)).await;
        assert!(reached.is_ok(), "the sidecar does not reach {wanted:?}");
    }

    pub async fn publish(&self, body: &str) {
        self.amqp
            .publish(&self.queue, body, lapin::BasicProperties::default())
            .await;
    }

    /// Waits until `count` messages have met their final fate.
    pub async fn until_settled(&self, count: u64) {
        testkit::wait::until("every message is settled", PATIENCE, || async {
            let counts = self.sidecar.handle.status().counts;
            counts.accepted + counts.dead_lettered >= count
        })
        .await;
    }

    /// Waits until `count` messages are acknowledged because the worker said yes.
    pub async fn until_accepted(&self, count: u64) {
        testkit::wait::until("every message is accepted", PATIENCE, || async {
            self.sidecar.handle.status().counts.accepted == count
        })
        .await;
    }

    /// Waits until so many messages are ready in the queue.
    pub async fn until_ready(&self, messages: u32) {
        until_ready(&self.amqp, &self.queue, messages).await;
    }

    /// Drains and asserts that the queue is empty with nothing left unacknowledged.
    pub async fn end(self) {
        assert_eq!(self.sidecar.stop().await, Drained::Completely);
        until_ready(&self.amqp, &self.queue, 0).await;
        self.amqp.delete(&self.queue).await;
        self.amqp.delete(&format!("{}.dead", self.queue)).await;
    }

    /// The dead letters so far.
    pub async fn dead_letters(&self) -> Vec<testkit::Message> {
        self.amqp.get_all(&format!("{}.dead", self.queue)).await
    }
}

/// The rows of the table below a heading of the page of faults.
pub fn rows_of_the_page(heading: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/faults.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(str::to_owned).collect()
}
