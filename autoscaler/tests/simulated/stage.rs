//! The real `Autoscaler` on a simulated world. Needs `#[tokio::test(start_paused = true)]`: time then jumps to the
//! next timer whenever nothing else is to be done.

use crate::world::{Millis, World};
use autoscaler::domain::{Calls, Depth, Policy, QueueName, SampleError};
use autoscaler::{
    Autoscaler, DepthSource, Fleet, ReplicaId, Report, ScaleTarget, TargetError, TargetHandle, TargetSpec,
};
use ops::shutdown::Shutdown;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How often the world moves by itself.
const STEP: Duration = Duration::from_millis(10);

/// A world that several may look at, kept at the present by whoever looks.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    world: Arc<Mutex<World>>,
    start: Instant,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        Self {
            world: Arc::new(Mutex::new(World::new(start.into_std()))),
            start,
        }
    }

    pub(crate) fn now(&self) -> Millis {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    /// The world as it is now.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        let now = self.now();
        let mut world = self.world.lock().unwrap();
        world.advance_to(now);
        world
    }
}

/// What a source was asked, and faults that it shows.
#[derive(Debug, Default)]
pub(crate) struct SourceLog {
    /// The size of each batch.
    pub(crate) batches: Vec<usize>,
    /// (queue, dead-letter queue) of each call.
    pub(crate) ensured: Vec<(String, String)>,
    pub(crate) ensure_fails_with: Option<SampleError>,
    pub(crate) sample_fails_with: Option<SampleError>,
    /// Never answers.
    pub(crate) hangs: bool,
    pub(crate) is_closed: bool,
}

/// A source that sees the world's one queue under every name.
#[derive(Debug)]
pub(crate) struct FakeSource {
    shared: Shared,
    pub(crate) log: Arc<Mutex<SourceLog>>,
}

impl FakeSource {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            shared: shared.clone(),
            log: Arc::default(),
        }
    }
}

impl DepthSource for FakeSource {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn sample(&mut self, queues: &[QueueName]) -> Vec<Result<Depth, SampleError>> {
        sleep(Duration::from_millis(1)).await;
        let (hangs, failure) = {
            let mut log = self.log.lock().unwrap();
            log.batches.push(queues.len());
            (log.hangs, log.sample_fails_with.clone())
        };
        if hangs {
            pending::<()>().await;
        }
        let depth = failure.map_or_else(|| self.shared.world().depth(), Err);
        vec![depth; queues.len()]
    }

    async fn ensure(&mut self, queue: &QueueName, dead_letter: &str) -> Result<(), SampleError> {
        let mut log = self.log.lock().unwrap();
        log.ensured.push((queue.to_string(), dead_letter.to_owned()));
        log.ensure_fails_with.clone().map_or(Ok(()), Err)
    }

    async fn close(self) {
        self.log.lock().unwrap().is_closed = true;
    }
}

/// What is wrong with a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    ChangesFail,
    ChangesHang,
    ObserveHangs,
    ObservePanics,
}

/// When a target was asked, and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct TargetLog {
    pub(crate) observed: Vec<Millis>,
    pub(crate) fault: Fault,
}

/// The world's replicas.
#[derive(Debug, Clone)]
pub(crate) struct FakeTarget {
    shared: Shared,
    pub(crate) log: Arc<Mutex<TargetLog>>,
}

impl FakeTarget {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            shared: shared.clone(),
            log: Arc::default(),
        }
    }

    async fn change(&self, change: impl FnOnce(&mut World)) -> Result<(), TargetError> {
        let fault = self.log.lock().unwrap().fault;
        if fault == Fault::ChangesHang {
            pending::<()>().await;
        }
        if fault == Fault::ChangesFail {
            return Err(TargetError {
                reason: "the quota is exhausted".to_owned(),
            });
        }
        change(&mut self.shared.world());
        Ok(())
    }
}

impl ScaleTarget for FakeTarget {
    async fn observe(&self) -> Result<Fleet, TargetError> {
        let fault = {
            let mut log = self.log.lock().unwrap();
            log.observed.push(self.shared.now());
            log.fault
        };
        assert!(fault != Fault::ObservePanics, "the target panics");
        if fault == Fault::ObserveHangs {
            pending::<()>().await;
        }
        self.shared.world().fleet()
    }

    async fn scale_up(&self, replicas: u32) -> Result<(), TargetError> {
        self.change(|world| world.scale_up(replicas)).await
    }

    async fn drain(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        self.change(|world| world.drain(replicas)).await
    }

    async fn resume(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        self.change(|world| world.resume(replicas)).await
    }

    async fn remove(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        self.change(|world| world.remove(replicas)).await
    }
}

/// One target, its autoscaler and the world around them, all running.
pub(crate) struct Stage {
    pub(crate) shared: Shared,
    pub(crate) calls: watch::Sender<Calls>,
    pub(crate) handle: TargetHandle,
    pub(crate) source: Arc<Mutex<SourceLog>>,
    pub(crate) target: Arc<Mutex<TargetLog>>,
    pub(crate) shutdown: Shutdown,
    pub(crate) running: JoinHandle<()>,
}

impl Stage {
    /// A target with a queue.
    pub(crate) fn new(policy: Policy) -> Self {
        Self::with(policy, Some("orders"), None)
    }

    pub(crate) fn with(policy: Policy, queue: Option<&str>, dead_letter: Option<&str>) -> Self {
        let shared = Shared::new();
        let (source, target) = (FakeSource::new(&shared), FakeTarget::new(&shared));
        let (source_log, target_log) = (Arc::clone(&source.log), Arc::clone(&target.log));
        let (calls, receiver) = watch::channel(Calls::Known(0));
        let autoscaler = Autoscaler::new(source);
        let handle = autoscaler.add(TargetSpec {
            name: "default/orders".to_owned(),
            queue: queue.map(str::to_owned),
            dead_letter: dead_letter.map(str::to_owned),
            policy,
            target,
            calls: receiver,
        });
        let shutdown = Shutdown::new();
        let running = tokio::spawn(autoscaler.run(shutdown.clone()));
        tokio::spawn({
            let (shared, shutdown) = (shared.clone(), shutdown.clone());
            async move {
                while !shutdown.is_draining() {
                    sleep(STEP).await;
                    drop(shared.world());
                }
            }
        });
        Self {
            shared,
            calls,
            handle,
            source: source_log,
            target: target_log,
            shutdown,
            running,
        }
    }

    /// The world, to be changed in one expression. Holding two of these is a deadlock.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    /// A copy of the world as it is now.
    pub(crate) fn snapshot(&self) -> World {
        self.world().clone()
    }

    /// From now on this is wrong with the target.
    pub(crate) fn fault(&self, fault: Fault) {
        self.target.lock().unwrap().fault = fault;
    }

    pub(crate) async fn pass(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    pub(crate) fn report(&self) -> Report {
        self.handle.reports().borrow().clone().expect("a first tick")
    }

    /// Waits until the world is so, and returns the milliseconds that took. Gives up after an hour.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&World) -> bool) -> Millis {
        let begin = self.shared.now();
        loop {
            let now = self.shared.now();
            if condition(&self.world()) {
                return now - begin;
            }
            assert!(
                now - begin < 3_600_000,
                "never came: {what}; last: {}",
                self.report().sentence
            );
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends everything and waits for it.
    pub(crate) async fn stop(self) {
        self.shutdown.drain();
        self.running.await.expect("the autoscaler does not panic");
    }
}
