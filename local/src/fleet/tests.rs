use super::*;
use crate::display::tests::Collected;
use crate::process::{CommandLine, inherited};
use crate::sidecars::{Attached, Intake, Sidecar};
use autoscaler::ScaleTarget;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

const SERVER: &str = "
import os, socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', int(os.environ['PORT'])))
listener.listen()
print('up', os.getpid(), flush=True)
while True:
    connection, _ = listener.accept()
    if connection.recv(1) == b'x':
        os._exit(7)
    connection.close()
";

/// A sidecar whose messages are what the test says.
#[derive(Default)]
struct Scripted {
    intake: Mutex<Intake>,
    changed: Notify,
    is_draining: AtomicBool,
}

impl Scripted {
    fn set_in_flight(&self, in_flight: u32) {
        self.intake.lock().unwrap().in_flight = in_flight;
        self.changed.notify_one();
    }
}

impl Sidecar for Scripted {
    fn intake(&self) -> Intake {
        *self.intake.lock().unwrap()
    }

    fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    fn resume(&self) {
        self.is_draining.store(false, Relaxed);
    }
}

#[derive(Clone, Default)]
struct Script {
    sidecars: Arc<Mutex<Vec<Arc<Scripted>>>>,
}

impl Script {
    fn last(&self) -> Arc<Scripted> {
        Arc::clone(self.sidecars.lock().unwrap().last().unwrap())
    }
}

impl Sidecars for Script {
    fn attach(&self, _replica: &ReplicaId, _worker: SocketAddr, shutdown: Shutdown) -> Attached {
        let sidecar = Arc::new(Scripted::default());
        self.sidecars.lock().unwrap().push(Arc::clone(&sidecar));
        let running = Arc::clone(&sidecar);
        let running = Box::pin(async move {
            shutdown.draining().await;
            running.drain();
            while running.intake().in_flight > 0 && !shutdown.is_forced() {
                tokio::select! {
                    () = running.changed.notified() => {}
                    () = shutdown.forced() => {}
                }
            }
        });
        Attached { sidecar, running }
    }
}

struct Bench {
    fleet: WorkerFleet,
    script: Script,
    lines: Collected,
    shutdown: Shutdown,
}

fn bench(program: &str, arguments: &[&str]) -> Bench {
    let lines = Collected::default();
    let screen = Screen::plain(Box::new(lines.clone()), Box::new(std::io::sink())).unwrap();
    let (script, shutdown) = (Script::default(), Shutdown::new());
    let command = CommandLine {
        words: [&[program], arguments]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        variables: None,
        environment: inherited(std::env::vars_os()),
        directory: None,
    };
    let worker = Worker {
        name: TargetName {
            namespace: "default".to_owned(),
            name: "orders".to_owned(),
        },
        plan: Plan {
            worker: "orders".to_owned(),
            command,
            grace: Duration::from_secs(10),
        },
        call_timeout: Duration::from_hours(1),
    };
    let fleet = WorkerFleet::new(worker, Some(Box::new(script.clone())), screen, shutdown.clone());
    Bench {
        fleet,
        script,
        lines,
        shutdown,
    }
}

fn server() -> Bench {
    bench("python3", &["-c", SERVER])
}

impl Bench {
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        let (summary, lines) = (self.fleet.summary(), self.lines.text());
        assert!(
            waited.is_ok(),
            "never {what}: {summary}, {:?}, {lines}",
            self.fleet.trouble()
        );
    }

    async fn until_ready(&self, replicas: usize) {
        self.until(&format!("{replicas} ready"), || {
            self.fleet.summary().ready == replicas
        })
        .await;
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        self.fleet.watch().borrow().endpoints.clone()
    }

    async fn observe(&self) -> Vec<autoscaler::Replica> {
        self.fleet.observe().await.unwrap().replicas
    }

    async fn end(self) {
        let endpoints = self.endpoints();
        tokio::time::timeout(PATIENCE, self.fleet.stop()).await.unwrap();
        assert_eq!(self.fleet.summary().replicas, 0);
        assert_eq!(self.endpoints(), []);
        for endpoint in endpoints {
            assert!(
                TcpStream::connect(endpoint).await.is_err(),
                "a worker is left at {endpoint}"
            );
        }
    }
}

