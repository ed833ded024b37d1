//! D4: from the start of the process to the acknowledgement of a waiting message, then what idleness costs.

use super::{Leg, Sample, float, megabytes, milliseconds};
use crate::relay::Relay;
use crate::tree::{self, Spent};
use anyhow::Context;
use std::time::Duration;
use testkit::wait::PATIENCE;
use tokio::time::{Instant, sleep, timeout};

/// What start-up took and gives back is settled by then.
const SETTLING: Duration = Duration::from_secs(1);

impl Leg<'_> {
    pub(super) async fn footprint(&self) -> anyhow::Result<Sample> {
        // What a runner makes on the broker (ours a dead-letter queue) is there at every start but the very first.
        let (mut before, _told) = self.start(self.sink().await?, self.stage.broker.url())?;
        self.consumes(&mut before).await?;
        before.runner.stop().await?;
        drop(before);
        // Until the broker has noticed: the message must not go to the one that has ended.
        let _nothing = self.unsettled().await;

        self.fill().await;
        let sink = self.sink().await?;
        let port = self.stage.broker.port();
        let mut relay = Relay::start(port).await?;
        let broker = self
            .stage
            .broker
            .url()
            .replace(&format!(":{port}/"), &format!(":{}/", relay.port()));
        let began = Instant::now();
        let (mut process, told) = self.start(sink, &broker)?;
        let acked = timeout(PATIENCE, relay.first_ack()).await;
        let acked = acked
            .ok()
            .transpose()?
            .with_context(|| format!("it acknowledges nothing: {}", process.runner.log_tail()))?;

        sleep(SETTLING).await;
        let runner = process.runner.pid();
        let (from, before) = (Instant::now(), Spent::now(runner));
        sleep(Duration::from_secs(self.workload.idle_seconds.into())).await;
        let (idle, after) = (from.elapsed(), Spent::now(runner));
        let memory = tree::memory(runner);

        let (end, unsettled) = self.finish(&mut process, told).await?;
        let mut sample = Sample::new(self.runner, end, unsettled);
        sample.measures.clear();
        sample.put("startup", milliseconds(acked.duration_since(began)));
        sample.put("idle_rss", megabytes(memory.rss));
        sample.put("idle_anonymous", megabytes(memory.anonymous));
        sample.put(
            "wake_ups",
            float(after.wake_ups_since(&before)) / idle.as_secs_f64(),
        );
        Ok(sample)
    }
}
