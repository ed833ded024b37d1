//! Queues that are made so that the first message at zero replicas finds one, and the whole way from there.

use crate::{capture, publish, queue, sample_one, source, until_ready};
use autoscaler::domain::{Calls, Policy};
use autoscaler::{
    Autoscaler, DepthSource, Fleet, Phase, Replica, ReplicaId, ScaleTarget, TargetError, TargetSpec,
};
use ops::shutdown::Shutdown;
use std::sync::Mutex;
use std::time::Duration;
use testkit::wait::{PATIENCE, until};
use testkit::{broker, table, unique};
use tokio::sync::watch;

#[tokio::test]
async fn a_missing_queue_and_its_dead_letter_queue_are_made() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let logs = capture();
    let mut source = source(broker);
    let name = unique("orders");
    let dead = format!("{name}.dead");
    source.ensure(&queue(&name), &dead).await.unwrap();
    assert_eq!(logs.matching("made the queue").len(), 2, "{logs:?}");
    publish(&amqp, &name, 1).await;
    until_ready(&mut source, &name, 1).await;
    assert_eq!(sample_one(&mut source, &dead).await.unwrap().ready, 0);
    // Again: nothing is made, nothing is said.
    let before = logs.lines().len();
    source.ensure(&queue(&name), &dead).await.unwrap();
    assert_eq!(logs.lines().len(), before, "{logs:?}");
    source.close().await;
}

#[tokio::test]
async fn a_queue_known_as_missing_is_asked_again_once_it_is_made() {
    let broker = broker().await;
    let mut source = source(broker);
    let name = unique("orders");
    assert!(sample_one(&mut source, &name).await.is_err());
    source
        .ensure(&queue(&name), &format!("{name}.dead"))
        .await
        .unwrap();
    assert_eq!(sample_one(&mut source, &name).await.unwrap().ready, 0);
    source.close().await;
}

#[tokio::test]
async fn a_queue_that_exists_is_used_as_it_is_and_its_risks_are_named() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let logs = capture();
    let mut source = source(broker);
    let name = unique("classic");
    amqp.declare(&name, table([])).await;
    publish(&amqp, &name, 2).await;
    source
        .ensure(&queue(&name), &format!("{name}.dead"))
        .await
        .unwrap();
    assert_eq!(sample_one(&mut source, &name).await.unwrap().ready, 2);
    let risks = logs.matching("messages can be lost in this queue");
    assert!(
        risks.iter().any(|line| line.contains("no_dead_letter")),
        "{logs:?}"
    );
    source.close().await;
}

/// Replicas that are ready at once and never do anything.
#[derive(Debug, Default)]
struct Idlers(Mutex<Vec<Replica>>);

impl ScaleTarget for Idlers {
    async fn observe(&self) -> Result<Fleet, TargetError> {
        Ok(Fleet {
            replicas: self.0.lock().unwrap().clone(),
            kept: None,
        })
    }

    async fn scale_up(&self, replicas: u32) -> Result<(), TargetError> {
        let now = tokio::time::Instant::now().into_std();
        let mut all = self.0.lock().unwrap();
        while all.len() < replicas as usize {
            let id = ReplicaId(format!("idler-{}", all.len()));
            all.push(Replica {
                id,
                phase: Phase::Ready,
                in_flight: 0,
                idle_since: Some(now),
            });
        }
        Ok(())
    }

    async fn drain(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        for replica in self
            .0
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|replica| replicas.contains(&replica.id))
        {
            replica.phase = Phase::Draining;
        }
        Ok(())
    }

    async fn resume(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        for replica in self
            .0
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|replica| replicas.contains(&replica.id))
        {
            replica.phase = Phase::Ready;
        }
        Ok(())
    }

    async fn remove(&self, replicas: &[ReplicaId]) -> Result<(), TargetError> {
        self.0
            .lock()
            .unwrap()
            .retain(|replica| !replicas.contains(&replica.id));
        Ok(())
    }
}

#[tokio::test]
async fn from_no_queue_to_replicas_and_back_to_zero() {
    let broker = broker().await;
    let amqp = broker.amqp().await;
    let name = unique("orders");
    let autoscaler = Autoscaler::new(source(broker));
    let handle = autoscaler.add(TargetSpec {
        name: format!("default/{name}"),
        queue: Some(name.clone()),
        dead_letter: Some(format!("{name}.dead")),
        policy: Policy::try_new(0, 3, 10, Duration::from_secs(1)).unwrap(),
        target: Idlers::default(),
        calls: watch::channel(Calls::Known(0)).1,
    });
    let shutdown = Shutdown::new();
    let running = tokio::spawn(autoscaler.run(shutdown.clone()));
    until("the queue is made", PATIENCE, || async {
        amqp.depth(&name).await.is_some()
    })
    .await;
    publish(&amqp, &name, 25).await;
    let reports = handle.reports();
    let is_holding_at = |replicas| {
        reports.borrow().as_ref().is_some_and(|report| {
            report.decision.is_hold() && report.replicas.is_some_and(|counts| counts.total() == replicas)
        })
    };
    until("three replicas", PATIENCE, || async { is_holding_at(3) }).await;
    amqp.purge(&name).await;
    until("zero replicas", PATIENCE, || async { is_holding_at(0) }).await;
    shutdown.drain();
    running.await.unwrap();
}
