//! Life of a delivery. Read this first.
//!
//! 1. **receive** (`broker/session.rs`): the broker hands over a delivery; it waits for a slot.
//! 2. **build** (`domain/request.rs`): the message becomes a `POST`.
//! 3. **dispatch** (`dispatch/client.rs`): the worker gets it; what happens on the wire is an outcome. A worker that
//!    defers tells the outcome later (`callbacks.rs`).
//! 4. **judge** (`domain/verdict.rs`): outcome and history become a verdict with a reason.
//! 5. **plan** (`domain/settlement.rs`): the verdict becomes broker actions.
//! 6. **settle** (`broker/copies.rs`, `broker/replies.rs`, `broker/settler.rs`): what is published for it is confirmed
//!    first, then the original is acknowledged; or it is given back.
//!
//! | verdict | broker action | counted as |
//! |---|---|---|
//! | accepted | confirmed reply if somebody wants one, then `basic.ack` | `accepted` |
//! | retry | confirmed copy to `<queue>.retry.<delay>`, then `basic.ack` | `retried` |
//! | dead letter | confirmed copy to the dead-letter queue, word to a caller who waits, then `basic.ack` | `dead_lettered` |
//! | released | `basic.nack` with requeue | `released` |
//! | any, but the connection is gone | none: the broker delivers it again | `lost` |
//!
//! A delivery settles exactly once: the receipt is consumed by settling, and dropping it is counted.

mod attempt;
mod ids;
mod introduction;
mod lanes;

use crate::broker::{Copies, Original, Receipt, Stalls};
use crate::callbacks::{Callbacks, Settled};
use crate::completions::Completions;
use crate::config::Config;
use crate::dispatch::{Dispatcher, Network, Post};
use crate::domain::delivery::Message;
use crate::domain::reply::Address;
use crate::domain::request::{self, Target};
use crate::domain::settlement::{self, Case, Settlement};
use crate::domain::verdict::{self, Circumstances, Reason, Verdict};
use crate::status::{Fate, Ledger, State};
use crate::telemetry;
use lanes::Lanes;
use ops::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// A message as it was delivered.
#[derive(Debug)]
pub struct Content {
    /// What the worker sees.
    pub message: Message,
    /// What copies are made of.
    pub original: Original,
}

/// One message with everything that is needed to see it through. Small, as it is moved a few times.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub content: Box<Content>,
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
    lanes: Lanes,
    tasks: TaskTracker,
    intake: watch::Sender<bool>,
    stalls: Stalls,
    shutdown: Shutdown,
    /// Set once it is known where they are served.
    callbacks: OnceLock<Arc<Callbacks>>,
    completions: Completions,
    ids: ids::Ids,
}

impl Pipeline {
    /// A pipeline that nothing runs through yet.
    pub fn new(config: Config, network: Arc<dyn Network>, ledger: Arc<Ledger>, shutdown: Shutdown) -> Self {
        Self {
            target: config.request_target(),
            dispatcher: Dispatcher::over(network, config.worker.clone(), config.timeout),
            ledger,
            slots: Arc::new(Semaphore::new(usize::from(config.concurrency))),
            lanes: Lanes::default(),
            tasks: TaskTracker::new(),
            intake: watch::Sender::new(true),
            stalls: Stalls::default(),
            shutdown,
            callbacks: OnceLock::new(),
            completions: Completions::new(config.remember_completed),
            ids: ids::Ids::new(),
            config,
        }
    }

    /// Callbacks are served here; told once, before anything runs.
    pub(crate) fn serve_callbacks_at(&self, address: Option<SocketAddr>) {
        let callbacks = Callbacks::at(address, &self.config.worker.host);
        let is_first = self.callbacks.set(Arc::new(callbacks)).is_ok();
        debug_assert!(is_first, "said once");
    }

    pub(crate) fn callbacks(&self) -> Option<&Arc<Callbacks>> {
        self.callbacks.get()
    }

    /// Sees a delivery through, beside all others.
    pub(crate) fn spawn(self: &Arc<Self>, delivery: Delivery) {
        self.lanes.hand_over(self, delivery);
    }

