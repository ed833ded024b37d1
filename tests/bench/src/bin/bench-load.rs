//! The load on a proxy, as its own process: what it spends is not the proxy's.

use bench::consume::number;
use bench::load::{Load, run};
use clap::{Arg, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = Command::new("bench-load")
        .about("Sends requests in a closed loop and checks every answer")
        .args(
            [
                "address",
                "requests",
                "warm-up",
                "connections",
                "body-bytes",
                "seed",
            ]
            .map(|name| Arg::new(name).long(name).required(true)),
        )
        .get_matches();
    run(Load {
        address: number(&matches, "address")?,
        requests: number(&matches, "requests")?,
        warm_up: number(&matches, "warm-up")?,
        connections: number(&matches, "connections")?,
        body_bytes: number(&matches, "body-bytes")?,
        seed: number(&matches, "seed")?,
    })
    .await
}
