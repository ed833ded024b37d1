//! Keeps the sidecar consuming for ever: generation after generation, session after session.
//!
//! One log line a change and not one a try, however long the broker is away.

use super::generation::{Generation, KnownRisks};
use super::port::Broker;
use super::session::{self, End, Prepared, Session};
use crate::domain::budget::Budget;
use crate::pipeline::Pipeline;
use crate::status::State;
use crate::telemetry;
use ops::backoff::Backoff;
use ops::shutdown::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// A broker that comes back should not wait for us; full jitter halves this on average.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// A generation or a session that lived for so long says that nothing is wrong with beginning one.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How a stop of intake ended.
enum Stopped {
    Resumed,
    Lost(String),
    /// The process drains, and everything is settled.
    Finished,
}

/// Owns connecting and consuming.
#[derive(Debug)]
pub struct Supervisor {
    pipeline: Arc<Pipeline>,
    broker: Arc<dyn Broker>,
    shutdown: Shutdown,
    risks: KnownRisks,
}

impl Supervisor {
    /// A supervisor that ends when `shutdown` drains.
    pub fn new(pipeline: Arc<Pipeline>, broker: Arc<dyn Broker>, shutdown: Shutdown) -> Self {
        Self {
            pipeline,
            broker,
            shutdown,
            risks: KnownRisks::default(),
        }
    }

    /// Runs until drained, or until forced.
    pub async fn run(self) {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut budget = self.pipeline.config().budget();
        let mut number = 0;
        // Dropping a connection attempt or a session that waits for the broker leaves nothing behind but what the
        // broker cleans up itself.
        while let Some(generation) = self.connect(&mut backoff).await {
            number += 1;
            self.pipeline.ledger().set_broker_connected(true);
            let server = generation.server().cloned();
            telemetry::connected(
                &self.pipeline.config().broker.to_string(),
                server.as_ref(),
                number,
            );
            let begun = Instant::now();
            let cause = tokio::select! {
                biased;
                cause = self.consume(&generation, &mut backoff, &mut budget) => cause,
                never = generation.tell_what_is_mended(&self.pipeline.config().queue) => match never {},
            };
            self.pipeline.ledger().set_broker_connected(false);
            let Some(cause) = cause else {
                generation.close().await;
                break;
            };
            telemetry::disconnected(
                &self.pipeline.config().broker.to_string(),
                server.as_ref(),
                &cause,
            );
            self.pipeline.enter(State::Connecting);
            if begun.elapsed() > HEALTHY_AFTER {
                backoff.reset();
            }
            self.pause(&mut backoff).await;
        }
        self.pipeline.finished().await;
        self.pipeline.enter(State::Drained);
    }

    /// A generation, however long it takes; `None` when the process drained first.
    async fn connect(&self, backoff: &mut Backoff) -> Option<Generation> {
        let config = self.pipeline.config();
        let mut said = String::new();
        loop {
            if self.pipeline.is_intake_stopped() {
                match self.wait_while_stopped(std::future::pending()).await {
                    Stopped::Finished => return None,
                    Stopped::Resumed | Stopped::Lost(_) => self.pipeline.enter(State::Connecting),
                }
            }
            let error = tokio::select! {
                biased;
                () = self.pipeline.intake_stopped() => continue,
                opened = Generation::open(&*self.broker, config, &self.risks) => match opened {
                    Ok(generation) => return Some(generation),
                    Err(error) => error,
                },
            };
            let sentence = error.to_string();
            if sentence != said {
                telemetry::cannot_connect(&config.broker.to_string(), &sentence);
                said = sentence;
            }
            self.pause(backoff).await;
        }
    }

