//! A publisher that goes on until the broker has confirmed every message, whatever is done to the broker meanwhile.

use crate::fate::hash_bytes;
use crate::lane::Setup;
use crate::worker_log::id;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How many messages are on their way before the oldest confirm is waited for.
const UNCONFIRMED: usize = 300;
/// A confirm that takes longer is given up with its connection.
const CONFIRM_PATIENCE: Duration = Duration::from_mins(1);
/// Between looks at what cannot be waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// How fast.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Over how long the messages are spread evenly; zero for as fast as possible.
    pub over: Duration,
    /// No more than so many are published and not settled.
    pub backlog: usize,
}

impl Pace {
    /// As fast as the broker takes them.
    pub const AT_ONCE: Self = Self {
        over: Duration::ZERO,
        backlog: usize::MAX,
    };
}

/// What was done so far; shared between the publisher and whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Messages that the broker confirmed.
    pub confirmed: AtomicUsize,
    /// Messages that were published once more because no confirm came: each may be there twice.
    pub sent_again: AtomicUsize,
    /// Messages that are settled, as the watcher says: more are published as this grows.
    pub settled: AtomicUsize,
}

/// Publishes messages of these numbers to `queue`, in order. Returns when all are confirmed.
pub async fn publish(
    url: String,
    queue: String,
    setup: Setup,
    numbers: Range<usize>,
    pace: Pace,
    progress: Arc<Progress>,
) {
    let begun = Instant::now();
    let mut todo: VecDeque<usize> = numbers.clone().collect();
    let mut unconfirmed = VecDeque::new();
    while !todo.is_empty() {
        if let Some(channel) = open(&url).await {
            let stream = Stream {
                channel: channel.1,
                queue: &queue,
                setup,
                progress: &progress,
            };
            // When it breaks off, what was not confirmed is published again.
            let _ended = stream
                .run(&mut todo, &mut unconfirmed, |number| {
                    due(begun, pace, &numbers, number)
                })
                .await;
            let again: Vec<usize> = unconfirmed.drain(..).collect();
            progress.sent_again.fetch_add(again.len(), Relaxed);
            for number in again.into_iter().rev() {
                todo.push_front(number);
            }
            // Its queue of confirms is settled or void.
            drop(stream);
            drop(channel.0);
        }
        if !todo.is_empty() {
            sleep(PAUSE).await;
        }
    }
}

/// When message `number` is due, and how many may be open then.
fn due(begun: Instant, pace: Pace, numbers: &Range<usize>, number: usize) -> (Instant, usize) {
    let share = u32::try_from(number - numbers.start).unwrap_or(u32::MAX);
    let all = u32::try_from(numbers.len()).unwrap_or(u32::MAX).max(1);
    (
        begun + pace.over.mul_f64(f64::from(share) / f64::from(all)),
        pace.backlog,
    )
}

async fn open(url: &str) -> Option<(Connection, Channel)> {
    let opening = async {
        let properties = ConnectionProperties::default().with_connection_name("publisher".into());
        let connection = Connection::connect(url, properties).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok::<_, lapin::Error>((connection, channel))
    };
    timeout(CONFIRM_PATIENCE, opening).await.ok()?.ok()
}

/// One connection's worth of publishing.
struct Stream<'a> {
    channel: Channel,
    queue: &'a str,
    setup: Setup,
    progress: &'a Progress,
}

/// The broker did not confirm; the connection is of no use any more.
struct Broken;

impl Stream<'_> {
    async fn run(
        &self,
        todo: &mut VecDeque<usize>,
        unconfirmed: &mut VecDeque<usize>,
        due: impl Fn(usize) -> (Instant, usize),
    ) -> Result<(), Broken> {
        let mut confirms = VecDeque::new();
        loop {
            let next = todo.front().copied();
            // Before a pause, everything is confirmed that was sent.
            let may_send = next.is_some_and(|number| self.may_send(due(number), confirms.len()));
            if confirms.len() >= UNCONFIRMED || (!may_send && !confirms.is_empty()) {
                let confirm = confirms.pop_front().ok_or(Broken)?;
                confirmed(confirm).await?;
                unconfirmed.pop_front();
                self.progress.confirmed.fetch_add(1, Relaxed);
            } else if may_send {
                let Some(number) = todo.pop_front() else { continue };
                unconfirmed.push_back(number);
                confirms.push_back(self.send(number).await?);
            } else if next.is_none() {
                return Ok(());
            } else {
                sleep(PAUSE).await;
            }
        }
    }

    fn may_send(&self, (at, backlog): (Instant, usize), unconfirmed: usize) -> bool {
        let open = self.progress.confirmed.load(Relaxed) + unconfirmed;
        let open = open.saturating_sub(self.progress.settled.load(Relaxed));
        Instant::now() >= at && open < backlog
    }

    async fn send(&self, number: usize) -> Result<lapin::PublisherConfirm, Broken> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let (body, properties) = message(self.setup, number);
        let sent = self
            .channel
            .basic_publish("".into(), self.queue.into(), options, &body, properties);
        timeout(CONFIRM_PATIENCE, sent)
            .await
            .map_err(|_elapsed| Broken)?
            .map_err(|_lost| Broken)
    }
}

/// Body and properties of a message: persistent, with its checksum.
fn message(setup: Setup, number: usize) -> (Vec<u8>, BasicProperties) {
    let id = id(number);
    let mut body = vec![0; setup.mix.body_bytes(setup.seed, &id)];
    let seed = setup.seed
        ^ u64::try_from(number)
            .unwrap_or(0)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    fastrand::Rng::with_seed(seed).fill(&mut body);
    let checksum = testkit::text(&hash_bytes(setup.seed, &body).to_string());
    let properties = BasicProperties::default()
        .with_message_id(id.into())
        .with_delivery_mode(2)
        .with_headers(testkit::table([("checksum", checksum)]));
    (body, properties)
}

async fn confirmed(confirm: lapin::PublisherConfirm) -> Result<(), Broken> {
    match timeout(CONFIRM_PATIENCE, confirm).await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        _ => Err(Broken),
    }
}
