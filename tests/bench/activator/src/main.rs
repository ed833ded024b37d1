//! The activator with one worker that is there: what of it lies between a caller and a warm worker. The program of a
//! cluster differs in where it learns endpoints from, which no request waits for.

use activator::{Activator, Broker, Config, Routing, TargetName, TargetState, Targets};
use anyhow::Context;
use clap::{Arg, Command};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// The one worker.
struct Warm {
    name: TargetName,
    state: watch::Sender<TargetState>,
}

impl Targets for Warm {
    fn watch(&self, target: &TargetName) -> Option<watch::Receiver<TargetState>> {
        (*target == self.name).then(|| self.state.subscribe())
    }

    fn wake(&self, _target: &TargetName) {}

    fn load_changed(&self, _target: &TargetName, _calls: u32) {}

    fn queue(&self, _target: &TargetName) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<TargetName> {
        vec![self.name.clone()]
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let matches = Command::new("bench-activator")
        .about("The activator with one worker that is there")
        .args(["listen", "upstream"].map(|name| Arg::new(name).long(name).required(true)))
        .get_matches();
    let address = |name: &str| -> anyhow::Result<SocketAddr> {
        let text = matches.get_one::<String>(name).map_or("", String::as_str);
        text.parse()
            .with_context(|| format!("--{name} is {text:?}, which is no address"))
    };
    let name = TargetName {
        namespace: "default".to_owned(),
        name: "warm".to_owned(),
    };
    let (state, _) = watch::channel(TargetState {
        endpoints: vec![address("upstream")?],
        trouble: None,
    });
    let config = Config::new(address("listen")?, Routing::Whole(name.clone()));
    // Never connected: there are no asynchronous calls.
    let url: contract::broker::BrokerUrl = "amqp://127.0.0.1".parse()?;
    let outbox = Arc::new(Broker::new(url, "bench"));
    // As in the activator's own program: metrics are counted.
    ops::metrics::install();
    let shutdown = ops::shutdown::Shutdown::new();
    ops::shutdown::on_signals(shutdown.clone())?;
    let bound = Activator::bind(config, Arc::new(Warm { name, state }), outbox).await?;
    bound.run(shutdown).await;
    Ok(())
}
