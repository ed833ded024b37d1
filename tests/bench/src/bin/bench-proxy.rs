//! A reverse proxy as one writes it in an afternoon: hyper's server, hyper-util's client.

use bench::consume::number;
use bench::serve;
use clap::{Arg, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = Command::new("bench-proxy")
        .about("Passes requests on")
        .args(["listen", "upstream"].map(|name| Arg::new(name).long(name).required(true)))
        .get_matches();
    let upstream: String = number(&matches, "upstream")?;
    serve::proxy(number(&matches, "listen")?, upstream).await
}