fn ids(replicas: &[autoscaler::Replica]) -> Vec<ReplicaId> {
    replicas.iter().map(|replica| replica.id.clone()).collect()
}

#[tokio::test]
async fn from_zero_to_three_and_back_to_zero() {
    let bench = server();
    assert_eq!(
        bench.fleet.summary().to_string().split(' ').next(),
        Some("state=zero")
    );
    bench.fleet.scale_up(3).await.unwrap();
    bench.fleet.scale_up(2).await.unwrap();
    assert_eq!(bench.observe().await.len(), 3);
    bench.until_ready(3).await;
    assert_eq!(bench.endpoints().len(), 3);
    let replicas = bench.observe().await;
    assert!(
        replicas
            .iter()
            .all(|replica| replica.phase == Phase::Ready && replica.in_flight == 0)
    );
    bench.fleet.drain(&ids(&replicas)).await.unwrap();
    assert_eq!(bench.endpoints(), []);
    assert!(
        bench
            .observe()
            .await
            .iter()
            .all(|replica| replica.phase == Phase::Draining)
    );
    bench.fleet.remove(&ids(&replicas)).await.unwrap();
    assert_eq!(bench.observe().await, []);
    bench
        .until("at zero", || bench.fleet.summary().replicas == 0)
        .await;
    // Names are not given twice.
    bench.fleet.wake();
    assert_eq!(bench.observe().await[0].id.0, "orders-4");
    bench.end().await;
}

#[tokio::test]
async fn many_wakes_start_one_replica() {
    let bench = server();
    for _ in 0..100 {
        bench.fleet.wake();
    }
    bench.until_ready(1).await;
    bench.fleet.wake();
    assert_eq!(bench.fleet.summary().replicas, 1);
    bench.end().await;
}

#[tokio::test]
async fn a_wake_resumes_a_draining_replica() {
    let bench = server();
    bench.fleet.wake();
    bench.until_ready(1).await;
    let all = ids(&bench.observe().await);
    bench.fleet.drain(&all).await.unwrap();
    assert!(bench.script.last().is_draining.load(Relaxed));
    assert_eq!(bench.fleet.summary().condition.as_str(), "draining");
    bench.fleet.wake();
    assert!(!bench.script.last().is_draining.load(Relaxed));
    assert_eq!((bench.fleet.summary().replicas, bench.endpoints().len()), (1, 1));
    bench.end().await;
}

#[tokio::test]
async fn a_busy_replica_is_not_removed() {
    let bench = server();
    bench.fleet.wake();
    bench.until_ready(1).await;
    let all = ids(&bench.observe().await);
    let refused = bench.fleet.remove(&all).await.unwrap_err();
    assert!(refused.to_string().contains("orders-1"), "{refused}");
    bench.fleet.drain(&all).await.unwrap();
    bench.script.last().set_in_flight(1);
    assert_eq!(bench.observe().await[0].in_flight, 1);
    bench.fleet.remove(&all).await.unwrap_err();
    assert_eq!(bench.fleet.summary().replicas, 1);
    bench.script.last().set_in_flight(0);
    bench.fleet.remove(&all).await.unwrap();
    bench
        .until("at zero", || bench.fleet.summary().replicas == 0)
        .await;
    bench.end().await;
}

