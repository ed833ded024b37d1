//! D5: the runner is killed half-way and started again at once, as a kubelet would without its pause.

use super::watch::Until;
use super::{Leg, Sample, float, milliseconds};
use crate::line::End;
use crate::serve::LEDGER_PATH;
use anyhow::{Context, ensure};
use std::time::Duration;
use testkit::http;
use testkit::wait::PATIENCE;
use tokio::time::{Instant, sleep};

impl Leg<'_> {
    pub(super) async fn recovery(&self) -> anyhow::Result<Sample> {
        self.fill().await;
        let sink = self
            .sink()
            .await?
            .context("a runner that is its own sink loses the ledger when it is killed")?;
        let url = sink.url.clone();
        let (mut process, mut told) = self.start(Some(sink), self.stage.broker.url())?;
        let half = told
            .watch(self.pids(&process), self.patience(), Some(Until::Warm))
            .await?;
        ensure!(
            half.warm.is_some(),
            "it stops before it is killed: {}",
            process.runner.log_tail()
        );

        process.runner.kill().await?;
        let before = ledger(&url).await?;
        let began = Instant::now();
        process.runner = self.spawn(self.stage.broker.url(), &url)?;
        // The first to come is what was in flight, a second time; after it comes what is new.
        let arrivals = |end: End| end.distinct + end.duplicates;
        while arrivals(ledger(&url).await?) == arrivals(before) {
            ensure!(
                began.elapsed() < PATIENCE,
                "it does not come back: {}",
                process.runner.log_tail()
            );
            sleep(Duration::from_millis(1)).await;
        }
        let back = began.elapsed();
        told.watch(self.pids(&process), self.patience(), None).await?;
        let (end, unsettled) = self.finish(&mut process, told).await?;
        let mut sample = Sample::new(self.runner, end, unsettled);
        sample.measures.clear();
        sample.put("recovery", milliseconds(back));
        sample.put("recovery_duplicates", float(end.duplicates));
        Ok(sample)
    }
}

async fn ledger(sink: &str) -> anyhow::Result<End> {
    let response = http::get(&format!("{sink}{LEDGER_PATH}")).await?;
    Ok(serde_json::from_str(&response.text())?)
}
