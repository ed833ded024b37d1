//! Passive declares against a real RabbitMQ.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod depth;
mod ensure;
mod lost;

use autoscaler::domain::{Depth, QueueName, SampleError};
use autoscaler::{DepthSource, PassiveDeclare};
use lapin::BasicProperties;
use testkit::{Amqp, Broker};
use tokio::sync::{Mutex, MutexGuard};

/// A broker that no other test uses. One at a time, because each needs a whole core to start.
async fn own_broker() -> (Broker, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::const_new(());
    let turn = ONE.lock().await;
    (Broker::start().await, turn)
}

async fn publish(amqp: &Amqp, queue: &str, messages: usize) {
    amqp.publish_many(queue, (0..messages).map(|_| ("x", BasicProperties::default())))
        .await;
}

fn source(broker: &Broker) -> PassiveDeclare {
    PassiveDeclare::new(
        broker.url().parse().expect("the broker's address"),
        "autoscaler-test",
    )
}

fn queue(name: &str) -> QueueName {
    QueueName::new(name)
}

async fn sample_one(source: &mut PassiveDeclare, name: &str) -> Result<Depth, SampleError> {
    source.sample(&[queue(name)]).await.remove(0)
}

/// Samples until the queue has this many ready messages: a quorum queue's count follows after some milliseconds.
async fn until_ready(source: &mut PassiveDeclare, name: &str, ready: u64) {
    let begin = tokio::time::Instant::now();
    loop {
        let depth = sample_one(source, name).await;
        if depth.as_ref().is_ok_and(|depth| depth.ready == ready) {
            return;
        }
        assert!(
            begin.elapsed() < testkit::wait::PATIENCE,
            "{name} never had {ready} ready: {depth:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Captures this test's logs.
///
/// While a process has only one subscriber, tracing asks only the thread that meets a log line for the first time
/// whether anybody wants it, and remembers a no for all. Other tests run on threads without a subscriber, so a second
/// subscriber that wants nothing is kept for ever.
fn capture() -> testkit::logs::Logs {
    static SECOND: std::sync::OnceLock<tracing::Dispatch> = std::sync::OnceLock::new();
    SECOND.get_or_init(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new()));
    testkit::logs::capture()
}
