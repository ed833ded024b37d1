//! A replay: the whole sidecar above its ports takes so many messages of 1 KiB from a broker in memory, posts each to a
//! worker in memory, 64 at once, and acknowledges them. One thread, a clock that stands still, no socket on the way: two
//! runs execute the same instructions but for a few. `tools/cost` counts them.
//!
//! ```text
//! cost 2000
//! cost 2000 without-metrics
//! {"acknowledgements":125,"messages":2000,"reads":2000,"writes":2000}
//! ```
//!
//! Below the ports, and so not in it: lapin and the kernel. How often the kernel would be called for the worker is told
//! (`reads` and `writes`), and how many acknowledgements are written.

mod broker;
mod worker;

use anyhow::{Context, bail, ensure};
use contract::settings;
use ops::shutdown::Shutdown;
use ops::telemetry::LogFormat;
use serde_json::json;
use sidecar::{App, Config, Drained, Ports, Worker};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Messages with the worker at once, as in the workloads of the bench.
const IN_FLIGHT: u16 = 64;

const USAGE: &str = "usage: cost MESSAGES [without-metrics]";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let messages = arguments.next().context(USAGE)?.parse().context(USAGE)?;
    let has_metrics = match arguments.next().as_deref() {
        None => true,
        Some("without-metrics") => false,
        Some(_) => bail!(USAGE),
    };
    // A level that is on, as in the program that is shipped.
    ops::telemetry::init(LogFormat::Text, "error").map_err(anyhow::Error::msg)?;
    // A clock that stands still makes nothing late, however slowly this is run.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    runtime.block_on(replay(messages, has_metrics))
}

async fn replay(messages: u32, has_metrics: bool) -> anyhow::Result<()> {
    // Without, every update goes nowhere: the difference is what metrics cost.
    let metrics = has_metrics.then(ops::metrics::install);
    let broker = Arc::new(broker::Broker::with(messages));
    let network = Arc::new(worker::Network::start());
    let ports = Ports {
        broker: Arc::clone(&broker) as _,
        network: Arc::clone(&network) as _,
    };
    let bound = App::bind_in(config()?, ports).await?;
    let (handle, shutdown) = (bound.handle(), Shutdown::new());
    let running = tokio::spawn(bound.run(shutdown.clone()));
    broker.until_all_acknowledged().await;
    shutdown.drain();
    let end = running.await?;
    // What happens every few seconds in the program that is shipped: samples are folded.
    if let Some(metrics) = metrics {
        metrics.run_upkeep();
    }

    let (counts, seen) = (handle.status().counts, network.seen());
    ensure!(end == Drained::Completely, "it ended as {end:?}");
    ensure!(counts.accepted == u64::from(messages), "the fates are {counts:?}");
    ensure!(seen.posts == messages, "the worker had {} messages", seen.posts);
    let told = json!({
        "messages": messages,
        "reads": seen.reads,
        "writes": seen.writes,
        "acknowledgements": broker.acknowledgements(),
    });
    println(&told.to_string());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn println(line: &str) {
    println!("{line}");
}

/// As in a pod: with an admin port, so with callbacks, and with what is remembered of messages.
fn config() -> anyhow::Result<Config> {
    let given = [
        ("queue", "orders".to_owned()),
        ("concurrency", IN_FLIGHT.to_string()),
    ];
    let flags = settings::Flags::new(given.map(|(name, value)| (name.to_owned(), value)));
    let settings = settings::parse(&flags).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let worker = Worker {
        host: "127.0.0.1".to_owned(),
        port: settings.port,
    };
    let config = Config::for_worker(&settings, worker, "cost".to_owned()).context("there is no queue")?;
    Ok(Config {
        admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        ..config
    })
}