    async fn handle(&self, delivery: Delivery) {
        let Delivery {
            content,
            receipt,
            copies,
            slot,
        } = delivery;
        let Content { message, original } = &*content;
        let _in_flight = InFlight::begin(&self.ledger);
        let made_up;
        let message_id = if let Some(id) = &message.message_id {
            id
        } else {
            made_up = self.ids.next();
            &made_up
        };

        let now = ops::clock::since_epoch();
        if self.completions.has(message, now) {
            let verdict = Verdict::Accepted(Reason::AlreadyCompleted);
            telemetry::recalled(&verdict);
            receipt.ack(Fate::from(&verdict));
            return;
        }
        let reply_to = Address::of(message, self.config.response_queue.as_deref());
        let mut callback = self.callbacks.get().and_then(Callbacks::open);
        let address = match (self.callbacks.get(), &callback) {
            (Some(callbacks), Some(callback)) => Some(callbacks.address(callback.id())),
            _ => None,
        };
        let post = Post {
            head: |bytes: &mut Vec<u8>| {
                request::write_head(bytes, message, message_id, &self.target, address, now);
            },
            body: &message.body,
        };
        let reply = reply_to.as_ref().map(|_| self.config.reply_max_bytes);
        let Some(outcome) = self.dispatch(post, reply, callback.as_mut(), &receipt, now).await else {
            // Deferred, and its channel went away meanwhile: the broker has it again.
            return;
        };
        let verdict = verdict::judge(&outcome.ended, self.circumstances(message, &slot));
        let attempt = message.history.attempt();
        self.ledger
            .meters()
            .judged(&outcome.ended, &verdict, attempt, outcome.took);
        let settlement = settlement::plan(
            &verdict,
            Case {
                message,
                message_id,
                queue: &self.config.queue,
                reply_to: reply_to.as_ref(),
                outcome: &outcome.ended,
                now,
            },
        );

        let is_settled = settle(&settlement, &verdict, receipt, &copies, original, message_id).await;
        if is_settled && matches!(verdict, Verdict::Accepted(_)) {
            // The acknowledgement may still be lost with its connection.
            self.completions.remember(message, ops::clock::since_epoch());
        }
        if let Some(callback) = callback.filter(|_| is_settled) {
            callback.settled(Settled {
                verdict: verdict.as_str(),
                reason: verdict.reason().as_str(),
            });
        }
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

    /// Whether one more message could go to the worker now.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.available_permits() > 0
    }

    pub(crate) fn stalls(&self) -> &Stalls {
        &self.stalls
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
            biased;
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
        self.lanes.close();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// One exit: each settlement consumes the receipt, with the fate that is to be counted once it is written. `false` when
/// the broker has the message again.
async fn settle(
    settlement: &Settlement,
    verdict: &Verdict,
    receipt: Receipt,
    copies: &Copies,
    original: &Original,
    message_id: &str,
) -> bool {
    let fate = Fate::from(verdict);
    let published = match settlement {
        Settlement::Release => {
            receipt.release(fate);
            return true;
        }
        Settlement::Ack => Ok(()),
        // Boxed, as they are large: what every delivery holds is to be small.
        Settlement::ReplyThenAck(reply) => Box::pin(copies.reply(reply)).await,
        Settlement::CopyThenAck { copy, reply } => {
            let copied = Box::pin(copies.publish(original, copy, message_id)).await;
            match (copied, reply) {
                (Ok(()), Some(reply)) => Box::pin(copies.reply(reply)).await,
                (copied, _) => copied,
            }
        }
    };
    if published.is_ok() {
        receipt.ack(fate);
    } else {
        // Not confirmed: dropping the receipt counts it as lost, and the broker has it still.
        drop(receipt);
    }
    published.is_ok()
}

/// Counts a delivery as in flight for as long as it lives.
struct InFlight<'a> {
    ledger: &'a Ledger,
}

impl<'a> InFlight<'a> {
    fn begin(ledger: &'a Ledger) -> Self {
        ledger.begun();
        Self { ledger }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.ledger.ended(Instant::now().into_std());
    }
}
