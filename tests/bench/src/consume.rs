//! What the small runners of the bench share: arguments, a channel with prefetch, a consumer.

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Consumer};

/// The arguments of a runner: `--broker URL --queue NAME --prefetch N`.
pub fn command(name: &'static str, about: &'static str) -> Command {
    let needed = |name: &'static str| Arg::new(name).long(name).required(true);
    Command::new(name)
        .about(about)
        .args([needed("broker"), needed("queue"), needed("prefetch")])
}

/// A number among the arguments.
///
/// # Errors
/// When it is none.
pub fn number<N: std::str::FromStr>(matches: &ArgMatches, name: &str) -> anyhow::Result<N> {
    let text = matches
        .get_one::<String>(name)
        .with_context(|| format!("--{name} is missing"))?;
    text.parse()
        .ok()
        .with_context(|| format!("--{name} is {text:?}, which is no such number"))
}

/// An open subscription. All three live as long as it is consumed.
#[derive(Debug)]
pub struct Subscription {
    /// The connection, to be closed at the end.
    pub connection: Connection,
    /// The channel to acknowledge on.
    pub channel: Channel,
    /// The deliveries.
    pub consumer: Consumer,
}

/// Connects and subscribes as the arguments of [`command`] say, with manual acknowledgement.
///
/// # Errors
/// When the broker cannot be reached or refuses.
pub async fn subscribe(matches: &ArgMatches) -> anyhow::Result<Subscription> {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let connection = Connection::connect(&text("broker"), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let prefetch = number(matches, "prefetch")?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let queue = text("queue");
    let consumer = channel
        .basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(Subscription {
        connection,
        channel,
        consumer,
    })
}
