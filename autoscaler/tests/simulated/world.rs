//! A queue, replicas that work on it and time, as plain values: what the autoscaler sees, and what its decisions do.
//!
//! It obeys the contract of `ScaleTarget` and panics when a busy replica is removed.

use autoscaler::domain::{Decision, Depth, Policy, QueueSample, Sample, SampleError};
use autoscaler::{Fleet, Phase, Replica, ReplicaId, TargetError};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Milliseconds since the world began.
pub(crate) type Millis = u64;

/// One replica.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) id: ReplicaId,
    pub(crate) phase: Phase,
    ready_at: Millis,
    /// When each message in flight is finished.
    jobs: Vec<Millis>,
    idle_since: Millis,
    /// Resuming it does nothing: its process is ending.
    pub(crate) is_stubborn: bool,
}

/// Everything outside the autoscaler.
#[derive(Debug, Clone)]
pub(crate) struct World {
    start: Instant,
    pub(crate) now: Millis,
    /// The service times of messages that wait for delivery.
    pub(crate) queue: VecDeque<Millis>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) calls: u32,
    pub(crate) is_broker_up: bool,
    pub(crate) is_fleet_known: bool,
    /// From a replica's start until it takes messages.
    pub(crate) starts_in: Millis,
    /// Messages that one replica holds at a time.
    pub(crate) concurrency: usize,
    pub(crate) done: u64,
    /// (when, active replicas) at every change.
    pub(crate) history: Vec<(Millis, usize)>,
    /// The last moment with a message ready or in flight, or a call.
    pub(crate) last_demand: Millis,
    started: u64,
}

