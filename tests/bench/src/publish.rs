//! The publisher: persistent messages with confirms, as many as asked at once or at a fixed rate.

use crate::runner::Envelope;
use crate::workload::{Queue, Workload};
use crate::{body, envelope};
use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::time::Duration;
use testkit::{Amqp, table, text};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How far the pacing thread may be ahead of the publishing task.
const AHEAD: usize = 10_000;

/// Declares the durable queue of a workload.
pub async fn declare(amqp: &Amqp, queue: &str, kind: Queue) {
    amqp.declare(queue, table([("x-queue-type", text(kind.as_str()))]))
        .await;
}

/// Publishes every message of a workload as fast as it goes. All are confirmed when it returns.
pub async fn fill(amqp: &Amqp, queue: &str, workload: &Workload, envelope: Envelope) {
    let messages = (0..workload.messages).map(|id| {
        let body = body::make(workload.seed, id, ops::clock::since_epoch(), workload.body_bytes);
        envelope::message(envelope, workload, id, body)
    });
    amqp.publish_many(queue, messages).await;
}

/// Publishes every message of a workload at its rate, however long the broker takes: each message says when it was
/// due, so that a hold-up is counted for all who waited through it (no coordinated omission). Returns when all are
/// confirmed.
///
/// # Errors
/// When the broker is gone or does not take a message.
pub async fn at_rate(
    broker: &str,
    queue: &str,
    workload: &Workload,
    envelope: Envelope,
) -> anyhow::Result<()> {
    let connection = Connection::connect(broker, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (sender, mut due) = mpsc::channel(AHEAD);
    let (messages, rate) = (workload.messages, workload.rate);
    let pacing = std::thread::spawn(move || pace(messages, rate, &sender));
    let mut confirms = FuturesUnordered::new();
    loop {
        // Both are cancel safe: what is not taken stays.
        tokio::select! {
            next = due.recv() => {
                let Some((id, due)) = next else { break };
                let body = body::make(workload.seed, id, due, workload.body_bytes);
                let (body, properties) = envelope::message(envelope, workload, id, body);
                confirms.push(publish(&channel, queue, &body, properties).await?);
            }
            Some(confirm) = confirms.next() => confirmed(confirm)?,
        }
    }
    while let Some(confirm) = confirms.next().await {
        confirmed(confirm)?;
    }
    pacing.join().ok().context("the pacing thread has panicked")?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn publish(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<impl Future<Output = lapin::Result<Confirmation>> + use<>> {
    channel
        .basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            body,
            properties,
        )
        .await
}

fn confirmed(confirm: lapin::Result<Confirmation>) -> anyhow::Result<()> {
    ensure!(
        matches!(confirm?, Confirmation::Ack(None)),
        "the broker did not take a message"
    );
    Ok(())
}

/// A thread of its own, because tokio's timers are a millisecond coarse.
#[expect(clippy::disallowed_methods, reason = "this thread does nothing but wait")]
fn pace(messages: u64, rate: u32, sender: &mpsc::Sender<(u64, Duration)>) {
    let (began, began_at) = (Instant::now(), ops::clock::since_epoch());
    for id in 0..messages {
        let after = Duration::from_nanos(1_000_000_000 * id / u64::from(rate.max(1)));
        std::thread::sleep(after.saturating_sub(began.elapsed()));
        if sender.blocking_send((id, began_at + after)).is_err() {
            return;
        }
    }
}