    /// Sessions on one generation; returns why it was lost, or `None` when drained.
    async fn consume(
        &self,
        generation: &Generation,
        backoff: &mut Backoff,
        budget: &mut Budget,
    ) -> Option<String> {
        let queue = &self.pipeline.config().queue;
        let mut is_queue_sure = true;
        loop {
            if self.pipeline.is_intake_stopped() {
                match self.wait_while_stopped(generation.lost()).await {
                    Stopped::Resumed => continue,
                    Stopped::Lost(cause) => return Some(cause),
                    Stopped::Finished => return None,
                }
            }
            self.pipeline.enter(State::WaitingForWorker);
            // All branches are cancel safe: a channel that is dropped closes.
            let prepared = tokio::select! {
                biased;
                () = self.pipeline.intake_stopped() => continue,
                cause = generation.lost() => return Some(cause),
                prepared = self.prepare(generation, budget.window()) => prepared,
            };
            self.pipeline.ledger().set_worker_up(true);
            let subscribing = self.subscribe(generation, prepared, backoff, (is_queue_sure, budget.window()));
            let Some(session) = subscribing.await else {
                continue;
            };
            self.pipeline.enter(State::Consuming);
            let begun = Instant::now();
            let end = session.run(&self.pipeline, generation, budget).await;
            if begun.elapsed() > HEALTHY_AFTER || end == End::IntakeStopped || end == End::WorkerDown {
                backoff.reset();
            }
            is_queue_sure = true;
            match end {
                End::IntakeStopped => {}
                End::ConnectionLost(cause) => return Some(cause),
                End::WorkerDown => {
                    self.pipeline.ledger().set_worker_up(false);
                    telemetry::worker_gone(queue);
                }
                End::ConsumerEnded(end, cause) => {
                    telemetry::consumer_ended(queue, end, &cause);
                    // It may be gone; making it again is what brings the publishers' messages back to it.
                    is_queue_sure = false;
                    self.pause(backoff).await;
                }
            }
        }
    }

    /// Waits for the worker's port; meanwhile everything of a session is made that takes no message, so that a worker
    /// waits for one exchange with the broker after its start. `None` when the broker refuses: subscribing tells why.
    async fn prepare(&self, generation: &Generation, prefetch: u16) -> Option<Prepared> {
        let (prepared, ()) = tokio::join!(
            session::prepare(generation, prefetch),
            self.pipeline.until_worker_ready()
        );
        prepared.ok()
    }

    /// A session, however long the broker refuses one: the right to read may be missing, or the queue be gone. The
    /// connection stays, for deliveries of earlier sessions settle on it. `None` when intake stops or it is lost.
    async fn subscribe(
        &self,
        generation: &Generation,
        mut prepared: Option<Prepared>,
        backoff: &mut Backoff,
        (is_queue_sure, prefetch): (bool, u16),
    ) -> Option<Session> {
        let config = self.pipeline.config();
        let mut said = String::new();
        let mut holding = None;
        while generation.is_open() && !self.pipeline.is_intake_stopped() {
            let opening = async {
                if !is_queue_sure || !said.is_empty() {
                    generation.ensure_topology(config, &self.risks).await?;
                }
                let prepared = match prepared.take() {
                    Some(prepared) => prepared,
                    None => session::prepare(generation, prefetch).await?,
                };
                prepared.subscribe(&self.pipeline).await
            };
            let sentence = match opening.await {
                Ok(session) => return Some(session),
                Err(error) => error.to_string(),
            };
            if generation.is_open() && sentence != said {
                let news = telemetry::cannot_subscribe(&config.queue, &sentence);
                let _before = holding.replace(news);
                // No fault of the worker: it stays ready.
                self.pipeline.enter(State::Connecting);
            }
            said = sentence;
            self.pause(backoff).await;
        }
        None
    }

    /// Waits until intake is resumed, or the process has drained, or `lost` tells the end of a connection.
    async fn wait_while_stopped(&self, lost: impl Future<Output = String>) -> Stopped {
        self.pipeline.enter(State::Draining);
        let finishing = async {
            self.pipeline.idle().await;
            self.pipeline.enter(State::Drained);
            self.shutdown.draining().await;
            // Nothing more begins: wait until what was settled is written.
            self.pipeline.finished().await;
        };
        // All are cancel safe.
        tokio::select! {
            biased;
            cause = lost => Stopped::Lost(cause),
            () = self.pipeline.intake_resumed() => Stopped::Resumed,
            () = finishing => Stopped::Finished,
        }
    }

    async fn pause(&self, backoff: &mut Backoff) {
        tokio::select! {
            biased;
            () = self.pipeline.intake_stopped() => {}
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}
