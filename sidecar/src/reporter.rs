//! What runs in place of the broker where there is no queue: the worker is called over HTTP only, and somebody must
//! still tell whether it is up and let it drain.

use crate::pipeline::Pipeline;
use crate::status::State;
use crate::telemetry;
use ops::shutdown::Shutdown;
use std::sync::Arc;

/// Watches the worker's port and the levers of intake; takes no message.
#[derive(Debug)]
pub struct Reporter {
    pipeline: Arc<Pipeline>,
    shutdown: Shutdown,
}

impl Reporter {
    /// A reporter that ends when `shutdown` drains.
    pub fn new(pipeline: Arc<Pipeline>, shutdown: Shutdown) -> Self {
        Self { pipeline, shutdown }
    }

    /// Runs until drained.
    pub async fn run(self) {
        telemetry::only_reports();
        loop {
            self.report().await;
            // Nothing is ever in flight here: to be drained takes no time.
            self.pipeline.enter(State::Draining);
            self.pipeline.enter(State::Drained);
            // Both are cancel safe.
            tokio::select! {
                biased;
                () = self.shutdown.draining() => return,
                () = self.pipeline.intake_resumed() => {}
            }
        }
    }

    /// Tells whether the worker's port answers, until intake is stopped.
    async fn report(&self) {
        let ledger = self.pipeline.ledger();
        let watching = async {
            loop {
                self.pipeline.enter(State::WaitingForWorker);
                self.pipeline.dispatcher().until_up().await;
                ledger.set_worker_up(true);
                self.pipeline.enter(State::Consuming);
                self.pipeline.dispatcher().until_silent().await;
                ledger.set_worker_up(false);
            }
        };
        // Both are cancel safe.
        tokio::select! {
            biased;
            () = self.pipeline.intake_stopped() => {}
            () = watching => {}
        }
    }
}
