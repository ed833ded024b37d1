//! Life of a delivery. Read this first.
//!
//! 1. **receive** (`broker/session.rs`): the broker hands over a delivery; it waits for a slot.
//! 2. **build** (`domain/request.rs`): the message becomes a `POST`.
//! 3. **dispatch** (`dispatch/client.rs`): the worker gets it; what happens on the wire is an outcome.
//! 4. **judge** (`domain/verdict.rs`): outcome and history become a verdict with a reason.
//! 5. **plan** (`domain/settlement.rs`): the verdict becomes broker actions.
//! 6. **settle** (`broker/copies.rs`, `broker/settler.rs`): a copy is confirmed first, then the original is
//!    acknowledged; or it is given back.
//!
//! | verdict | broker action | counted as |
//! |---|---|---|
//! | accepted | `basic.ack` | `accepted` |
//! | retry | confirmed copy to `<queue>.retry.<delay>`, then `basic.ack` | `retried` |
//! | dead letter | confirmed copy to the dead-letter queue, then `basic.ack` | `dead_lettered` |
//! | released | `basic.nack` with requeue | `released` |
//! | any, but the connection is gone | none: the broker delivers it again | `lost` |
//!
//! A delivery settles exactly once: the receipt is consumed by settling, and dropping it is counted.

use crate::broker::{Copies, Original, Receipt};
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::domain::delivery::Message;
use crate::domain::outcome::Outcome;
use crate::domain::request::{self, Target};
use crate::domain::settlement::{self, Settlement};
use crate::domain::verdict::{self, Circumstances, Verdict};
use crate::status::{Fate, Ledger, State};
use crate::telemetry;
use ops::shutdown::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// One message with everything that is needed to see it through.
#[derive(Debug)]
pub struct Delivery {
    /// What the worker sees.
    pub message: Message,
    /// What copies are made of.
    pub original: Original,
    /// The single right to settle it.
    pub receipt: Receipt,
    /// Where copies go, on the generation that it came from.
    pub copies: Arc<Copies>,
    /// Its share of the worker: one slot, or all of them for a suspect.
    pub slot: OwnedSemaphorePermit,
}

/// The path of every delivery, and the levers of intake.
#[derive(Debug)]
pub struct Pipeline {
    config: Config,
    target: Target,
    dispatcher: Dispatcher,
    ledger: Arc<Ledger>,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    intake: watch::Sender<bool>,
    shutdown: Shutdown,
}

impl Pipeline {
    /// A pipeline that nothing runs through yet.
    pub fn new(config: Config, ledger: Arc<Ledger>, shutdown: Shutdown) -> Self {
        Self {
            target: config.request_target(),
            dispatcher: Dispatcher::new(config.worker.clone(), config.timeout),
            ledger,
            slots: Arc::new(Semaphore::new(usize::from(config.concurrency))),
            tasks: TaskTracker::new(),
            intake: watch::Sender::new(true),
            shutdown,
            config,
        }
    }

    /// Sees a delivery through, on a task of its own.
    pub(crate) fn spawn(self: &Arc<Self>, delivery: Delivery) {
        let pipeline = Arc::clone(self);
        self.tasks.spawn(async move {
            // When the end is forced the delivery is dropped where it stands: its receipt counts it, and the broker
            // delivers it again.
            tokio::select! {
                biased;
                () = pipeline.shutdown.forced() => {}
                () = pipeline.handle(delivery) => {}
            }
        });
    }

    async fn handle(&self, delivery: Delivery) {
        let Delivery {
            message,
            original,
            receipt,
            copies,
            slot,
        } = delivery;
        let _in_flight = InFlight::begin(&self.ledger);
        let message_id = message
            .message_id
            .clone()
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());

        let now = ops::clock::since_epoch();
        let outcome = self.dispatch(&message, &message_id, now).await;
        let verdict = verdict::judge(&outcome.ended, self.circumstances(&message, &slot));
        telemetry::judged(&outcome.ended, &verdict, message.history.attempt(), outcome.took);
        let settlement = settlement::plan(&verdict, &outcome.ended, &message, &self.config.queue, now);