impl World {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: 0,
            queue: VecDeque::new(),
            workers: Vec::new(),
            calls: 0,
            is_broker_up: true,
            is_fleet_known: true,
            starts_in: 200,
            concurrency: 1,
            done: 0,
            history: vec![(0, 0)],
            last_demand: 0,
            started: 0,
        }
    }

    pub(crate) fn publish(&mut self, messages: usize, service: Millis) {
        self.queue.extend(std::iter::repeat_n(service, messages));
    }

    pub(crate) fn at(&self, millis: Millis) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    pub(crate) fn active(&self) -> usize {
        self.workers
            .iter()
            .filter(|worker| worker.phase != Phase::Draining)
            .count()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.workers.iter().map(|worker| worker.jobs.len()).sum()
    }

    /// Lets time pass up to `now`: messages are finished, replicas become ready and take what waits.
    pub(crate) fn advance_to(&mut self, now: Millis) {
        if !self.queue.is_empty() || self.calls > 0 {
            self.last_demand = now;
        }
        self.now = self.now.max(now);
        for worker in &mut self.workers {
            if worker.phase == Phase::Starting && worker.ready_at <= self.now {
                worker.phase = Phase::Ready;
                worker.idle_since = worker.ready_at;
            }
            let before = worker.jobs.len();
            let last = worker.jobs.iter().copied().max().unwrap_or(0);
            worker.jobs.retain(|end| *end > self.now);
            self.done += (before - worker.jobs.len()) as u64;
            if before > 0 {
                self.last_demand = self.last_demand.max(last.min(self.now));
            }
            if before > 0 && worker.jobs.is_empty() {
                worker.idle_since = last;
            }
        }
        if self.is_broker_up {
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        while !self.queue.is_empty() {
            let free = self
                .workers
                .iter_mut()
                .filter(|worker| worker.phase == Phase::Ready && worker.jobs.len() < self.concurrency)
                .min_by_key(|worker| worker.jobs.len());
            let Some(worker) = free else { return };
            if let Some(service) = self.queue.pop_front() {
                worker.jobs.push(self.now + service.max(1));
            }
        }
    }

    pub(crate) fn depth(&self) -> Result<Depth, SampleError> {
        if !self.is_broker_up {
            return Err(SampleError::BrokerUnreachable("the broker is away".to_owned()));
        }
        Ok(Depth {
            ready: self.queue.len() as u64,
            consumers: 0,
        })
    }

    pub(crate) fn fleet(&self) -> Result<Fleet, TargetError> {
        if !self.is_fleet_known {
            return Err(TargetError {
                reason: "the replicas cannot be asked".to_owned(),
            });
        }
        let replica = |worker: &Worker| Replica {
            id: worker.id.clone(),
            phase: worker.phase,
            in_flight: u32::try_from(worker.jobs.len()).unwrap(),
            idle_since: worker.jobs.is_empty().then(|| self.at(worker.idle_since)),
        };
        Ok(Fleet {
            replicas: self.workers.iter().map(replica).collect(),
            kept: None,
        })
    }

    pub(crate) fn sample(&self, called: bool) -> Sample {
        let queue = self.depth().map_or_else(QueueSample::Unknown, QueueSample::Known);
        Sample {
            at: self.at(self.now),
            queue,
            calls: self.calls,
            is_calls_known: true,
            called,
            fleet: self.fleet(),
        }
    }

    pub(crate) fn apply(&mut self, decision: &Decision) {
        match decision {
            Decision::ScaleUp { to, .. } => self.scale_up(*to),
            Decision::Resume { replicas, .. } => self.resume(replicas),
            Decision::Drain { victims, .. } => self.drain(victims),
            Decision::Remove { replicas } => self.remove(replicas),
            Decision::Hold { .. } => {}
        }
    }

    pub(crate) fn scale_up(&mut self, to: u32) {
        while self.workers.len() < to as usize {
            self.started += 1;
            self.workers.push(Worker {
                id: ReplicaId(format!("worker-{}", self.started)),
                phase: Phase::Starting,
                ready_at: self.now + self.starts_in,
                jobs: Vec::new(),
                idle_since: self.now,
                is_stubborn: false,
            });
        }
        self.note();
    }

    pub(crate) fn drain(&mut self, ids: &[ReplicaId]) {
        self.each(ids, |worker| worker.phase = Phase::Draining);
    }

    pub(crate) fn resume(&mut self, ids: &[ReplicaId]) {
        self.each(ids, |worker| {
            if worker.phase == Phase::Draining && !worker.is_stubborn {
                worker.phase = Phase::Ready;
            }
        });
    }

    pub(crate) fn remove(&mut self, ids: &[ReplicaId]) {
        for worker in self.workers.iter().filter(|worker| ids.contains(&worker.id)) {
            assert!(
                worker.jobs.is_empty(),
                "{} was removed with {} in flight",
                worker.id,
                worker.jobs.len()
            );
            assert_eq!(
                worker.phase,
                Phase::Draining,
                "{} was removed without being drained",
                worker.id
            );
        }
        self.workers.retain(|worker| !ids.contains(&worker.id));
        self.note();
    }

    fn each(&mut self, ids: &[ReplicaId], change: impl Fn(&mut Worker)) {
        self.workers
            .iter_mut()
            .filter(|worker| ids.contains(&worker.id))
            .for_each(change);
        self.note();
    }

    fn note(&mut self) {
        let active = self.active();
        if self.history.last().is_none_or(|(_, last)| *last != active) {
            self.history.push((self.now, active));
        }
    }

    /// How often the replica count turned from rising to falling or back.
    pub(crate) fn turns(&self) -> usize {
        let counts: Vec<usize> = self.history.iter().map(|(_, count)| *count).collect();
        counts
            .windows(3)
            .filter(|three| (three[0] < three[1]) != (three[1] < three[2]))
            .count()
    }
}

/// Shorthand with seconds.
pub(crate) fn policy(min: u32, max: u32, per_replica: u32, cool_down_seconds: u64) -> Policy {
    Policy::try_new(min, max, per_replica, Duration::from_secs(cool_down_seconds)).unwrap()
}
