//! The figures of the README: how long 0 → 1 takes, and what an idle sidecar costs. Prints them; asserts nothing about
//! time, because machines differ.
//!
//! `figures [RUNS]`, 50 by default. Build with `--release` for figures worth quoting; `make figures` does.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "figures are printed, and stamped by the wall clock"
)]

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use suite::programs;
use testkit::process::Process;
use testkit::{Amqp, Broker, http, unique};
use tokio::time::{Instant, sleep};

const RUNS: usize = 50;
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let runs = std::env::args()
        .nth(1)
        .map_or(Ok(RUNS), |runs| runs.parse())
        .context("RUNS is a number")?;
    let broker = Broker::try_start("").await?;
    println!("zero to one, {runs} runs each, in milliseconds; the worker needs 0 ms to start");
    let worker = Worker::start(broker.url()).await?;
    let amqp = broker.amqp().await;
    show(
        "publish -> request at the worker",
        &worker.wake_by_message(&amqp, runs).await?,
    );
    let (arrivals, answers) = worker.wake_by_call(runs).await?;
    show("HTTP call -> request at the worker", &arrivals);
    show("HTTP call -> answer", &answers);
    worker.stop().await?;
    idle_sidecar(&broker).await
}

fn show(what: &str, sample: &[Duration]) {
    let mut sorted: Vec<f64> = sample
        .iter()
        .map(|duration| duration.as_secs_f64() * 1000.0)
        .collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| sorted[(sorted.len() - 1) * share / 100];
    println!(
        "{what:<36} min {:>6.1}  p50 {:>6.1}  p90 {:>6.1}  p99 {:>6.1}  max {:>6.1}",
        at(0),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// `kubedaemon run` with a worker that writes down when a request arrives.
struct Worker {
    kubedaemon: Process,
    admin: String,
    url: String,
    queue: String,
    log: PathBuf,
}

impl Worker {
    async fn start(broker: &str) -> anyhow::Result<Self> {
        let (queue, port, admin) = (unique("figures"), programs::free_port(), programs::free_port());
        let log = std::env::temp_dir().join(format!("{queue}.log"));
        fs::File::create(&log)?;
        let mut command = programs::command("kubedaemon");
        command.args([
            "run",
            "--queue",
            &queue,
            "--port",
            &port.to_string(),
            "--admin",
            &format!("127.0.0.1:{admin}"),
        ]);
        command
            .args(["--cool-down", "0s", "--broker", broker, "--"])
            .arg(programs::program("test-worker"));
        command.env("WORKER_LOG", &log);
        let worker = Self {
            kubedaemon: Process::start(command),
            admin: format!("http://127.0.0.1:{admin}/status"),
            url: format!("http://127.0.0.1:{port}/"),
            queue,
            log,
        };
        worker.until_zero().await?;
        Ok(worker)
    }

    /// At zero, and the queue has been seen.
    async fn until_zero(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(response) = http::get(&self.admin).await {
                let status: Value = serde_json::from_str(&response.text())?;
                let worker = &status["workers"][0];
                if worker["state"] == "zero" && worker["waiting"].is_u64() {
                    return Ok(());
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("the worker does not go to zero: {:#?}", self.kubedaemon.lines())
    }

    async fn wake_by_message(&self, amqp: &Amqp, runs: usize) -> anyhow::Result<Vec<Duration>> {
        let mut sample = Vec::new();
        for _ in 0..runs {
            self.until_zero().await?;
            // Anywhere between two looks at the queue.
            sleep(Duration::from_millis(fastrand::u64(0..300))).await;
            let published = since_epoch();
            amqp.publish(&self.queue, "wake up", lapin::BasicProperties::default())
                .await;
            sample.push(self.arrival_after(published).await?);
        }
        Ok(sample)
    }

    async fn wake_by_call(&self, runs: usize) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
        let (mut arrivals, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            self.until_zero().await?;
            let called = since_epoch();
            let response = http::get(&self.url).await?;
            answers.push(since_epoch().saturating_sub(called));
            anyhow::ensure!(response.status == 200, "answered {}", response.status);
            arrivals.push(self.arrival_after(called).await?);
        }
        Ok((arrivals, answers))
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.kubedaemon.signal(Signal::INT);
        self.kubedaemon.wait().await;
        Ok(fs::remove_file(&self.log)?)
    }

    /// How long after `begun` the worker noted the next request.
    async fn arrival_after(&self, begun: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let log = fs::read_to_string(&self.log)?;
            let last = log
                .lines()
                .next_back()
                .and_then(|line| line.rsplit(' ').next()?.parse().ok());
            if let Some(arrival) = last.map(Duration::from_nanos).filter(|arrival| *arrival > begun) {
                return Ok(arrival.saturating_sub(begun));
            }
            sleep(Duration::from_millis(2)).await;
        }
        bail!("no request arrived: {:#?}", self.kubedaemon.lines())
    }
}

/// Connected, consuming, nothing to do.
async fn idle_sidecar(broker: &Broker) -> anyhow::Result<()> {
    let listener = testkit::worker::Worker::start(|_| 200).await;
    let (queue, admin) = (unique("idle"), programs::free_port());
    let mut command = programs::command("sidecar");
    command.args([
        "--queue",
        &queue,
        "--broker",
        broker.url(),
        "--target",
        &listener.url(),
    ]);
    command.args(["--admin", &format!("127.0.0.1:{admin}")]);
    let sidecar = Process::start(command);
    sidecar.wait_for_line("consuming").await;
    // Two seconds without work, so that what start-up took and gave back is settled.
    sleep(Duration::from_secs(2)).await;
    let memory = |field| sidecar.memory_kib(field).context("the sidecar runs");
    let mebibytes = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
    println!(
        "idle sidecar: RSS {}, of which anonymous {}; binary {}",
        mebibytes(memory("VmRSS")? * 1024),
        mebibytes(memory("RssAnon")? * 1024),
        mebibytes(fs::metadata(programs::program("sidecar"))?.len()),
    );
    Ok(())
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