        settle(&settlement, &verdict, receipt, &copies, &original, &message_id).await;
    }

    /// `now` is when the attempt begins: the worker, the journal and a copy's first-seen stamp tell the same time.
    async fn dispatch(&self, message: &Message, message_id: &str, now: Duration) -> Dispatched {
        let begun = Instant::now();
        let request = request::build(message, message_id, &self.target, now);
        let ended = self.dispatcher.post(request, now).await;
        let took = begun.elapsed();
        if matches!(ended, Outcome::Answered(_)) {
            self.ledger.served(took);
        }
        Dispatched { ended, took }
    }

    fn circumstances<'a>(&self, message: &'a Message, slot: &OwnedSemaphorePermit) -> Circumstances<'a> {
        Circumstances {
            history: &message.history,
            max_attempts: self.config.max_attempts,
            backoff: self.config.retry,
            draining: self.is_intake_stopped(),
            alone: slot.num_permits() == usize::from(self.config.concurrency),
            draw: fastrand::f64(),
        }
    }

    /// Waits for a slot; a suspect waits until it can have the worker to itself, so that a crash tells who did it.
    pub(crate) async fn slot_for(&self, message: &Message) -> OwnedSemaphorePermit {
        let wanted = if message.history.is_suspect() {
            self.config.concurrency
        } else {
            1
        };
        let slots = Arc::clone(&self.slots);
        slots
            .acquire_many_owned(u32::from(wanted))
            .await
            .expect("invariant: nobody closes the semaphore")
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The state is this now.
    pub(crate) fn enter(&self, state: State) {
        if self.ledger.set_state(state) {
            telemetry::state_changed(&self.config.queue, state);
        }
    }

    /// Stops or resumes intake. Once the process drains, it stays stopped.
    pub(crate) fn set_intake(&self, open: bool) {
        self.intake.send_replace(open);
        self.ledger.set_intake_stopped(self.is_intake_stopped());
    }

    pub(crate) fn is_intake_stopped(&self) -> bool {
        !*self.intake.borrow() || self.shutdown.is_draining()
    }

    /// Waits until intake is stopped. Cancel safe.
    pub(crate) async fn intake_stopped(&self) {
        tokio::select! {
            () = self.shutdown.draining() => {}
            () = ops::watching::until(&self.intake, |open| !open) => {}
        }
        self.ledger.set_intake_stopped(true);
    }

    /// Waits until intake is open; for ever once the process drains. Cancel safe.
    pub(crate) async fn intake_resumed(&self) {
        ops::watching::until(&self.intake, |open| *open).await;
        if self.shutdown.is_draining() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until no delivery is with the worker or being settled. Cancel safe.
    pub(crate) async fn idle(&self) {
        let all = u32::from(self.config.concurrency);
        let _all_slots = self
            .slots
            .acquire_many(all)
            .await
            .expect("invariant: nobody closes the semaphore");
    }

    /// Waits until every delivery is settled and every acknowledgement written. Nothing may begin afterwards.
    pub(crate) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

struct Dispatched {
    ended: Outcome,
    took: Duration,
}

/// One exit: each settlement consumes the receipt, with the fate that is to be counted once it is written.
async fn settle(
    settlement: &Settlement,
    verdict: &Verdict,
    receipt: Receipt,
    copies: &Copies,
    original: &Original,
    message_id: &str,
) {
    let fate = Fate::from(verdict);
    match settlement {
        Settlement::Ack => receipt.ack(fate),
        Settlement::Release => receipt.release(fate),
        Settlement::CopyThenAck(copy) => match copies.publish(original, copy, message_id).await {
            Ok(()) => receipt.ack(fate),
            // Not confirmed: dropping the receipt counts it as lost, and the broker has it still.
            Err(_not_confirmed) => drop(receipt),
        },
    }
}

/// Counts a delivery as in flight for as long as it lives.
struct InFlight<'a> {
    ledger: &'a Ledger,
}

impl<'a> InFlight<'a> {
    fn begin(ledger: &'a Ledger) -> Self {
        ledger.begun();
        telemetry::begun();
        Self { ledger }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.ledger.ended(Instant::now().into_std());
        telemetry::ended();
    }
}
