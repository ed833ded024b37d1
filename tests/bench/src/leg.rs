//! One runner on one workload, from a queue of its own to what its ledger says at the end.

mod footprint;
mod proxy;
mod quiet;
mod recovery;
mod watch;

use crate::line::{End, Line};
use crate::publish;
use crate::runner::{Programs, Runner, Running, Tether};
use crate::workload::{Kind, Workload};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use testkit::wait::PATIENCE;
use testkit::{Amqp, Broker, unique};
use tokio::time::{Instant, sleep, timeout};
use watch::{Pids, Told, Watched};

/// Where everything is that a leg needs.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The broker that every runner gets.
    pub broker: &'a Broker,
    /// Our own connection to it.
    pub amqp: Amqp,
    /// Where programs are.
    pub programs: Programs,
    /// Where processes log to.
    pub logs: PathBuf,
}

/// What one runner did on one workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The runner's name.
    pub runner: String,
    /// By name, in the unit that [`unit()`] says. What a kind does not measure is absent.
    pub measures: BTreeMap<String, f64>,
    /// Messages that did not arrive, of those that were confirmed.
    pub lost: u64,
    /// Arrivals of messages that had arrived.
    pub duplicates: u64,
    /// Arrivals that were no whole message of this run.
    pub corrupt: u64,
    /// Messages that were in the queue again after the runner had ended: delivered, but not acknowledged.
    pub unsettled: u64,
}

/// The unit of a measure.
pub fn unit(measure: &str) -> &'static str {
    match measure {
        "cpu_per_message" | "broker_cpu_per_message" => "µs",
        "peak_rss" | "peak_anonymous" | "idle_rss" | "idle_anonymous" | "size" => "MB",
        // Of messages, or of requests.
        "throughput" | "wake_ups" => "1/s",
        _ => "ms",
    }
}

impl Sample {
    fn new(runner: &Runner, end: End, unsettled: u64) -> Self {
        let mut sample = Self {
            runner: runner.name.clone(),
            measures: BTreeMap::new(),
            lost: end.lost,
            duplicates: end.duplicates,
            corrupt: end.corrupt + end.foreign,
            unsettled,
        };
        for (name, latency) in [("latency_p50", end.p50_us), ("latency_p99", end.p99_us)] {
            if let Some(latency) = latency {
                sample.put(name, f64::from(latency) / 1000.0);
            }
        }
        sample
    }

    fn put(&mut self, measure: &str, value: f64) {
        self.measures.insert(measure.to_owned(), value);
    }

    /// Whether nothing was lost or changed, and no more was left unacknowledged than a runner may have in hand. It may
    /// have some: a quorum queue of RabbitMQ 3.10 under load forgets acknowledgements that came right before the
    /// connection's end, and delivers again, as it may. Duplicates are allowed by the guarantee, and reported.
    pub fn is_whole(&self, prefetch: u16) -> bool {
        self.lost == 0 && self.corrupt == 0 && self.unsettled <= prefetch.into()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of messages, KiB and bytes, far below 2^52"
)]
fn float(count: u64) -> f64 {
    count as f64
}

fn megabytes(kib: u64) -> f64 {
    float(kib) * 1024.0 / 1e6
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Runs one leg.
///
/// # Errors
/// When the runner is not installed, cannot be started or never consumes. A runner that loses messages is no error:
/// the sample says so.
pub async fn run(stage: &Stage<'_>, workload: &Workload, runner: &Runner) -> anyhow::Result<Sample> {
    // Before anything is started: a peer that is not installed costs nothing.
    runner.path(&stage.programs)?;
    let queue = unique("bench");
    publish::declare(&stage.amqp, &queue, workload.queue).await;
    let leg = Leg {
        stage,
        workload,
        runner,
        queue,
        listen: proxy::free_address()?,
    };
    let sample = match workload.kind {
        Kind::Drain => leg.drain().await,
        Kind::Steady => leg.steady().await,
        Kind::Footprint => leg.footprint().await,
        Kind::Recovery => leg.recovery().await,
        Kind::Size => leg.size(),
        Kind::Proxy => leg.proxy().await,
    };
    // Our sidecar makes these two; others leave no more than the queue. A broker that was drained a moment ago was seen to
    // fail at it (`INTERNAL_ERROR`, which costs the connection): a queue that stays is nobody's harm.
    let cleaning = stage.broker.amqp().await;
    for name in [&leg.queue, &format!("{}.dead", leg.queue)] {
        if cleaning.try_delete(name).await.is_err() {
            break;
        }
    }
    sample.with_context(|| format!("{} on {}", runner.name, workload.name))
}

struct Leg<'a> {
    stage: &'a Stage<'a>,
    workload: &'a Workload,
    runner: &'a Runner,
    queue: String,
    /// Where a proxy listens.
    listen: SocketAddr,
}

