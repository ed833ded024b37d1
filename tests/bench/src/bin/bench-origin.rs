//! What is behind a proxy: answers each request with its number. Listens by itself, it is the runner `direct`.

use bench::consume::number;
use bench::serve;
use clap::{Arg, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = Command::new("bench-origin")
        .about("Answers each request with its number")
        .args(["listen", "body-bytes", "seed"].map(|name| Arg::new(name).long(name).required(true)))
        .get_matches();
    let listen = number(&matches, "listen")?;
    serve::origin(listen, number(&matches, "body-bytes")?, number(&matches, "seed")?).await
}