#[tokio::test]
async fn a_draining_replica_that_may_be_answering_a_call_is_kept() {
    let bench = server();
    bench.fleet.wake();
    bench.until_ready(1).await;
    bench.fleet.set_calls(2);
    assert_eq!(bench.fleet.calls().borrow().count(), 2);
    let all = ids(&bench.observe().await);
    bench.fleet.drain(&all).await.unwrap();
    bench.fleet.remove(&all).await.unwrap_err();
    // A later call is not on it, because it is no endpoint any more.
    bench.fleet.set_calls(0);
    bench.fleet.set_calls(1);
    assert_eq!(bench.observe().await[0].in_flight, 0);
    bench.fleet.remove(&all).await.unwrap();
    bench.end().await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_in_flight() {
    let bench = server();
    bench.fleet.wake();
    bench.until_ready(1).await;
    let (sidecar, worker) = (bench.script.last(), bench.endpoints()[0]);
    sidecar.set_in_flight(1);
    let stopping = tokio::spawn({
        let fleet = bench.fleet.clone();
        async move { fleet.stop().await }
    });
    bench
        .until("draining", || sidecar.is_draining.load(Relaxed))
        .await;
    // The worker must still be there for the message.
    TcpStream::connect(worker).await.unwrap();
    assert!(!stopping.is_finished());
    sidecar.set_in_flight(0);
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    bench.end().await;
}

#[tokio::test]
async fn a_forced_stop_waits_for_nothing() {
    let bench = bench("sh", &["-c", "trap '' TERM; echo up; while :; do sleep 1; done"]);
    bench.fleet.scale_up(3).await.unwrap();
    bench
        .until("up", || bench.lines.text().matches("up").count() == 3)
        .await;
    bench.script.last().set_in_flight(1);
    let begin = tokio::time::Instant::now();
    bench.shutdown.force();
    tokio::time::timeout(PATIENCE, bench.fleet.stop()).await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "the grace was waited for"
    );
    bench.end().await;
}

#[tokio::test]
async fn a_crashed_worker_is_started_again_on_its_port() {
    use tokio::io::AsyncWriteExt;
    let bench = server();
    bench.fleet.wake();
    bench.until_ready(1).await;
    let worker = bench.endpoints()[0];
    TcpStream::connect(worker)
        .await
        .unwrap()
        .write_all(b"x")
        .await
        .unwrap();
    bench
        .until("started twice", || bench.lines.text().matches("up").count() == 2)
        .await;
    bench.until_ready(1).await;
    assert_eq!(bench.endpoints(), [worker]);
    assert_eq!(bench.fleet.trouble(), None);
    bench.end().await;
}

#[tokio::test]
async fn a_worker_that_always_exits_is_a_crash_loop_with_growing_delays() {
    let bench = bench("sh", &["-c", "echo run; exit 3"]);
    bench.fleet.wake();
    bench
        .until("crash-loop", || {
            bench.fleet.summary().condition.as_str() == "crash-loop"
        })
        .await;
    let trouble = bench.fleet.trouble().unwrap();
    assert!(
        trouble.contains("orders") && trouble.contains("status 3"),
        "{trouble}"
    );
    let begin = tokio::time::Instant::now();
    bench
        .until("started 5 times", || {
            bench.lines.text().matches("run").count() >= 5
        })
        .await;
    assert!(begin.elapsed() >= Duration::from_millis(200), "no back-off");
    assert_eq!(bench.observe().await[0].phase, Phase::Starting);
    bench.end().await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_told() {
    let bench = bench("pythn3-of-nobody", &[]);
    bench.fleet.wake();
    bench
        .until("crash-loop", || {
            bench.fleet.summary().condition.as_str() == "crash-loop"
        })
        .await;
    let trouble = bench.fleet.watch().borrow().trouble.clone().unwrap();
    assert_eq!(
        trouble,
        "worker orders does not start: there is no command `pythn3-of-nobody` on PATH"
    );
    bench.end().await;
}

#[tokio::test]
async fn counts_of_removed_replicas_are_kept() {
    let bench = server();
    bench.fleet.wake();
    bench.until_ready(1).await;
    bench.script.last().intake.lock().unwrap().counts = Counts {
        done: 5,
        retried: 2,
        dead: 1,
    };
    let all = ids(&bench.observe().await);
    bench.fleet.drain(&all).await.unwrap();
    bench.fleet.remove(&all).await.unwrap();
    bench
        .until("at zero", || bench.fleet.summary().replicas == 0)
        .await;
    bench.fleet.wake();
    bench.script.last().intake.lock().unwrap().counts = Counts {
        done: 1,
        retried: 0,
        dead: 0,
    };
    let counts = bench.fleet.summary().counts;
    assert_eq!(
        counts,
        Counts {
            done: 6,
            retried: 2,
            dead: 1
        }
    );
    bench.end().await;
}

#[tokio::test]
async fn nothing_starts_after_the_stop() {
    let bench = server();
    bench.fleet.stop().await;
    bench.fleet.wake();
    bench.fleet.scale_up(3).await.unwrap();
    assert_eq!(bench.fleet.summary().replicas, 0);
    bench.end().await;
}
