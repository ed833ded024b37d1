//! Keeps the sidecar consuming for ever: generation after generation, session after session.
//!
//! One log line a change and not one a try, however long the broker is away.

use super::generation::Generation;
use super::session::{self, End};
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

/// A generation that lived for so long says that nothing is wrong with connecting.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Owns connecting and consuming.
#[derive(Debug)]
pub struct Supervisor {
    pipeline: Arc<Pipeline>,
    shutdown: Shutdown,
}

impl Supervisor {
    /// A supervisor that ends when `shutdown` drains.
    pub fn new(pipeline: Arc<Pipeline>, shutdown: Shutdown) -> Self {
        Self { pipeline, shutdown }
    }

    /// Runs until drained, or until forced.
    pub async fn run(self) {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut number = 0;
        // Dropping a connection attempt or a session that waits for the broker leaves nothing behind but what the
        // broker cleans up itself.
        while let Some(generation) = self.connect(&mut backoff).await {
            number += 1;
            self.pipeline.ledger().set_broker_connected(true);
            telemetry::connected(&self.pipeline.config().broker.to_string(), number);
            let begun = Instant::now();
            let cause = self.consume(&generation, &mut backoff).await;
            self.pipeline.ledger().set_broker_connected(false);
            let Some(cause) = cause else {
                generation.close().await;
                break;
            };
            telemetry::disconnected(&self.pipeline.config().broker.to_string(), &cause);
            self.enter(State::Connecting);
            if begun.elapsed() > HEALTHY_AFTER {
                backoff.reset();
            }
            self.pause(&mut backoff).await;
        }
        self.pipeline.finished().await;
        self.enter(State::Drained);
    }

    /// A generation, however long it takes; `None` when draining began first.
    async fn connect(&self, backoff: &mut Backoff) -> Option<Generation> {
        let config = self.pipeline.config();
        let mut said = String::new();
        loop {
            let opening = Generation::open(config);
            let error = tokio::select! {
                biased;
                () = self.shutdown.draining() => return None,
                opened = opening => match opened {
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
    async fn consume(&self, generation: &Generation, backoff: &mut Backoff) -> Option<String> {
        loop {
            if self.pipeline.is_intake_stopped() {
                if let Some(lost) = self.wait_while_stopped(generation).await {
                    return lost;
                }
                continue;
            }
            self.enter(State::WaitingForWorker);
            // All branches are cancel safe.
            tokio::select! {
                biased;
                () = self.pipeline.intake_stopped() => continue,
                cause = generation.lost() => return Some(cause),
                () = self.pipeline.dispatcher().until_up() => {}
            }
            self.pipeline.ledger().set_worker_up(true);
            self.enter(State::Consuming);
            match session::run(&self.pipeline, generation).await {
                Ok(End::IntakeStopped) => backoff.reset(),
                Ok(End::ConnectionLost(cause)) => return Some(cause),
                Ok(End::WorkerDown) => {
                    backoff.reset();
                    self.pipeline.ledger().set_worker_up(false);
                    telemetry::worker_gone(&self.pipeline.config().queue);
                }
                Ok(End::ConsumerEnded(cause)) => {
                    telemetry::consumer_ended(&self.pipeline.config().queue, &cause);
                    // The queue may be gone; making it again is what brings the publishers' messages back to it.
                    // One that cannot be made is reported when the connection is made anew.
                    if let Err(error) = generation.ensure_topology(self.pipeline.config()).await {
                        return Some(error.to_string());
                    }
                    self.pause(backoff).await;
                }
                Err(error) => return Some(error.to_string()),
            }
        }
    }

    /// Waits for the end of a drain or for the resumption of intake. `Some(None)` = drained for good.
    async fn wait_while_stopped(&self, generation: &Generation) -> Option<Option<String>> {
        self.enter(State::Draining);
        let finishing = async {
            self.pipeline.idle().await;
            self.enter(State::Drained);
            self.shutdown.draining().await;
        };
        tokio::select! {
            biased;
            cause = generation.lost() => Some(Some(cause)),
            () = self.pipeline.intake_resumed() => None,
            () = finishing => {
                // Nothing more begins: wait until what was settled is written.
                self.pipeline.finished().await;
                Some(None)
            }
        }
    }

    async fn pause(&self, backoff: &mut Backoff) {
        tokio::select! {
            () = self.shutdown.draining() => {}
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }

    fn enter(&self, state: State) {
        if self.pipeline.ledger().set_state(state) {
            telemetry::state_changed(&self.pipeline.config().queue, state);
        }
    }
}
