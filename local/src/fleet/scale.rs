//! A fleet as the autoscaler sees it.

use super::{WorkerFleet, now};
use autoscaler::{Fleet, ReplicaId, ScaleTarget, TargetError};

impl ScaleTarget for WorkerFleet {
    /// Replicas that were told to end are not in it any more.
    async fn observe(&self) -> Result<Fleet, TargetError> {
        let (timeout, now) = (self.inner.worker.call_timeout, now());
        let members = self.inner.members();
        let living = members
            .replicas
            .iter()
            .filter(|entry| !entry.replica.is_stopping());
        Ok(Fleet {
            replicas: living.map(|entry| entry.observe(timeout, now)).collect(),
            kept: None,
        })
    }

    async fn scale_up(&self, replicas: u32) -> Result<(), TargetError> {
        let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
        let mut members = self.inner.members();
        let mut living = members
            .replicas
            .iter()
            .filter(|entry| !entry.replica.is_stopping())
            .count();
        let mut outcome = Ok(());
        while living < replicas && outcome.is_ok() && !self.inner.shutdown.is_draining() {
            outcome = self.start_one(&mut members);
            living += 1;
        }
        drop(members);
        self.inner.refresh();
        outcome
    }

    async fn drain(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        let calls = self.inner.calls.borrow().count();
        for entry in &mut self.inner.members().replicas {
            if replicas.contains(entry.replica.id()) {
                entry.drain(calls);
            }
        }
        self.inner.refresh();
        Ok(())
    }

    async fn resume(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        for entry in &mut self.inner.members().replicas {
            if replicas.contains(entry.replica.id()) && !entry.replica.is_stopping() {
                entry.resume(&self.inner.is_intake_stopped);
            }
        }
        self.inner.refresh();
        Ok(())
    }

    async fn remove(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        let (timeout, now) = (self.inner.worker.call_timeout, now());
        let mut busy = Vec::new();
        for entry in &self.inner.members().replicas {
            if !replicas.contains(entry.replica.id()) {
                continue;
            }
            if entry.draining.is_some() && entry.observe(timeout, now).in_flight == 0 {
                entry.replica.stop();
            } else {
                busy.push(entry.replica.id().to_string());
            }
        }
        self.inner.refresh();
        if busy.is_empty() {
            return Ok(());
        }
        Err(TargetError {
            reason: format!("not removed, because not drained yet: {}", busy.join(", ")),
        })
    }
}
