//! P1: requests through a proxy to an origin behind it.

use super::{Leg, Process, Sample, Told};
use crate::line::Line;
use crate::runner::{Running, Tether};
use anyhow::{Context, bail, ensure};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;
use testkit::http;
use testkit::wait::PATIENCE;
use tokio::time::{Instant, sleep, timeout};

/// An address for programs that cannot tell which port they took. Another program may take it first; then the runner
/// says so, and the pair is left out.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

impl Leg<'_> {
    pub(super) async fn proxy(&self) -> anyhow::Result<Sample> {
        let (_origin, url) = self.origin().await?;
        let runner = self.spawn(self.stage.broker.url(), &url)?;
        let mut process = Process { runner, sink: None };
        self.answers(&mut process).await?;

        let mut load = self.load()?;
        let mut told = Told::of(&mut load)?;
        process.sink = Some((load, url));
        let watched = told.watch(self.pids(&process), self.patience(), None).await?;
        let end = self.finish(&mut process, told).await?;
        Ok(self.sample(end, &watched))
    }

    /// What is behind the proxy, and its URL.
    async fn origin(&self) -> anyhow::Result<(Running, String)> {
        let mut command = Tether::Tied.command(&self.stage.programs.built("bench-origin"));
        command.args(["--listen", "127.0.0.1:0", "--body-bytes"]);
        command
            .arg(self.workload.body_bytes.to_string())
            .arg("--seed")
            .arg(self.workload.seed.to_string());
        let mut origin = Running::start(command, &self.stage.logs.join("origin.log"), true)?;
        let mut told = Told::of(&mut origin)?;
        let Ok(Some(Line::Ready { url })) = timeout(PATIENCE, told.next()).await else {
            bail!("the origin does not start: {}", origin.log_tail());
        };
        Ok((origin, url))
    }

    /// Waits until a request gets through.
    async fn answers(&self, process: &mut Process) -> anyhow::Result<()> {
        let (began, url) = (Instant::now(), format!("http://{}/0", self.listen));
        while !http::get(&url).await.is_ok_and(|answer| answer.status == 200) {
            ensure!(
                process.runner.ended()?.is_none() && began.elapsed() < PATIENCE,
                "it does not answer: {}",
                process.runner.log_tail()
            );
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Running> {
        let mut command = Tether::Tied.command(&self.stage.programs.built("bench-load"));
        let workload = self.workload;
        for (name, value) in [
            ("--address", self.listen.to_string()),
            ("--requests", workload.messages.to_string()),
            ("--warm-up", workload.warm_up.to_string()),
            ("--connections", workload.in_flight.to_string()),
            ("--body-bytes", workload.body_bytes.to_string()),
            ("--seed", workload.seed.to_string()),
        ] {
            command.arg(name).arg(value);
        }
        Running::start(command, &self.stage.logs.join("load.log"), true)
    }
}
