//! The sink: the HTTP worker that every runner posts to. Tells the bench what arrived.

use bench::ledger::Expected;
use bench::{consume::number, serve};
use clap::{Arg, Command};
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = Command::new("bench-sink")
        .about("Takes messages over HTTP and writes down which")
        .args(
            ["messages", "warm-up", "body-bytes", "seed", "think-ms"]
                .map(|name| Arg::new(name).long(name).required(true)),
        )
        .get_matches();
    let expected = Expected {
        messages: number(&matches, "messages")?,
        warm_up: number(&matches, "warm-up")?,
        body_bytes: number(&matches, "body-bytes")?,
        seed: number(&matches, "seed")?,
    };
    serve::sink(expected, Duration::from_millis(number(&matches, "think-ms")?)).await
}