/// The sink of a leg, when the runner is none itself.
struct Sink {
    process: Running,
    told: Told,
    url: String,
}

impl Leg<'_> {
    async fn drain(&self) -> anyhow::Result<Sample> {
        self.fill().await;
        let sink = self.sink().await?;
        let (mut process, mut told) = self.start(sink, self.stage.broker.url())?;
        let watched = told.watch(self.pids(&process), self.patience(), None).await?;
        let end = self.finish(&mut process, told).await?;
        Ok(self.sample(end, &watched))
    }

    /// Whose cost is read.
    fn pids(&self, process: &Process) -> Pids {
        Pids {
            runner: process.runner.pid(),
            broker: self.stage.broker.pid(),
        }
    }

    /// Every message of the workload, in the queue, and the broker done with it.
    async fn fill(&self) {
        publish::fill(&self.stage.amqp, &self.queue, self.workload, self.runner.envelope).await;
        if let Some(broker) = self.stage.broker.pid() {
            quiet::until_quiet(broker, self.patience()).await;
        }
    }

    async fn steady(&self) -> anyhow::Result<Sample> {
        let sink = self.sink().await?;
        let (mut process, mut told) = self.start(sink, self.stage.broker.url())?;
        self.consumes(&mut process).await?;
        let publishing = publish::at_rate(
            self.stage.broker.url(),
            &self.queue,
            self.workload,
            self.runner.envelope,
        );
        let watching = told.watch(self.pids(&process), self.patience(), None);
        let (published, watched) = tokio::join!(publishing, watching);
        published?;
        let end = self.finish(&mut process, told).await?;
        let mut sample = self.sample(end, &watched?);
        // The rate is given, not reached.
        sample.measures.remove("throughput");
        Ok(sample)
    }

    /// Nothing is started.
    fn size(&self) -> anyhow::Result<Sample> {
        let path = self.runner.path(&self.stage.programs)?;
        let mut sample = Sample::new(self.runner, End::default(), 0);
        sample.put("size", float(fs::metadata(path)?.len()) / 1e6);
        Ok(sample)
    }

    /// From what was watched and told: rate, processor time, memory.
    fn sample(&self, (end, unsettled): (End, u64), watched: &Watched) -> Sample {
        let mut sample = Sample::new(self.runner, end, unsettled);
        if let (Some(warm), Some(all)) = (&watched.warm, &watched.all) {
            let messages = float(self.workload.messages - self.workload.warm_up);
            let seconds = all.at.saturating_sub(warm.at).as_secs_f64();
            let processor = all.spent.processor_since(&warm.spent);
            sample.put("throughput", messages / seconds.max(1e-9));
            sample.put("cpu_per_message", processor.as_secs_f64() * 1e6 / messages);
            let broker = all.broker.processor_since(&warm.broker);
            if self.workload.kind != Kind::Proxy && !broker.is_zero() {
                sample.put("broker_cpu_per_message", broker.as_secs_f64() * 1e6 / messages);
            }
        }
        sample.put("peak_rss", megabytes(watched.peak_rss));
        sample.put("peak_anonymous", megabytes(watched.peak_anonymous));
        if self.workload.kind == Kind::Drain {
            // The messages waited in the queue before: how long, says nothing of the runner.
            sample.measures.retain(|name, _| !name.starts_with("latency"));
        }
        sample
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.workload.patience_seconds.into())
    }

    async fn sink(&self) -> anyhow::Result<Option<Sink>> {
        if self.runner.is_sink {
            return Ok(None);
        }
        let mut command = Tether::Tied.command(&self.stage.programs.built("bench-sink"));
        let workload = self.workload;
        for (name, value) in [
            ("--messages", workload.messages),
            ("--warm-up", workload.warm_up),
            ("--body-bytes", u64::try_from(workload.body_bytes)?),
            ("--seed", workload.seed),
            ("--think-ms", workload.handler_ms),
        ] {
            command.arg(name).arg(value.to_string());
        }
        let mut process = Running::start(command, &self.stage.logs.join("sink.log"), true)?;
        let mut told = Told::of(&mut process)?;
        let ready = timeout(PATIENCE, told.next()).await;
        let Ok(Some(Line::Ready { url })) = ready else {
            bail!("the sink does not start: {}", process.log_tail());
        };
        Ok(Some(Sink { process, told, url }))
    }

    /// Starts the runner. What is told comes from the sink, or from a runner that is one.
    fn start(&self, sink: Option<Sink>, broker: &str) -> anyhow::Result<(Process, Told)> {
        let url = sink.as_ref().map(|sink| sink.url.clone()).unwrap_or_default();
        let mut runner = self.spawn(broker, &url)?;
        if let Some(sink) = sink {
            let sink_process = Some((sink.process, sink.url));
            return Ok((
                Process {
                    runner,
                    sink: sink_process,
                },
                sink.told,
            ));
        }
        let told = Told::of(&mut runner)?;
        Ok((Process { runner, sink: None }, told))
    }

    fn spawn(&self, broker: &str, sink: &str) -> anyhow::Result<Running> {
        let workload = self.workload;
        let values = [
            ("broker", broker.to_owned()),
            ("queue", self.queue.clone()),
            ("sink", sink.to_owned()),
            ("upstream", sink.trim_start_matches("http://").to_owned()),
            ("listen", self.listen.to_string()),
            ("prefetch", workload.prefetch.to_string()),
            ("in_flight", workload.in_flight.to_string()),
            ("messages", workload.messages.to_string()),
            ("warm_up", workload.warm_up.to_string()),
            ("body_bytes", workload.body_bytes.to_string()),
            ("seed", workload.seed.to_string()),
        ];
        let tether = if workload.kind == Kind::Footprint {
            Tether::Loose
        } else {
            Tether::Tied
        };
        let command = self.runner.command(&self.stage.programs, &values, tether)?;
        let log = self.stage.logs.join(format!("{}.log", self.runner.name));
        Running::start(command, &log, self.runner.is_sink)
    }

    /// Waits until the queue has a consumer.
    async fn consumes(&self, process: &mut Process) -> anyhow::Result<()> {
        let began = Instant::now();
        while self
            .stage
            .amqp
            .depth(&self.queue)
            .await
            .is_none_or(|(_, consumers)| consumers == 0)
        {
            ensure!(
                process.runner.ended()?.is_none() && began.elapsed() < PATIENCE,
                "it does not consume: {}",
                process.runner.log_tail()
            );
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Ends the runner, then asks what there is: what the ledger holds, and how many messages went back to the queue.
    async fn finish(&self, process: &mut Process, mut told: Told) -> anyhow::Result<(End, u64)> {
        process.runner.stop().await?;
        let unsettled = self.unsettled().await;
        if let Some((sink, _)) = &mut process.sink {
            sink.terminate()?;
        }
        let end = timeout(PATIENCE, told.end()).await.ok().flatten();
        let end = end.with_context(|| {
            format!(
                "the ledger's last line is missing; the runner's last lines are:\n{}",
                process.runner.log_tail()
            )
        })?;
        Ok((end, unsettled))
    }

    /// Messages in the queue once its consumers are gone.
    async fn unsettled(&self) -> u64 {
        let began = Instant::now();
        loop {
            let (ready, consumers) = self.stage.amqp.depth(&self.queue).await.unwrap_or_default();
            // The broker takes a moment to notice the end of a connection, a quorum queue one to count.
            let is_settled = consumers == 0 && (ready == 0 || began.elapsed() > Duration::from_secs(2));
            if is_settled || began.elapsed() > PATIENCE {
                return ready.into();
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The processes of a leg. Dropping them kills them.
struct Process {
    runner: Running,
    sink: Option<(Running, String)>,
}
