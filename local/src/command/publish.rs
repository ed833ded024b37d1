//! `kubedaemon publish`: puts messages into a queue and waits until the broker has them.

use super::{Refusal, own};
use amqp::{PublishError, Publisher};
use clap::{Arg, ArgAction, ArgMatches, Command};
use contract::broker::BrokerUrl;
use contract::settings::{BROKER, QUEUE, VHOST};
use futures_util::{StreamExt, TryStreamExt, stream};
use lapin::BasicProperties;
use ops::backoff::Backoff;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Messages on their way at once: enough to keep a broker busy over its disk writes.
const IN_FLIGHT: usize = 128;
/// AMQP 0-9-1 `delivery-mode` of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;
/// How long a queue may refuse before that is the answer.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(super) fn command() -> Command {
    Command::new("publish")
        .about("Publishes messages to a queue and waits until the broker has confirmed each")
        .long_about(
            "Publishes messages to a queue, waits until the broker has confirmed each, and prints their ids.\n\n\
             Each --file is one message; without one, standard input is. The queue must exist: \
             kubedaemon run --queue makes it.",
        )
        .after_help("Example: echo '{\"order\": 1}' | kubedaemon publish --queue orders --content-type application/json")
        .args(cli::setting_args([&QUEUE, &BROKER, &VHOST]))
        .mut_arg(QUEUE.name, |arg| {
            arg.help(format!("The queue to publish to: {} [env: {}]", QUEUE.accepted(), QUEUE.env()))
        })
        .arg(
            own("file", "FILE", "A file that is one message; may be repeated", None)
                .num_args(1..)
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("lines")
                .long("lines")
                .help("Make a message of every line, not of every file")
                .action(ArgAction::SetTrue),
        )
        .arg(own("content-type", "TYPE", "The messages' content type, such as application/json", None))
}

/// What is to be published, and where.
pub(super) struct Publish {
    broker: BrokerUrl,
    queue: String,
    files: Vec<PathBuf>,
    each_line: bool,
    content_type: Option<String>,
}

pub(super) fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Publish, Refusal> {
    let wanted = [QUEUE.env(), BROKER.env(), VHOST.env()];
    let variables: Vec<_> = environment
        .iter()
        .filter(|(name, _)| wanted.contains(name))
        .cloned()
        .collect();
    let settings = cli::read_settings(matches, &variables).map_err(|problems| problems.to_string())?;
    let content_type = matches.get_one::<String>("content-type").cloned();
    // AMQP 0-9-1 short strings have at most 255 bytes.
    if let Some(wrong) = content_type
        .as_deref()
        .filter(|text| text.is_empty() || text.len() > 255)
    {
        return Err(format!(
            "--content-type is {wrong:?}, which is no content type: write 1 to 255 bytes such as application/json"
        ));
    }
    Ok(Publish {
        broker: settings.broker,
        queue: settings
            .queue
            .ok_or("--queue is missing: write the name of the queue to publish to")?,
        files: matches
            .get_many::<PathBuf>("file")
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        each_line: matches.get_flag("lines"),
        content_type,
    })
}

impl Publish {
    /// Publishes everything and prints the ids in order, each when its message is confirmed.
    ///
    /// # Errors
    /// A sentence; what was printed before is with the broker all the same.
    pub(super) async fn run(self) -> Result<(), String> {
        let messages = self.messages()?;
        let connection = amqp::connect(&self.broker, "kubedaemon publish").await;
        let connection = Arc::new(connection.map_err(|error| format!("{}: {error}", self.broker))?);
        let publisher = Publisher::open(Arc::clone(&connection))
            .await
            .map_err(|error| error.to_string())?;
        let confirmed = stream::iter(messages)
            .map(|body| self.publish(&publisher, body))
            .buffered(IN_FLIGHT);
        let printed = confirmed.try_for_each(|id| std::future::ready(print(&id))).await;
        connection.close().await;
        printed
    }

    fn messages(&self) -> Result<Vec<Vec<u8>>, String> {
        let mut inputs = Vec::new();
        for file in &self.files {
            inputs.push(
                std::fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?,
            );
        }
        if self.files.is_empty() {
            inputs.push(standard_input().map_err(|error| format!("standard input cannot be read: {error}"))?);
        }
        if !self.each_line {
            return Ok(inputs);
        }
        Ok(inputs.iter().flat_map(|input| lines(input)).collect())
    }

    async fn publish(&self, publisher: &Publisher, body: Vec<u8>) -> Result<String, String> {
        let id = uuid::Uuid::new_v4().to_string();
        let mut properties = BasicProperties::default()
            .with_message_id(id.as_str().into())
            .with_delivery_mode(PERSISTENT)
            .with_timestamp(ops::clock::since_epoch().as_secs());
        if let Some(content_type) = &self.content_type {
            properties = properties.with_content_type(content_type.as_str().into());
        }
        match self.publish_patiently(publisher, properties, &body).await {
            Ok(()) => Ok(id),
            Err(PublishError::Unroutable { .. }) => Err(format!(
                "there is no queue {:?} on {}: kubedaemon run --queue {} makes it, or check name and vhost",
                self.queue, self.broker, self.queue
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A refusal is certain: the message is not there and can be published again. A quorum queue refuses for a moment
    /// after it was made, until it has a leader, and while it is full.
    async fn publish_patiently(
        &self,
        publisher: &Publisher,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let began = Instant::now();
        loop {
            let published = publisher
                .publish_once_there(&self.queue, properties.clone(), body)
                .await;
            let is_refused = matches!(published, Err(PublishError::Refused { .. }));
            if !is_refused || began.elapsed() > REFUSAL_PATIENCE {
                return published;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// Each line without its line feed; the last may lack one.
fn lines(input: &[u8]) -> Vec<Vec<u8>> {
    let input = input.strip_suffix(b"\n").unwrap_or(input);
    if input.is_empty() {
        Vec::new()
    } else {
        input.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }
}

#[expect(clippy::print_stderr, reason = "a hint for whoever sits at the terminal")]
fn standard_input() -> io::Result<Vec<u8>> {
    let mut input = io::stdin().lock();
    if input.is_terminal() {
        eprintln!("type the message, then Ctrl-D");
    }
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn print(id: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{id}").map_err(|error| format!("standard output cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_message() {
        for (input, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\n\nb\n", &["a", "", "b"]),
            ("\n", &[]),
        ] {
            let lines: Vec<_> = lines(input.as_bytes())
                .into_iter()
                .map(|line| String::from_utf8(line).unwrap())
                .collect();
            assert_eq!(lines, expected, "{input:?}");
        }
    }
}
