//! Queue depths by passive `queue.declare`: needs only a login, no management plugin, and is never stale.
//!
//! All queues are asked at once on one channel, which the broker answers in order. A queue that is missing closes
//! the channel (404), so what was asked behind it is asked again on a new one. Queues that made trouble go last, and
//! are left alone for a while: every refusal is an error in the broker's log.
//!
//! Source: AMQP 0-9-1 reference, `queue.declare` (passive); measured on RabbitMQ 3.10: 0.06–0.09 ms a queue.

mod batch;

use crate::domain::{Depth, QueueName, SampleError};
use crate::source::DepthSource;
use crate::source::link::Link;
use crate::telemetry;
use amqp::topology::{QueuePlan, ensure_queue};
use batch::{Batch, Before};
use contract::broker::BrokerUrl;
use futures_util::future::maybe_done;
use futures_util::poll;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The longest a batch may take, the wait for the first connection included.
const SAMPLE_TIMEOUT: Duration = Duration::from_millis(1500);
/// After a batch that took too long: the longest that opening a channel may take before the connection is given up.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest that making a queue and its dead-letter queue may take.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a queue that made trouble is left alone.
const RECHECK: Duration = Duration::from_secs(2);

/// Asks one broker on one connection of its own.
#[derive(Debug)]
pub struct PassiveDeclare {
    link: Link,
    open: Option<OpenChannel>,
    troubled: HashMap<QueueName, Trouble>,
}

struct OpenChannel {
    channel: Channel,
    /// The connection that it belongs to: it is of no use on another.
    connection: Arc<amqp::Connection>,
}

impl fmt::Debug for OpenChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenChannel").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Trouble {
    at: Instant,
    error: SampleError,
}

/// Why the questions on a channel ended before all were answered.
enum Stopped {
    /// The broker said no, or the channel or the connection is gone.
    Refused(amqp::Error),
    /// No answer came in time.
    Silent,
}

impl PassiveDeclare {
    /// Begins to connect in the background; `name` is how the broker's tools show the connection. Must be called
    /// inside a tokio runtime.
    pub fn new(broker: BrokerUrl, name: impl Into<String>) -> Self {
        Self {
            link: Link::open(broker, name.into()),
            open: None,
            troubled: HashMap::new(),
        }
    }

    /// Asks until every queue is answered; an error is why the rest of the batch cannot be.
    async fn ask(&mut self, batch: &mut Batch<'_>, deadline: Instant) -> Result<(), SampleError> {
        let connection = self
            .link
            .connection(deadline)
            .await
            .map_err(SampleError::BrokerUnreachable)?;
        let mut is_second_try = false;
        while batch.first().is_some() {
            let channel = self.channel(&connection, deadline).await?;
            let Err(stopped) = self.ask_on(&channel, batch, deadline).await else {
                return Ok(());
            };
            self.open = None;
            let Stopped::Refused(error) = stopped else {
                return self.after_silence(&connection, batch).await;
            };
            if !connection.is_open() {
                return Err(unreachable(&error));
            }
            if let Some(blamed) = batch.first().and_then(|queue| blame(queue, &error)) {
                is_second_try = false;
                self.remember(&blamed);
                batch.answer(Err(blamed));
            } else if is_second_try {
                return Err(unreachable(&error));
            } else {
                // The channel was closed under our feet: once, a new one may do.
                is_second_try = true;
            }
        }
        Ok(())
    }

    /// Sends every question before it waits for the first answer.
    async fn ask_on(
        &mut self,
        channel: &Channel,
        batch: &mut Batch<'_>,
        deadline: Instant,
    ) -> Result<(), Stopped> {
        let mut answers = Vec::new();
        for queue in batch.rest() {
            let mut answer = Box::pin(maybe_done(declare(channel, queue)));
            // The first poll writes the question; the answer is taken below.
            let _sent = poll!(answer.as_mut());
            answers.push((queue, answer));
        }
        for (queue, mut answer) in answers {
            timeout_at(deadline, answer.as_mut())
                .await
                .map_err(|_elapsed| Stopped::Silent)?;
            let answer = answer
                .as_mut()
                .take_output()
                .expect("invariant: it was awaited and is taken once");
            let depth = answer.map_err(Stopped::Refused)?;
            self.troubled.remove(queue);
            batch.answer(Ok(depth));
        }
        Ok(())
    }

    /// Nothing came in time. Either one queue has no leader, or the connection is dead: a channel tells.
    async fn after_silence(
        &mut self,
        connection: &Arc<amqp::Connection>,
        batch: &mut Batch<'_>,
    ) -> Result<(), SampleError> {
        self.channel(connection, Instant::now() + PROBE_TIMEOUT).await?;
        // The broker lives, so the first queue is the silent one. The others go before it the next time.
        let timed_out = |queue: &QueueName| SampleError::TimedOut {
            queue: queue.clone(),
            within: SAMPLE_TIMEOUT,
        };
        if let Some(silent) = batch.first() {
            self.remember(&timed_out(silent));
        }
        batch.give_up(timed_out);
        Ok(())
    }

    /// The channel for questions, opened when there is none.
    async fn channel(
        &mut self,
        connection: &Arc<amqp::Connection>,
        deadline: Instant,
    ) -> Result<Channel, SampleError> {
        if let Some(open) = &self.open
            && Arc::ptr_eq(&open.connection, connection)
            && open.channel.status().connected()
        {
            return Ok(open.channel.clone());
        }
        self.open = None;
        let Ok(opened) = timeout_at(deadline, connection.create_channel()).await else {
            self.link.mistrust();
            return Err(SampleError::BrokerUnreachable(
                "the broker no longer answers".to_owned(),
            ));
        };
        let channel = opened.map_err(|error| unreachable(&error))?;
        self.open = Some(OpenChannel {
            channel: channel.clone(),
            connection: Arc::clone(connection),
        });
        Ok(channel)
    }

    fn before(&self, queue: &QueueName) -> Before {
        match self.troubled.get(queue) {
            None => Before::Nothing,
            Some(trouble) if trouble.at.elapsed() >= RECHECK => Before::Trouble,
            Some(trouble) => Before::TroubleJustNow(trouble.error.clone()),
        }
    }

    fn remember(&mut self, error: &SampleError) {
        let queue = match error {
            SampleError::QueueMissing(queue)
            | SampleError::Refused { queue, .. }
            | SampleError::TimedOut { queue, .. } => queue,
            SampleError::BrokerUnreachable(_) => return,
        };
        self.troubled.insert(
            queue.clone(),
            Trouble {
                at: Instant::now(),
                error: error.clone(),
            },
        );
    }
}

impl DepthSource for PassiveDeclare {
    fn name(&self) -> &'static str {
        "passive_declare"
    }

    async fn sample(&mut self, queues: &[QueueName]) -> Vec<Result<Depth, SampleError>> {
        // What is still asked for is remembered anew at every recheck; the rest is no longer asked for.
        self.troubled
            .retain(|_, trouble| trouble.at.elapsed() < RECHECK * 10);
        let mut batch = Batch::new(queues, |queue| self.before(queue));
        if let Err(error) = self.ask(&mut batch, Instant::now() + SAMPLE_TIMEOUT).await {
            batch.give_up(|_| error.clone());
        }
        batch.into_results()
    }

    async fn ensure(&mut self, queue: &QueueName, dead_letter: &str) -> Result<(), SampleError> {
        let deadline = Instant::now() + ENSURE_TIMEOUT;
        let connection = self
            .link
            .connection(deadline)
            .await
            .map_err(SampleError::BrokerUnreachable)?;
        // The dead-letter queue first: no message may be given up to a queue that is not there.
        for plan in [
            QueuePlan::dead_letter(dead_letter),
            QueuePlan::worker(queue.as_str(), dead_letter),
        ] {
            let ensured = timeout_at(deadline, ensure_queue(&connection, &plan)).await;
            match ensured {
                Ok(Ok(ensured)) => telemetry::queue_ensured(plan.name(), &ensured),
                Ok(Err(error)) if connection.is_open() => {
                    return Err(SampleError::Refused {
                        queue: QueueName::new(plan.name()),
                        cause: error.to_string(),
                    });
                }
                Ok(Err(error)) => return Err(unreachable(&error)),
                Err(_elapsed) => {
                    let queue = QueueName::new(plan.name());
                    return Err(SampleError::TimedOut {
                        queue,
                        within: ENSURE_TIMEOUT,
                    });
                }
            }
        }
        // What was missing is there now.
        self.troubled.remove(queue);
        Ok(())
    }

    async fn close(self) {
        drop(self.open);
        self.link.close().await;
    }
}

async fn declare(channel: &Channel, queue: &QueueName) -> Result<Depth, amqp::Error> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(queue.as_str().into(), options, FieldTable::default())
        .await?;
    Ok(Depth {
        ready: queue.message_count().into(),
        consumers: queue.consumer_count(),
    })
}

/// What a refusal says of the queue; `None` when it is not about the queue.
fn blame(queue: &QueueName, error: &amqp::Error) -> Option<SampleError> {
    match error {
        amqp::Error::NotFound(_) => Some(SampleError::QueueMissing(queue.clone())),
        amqp::Error::AccessRefused(_)
        | amqp::Error::Locked(_)
        | amqp::Error::Precondition(_)
        | amqp::Error::Protocol(_) => Some(SampleError::Refused {
            queue: queue.clone(),
            cause: error.to_string(),
        }),
        amqp::Error::Unreachable(_) | amqp::Error::TimedOut { .. } | amqp::Error::Tls(_) => None,
    }
}

fn unreachable(error: &amqp::Error) -> SampleError {
    SampleError::BrokerUnreachable(error.to_string())
}
