//! One attempt: the POST, and the wait for a verdict that the worker gives later.

use super::Pipeline;
use crate::broker::Receipt;
use crate::callbacks::Callback;
use crate::dispatch::Post;
use crate::domain::answer::{Answer, Body, Wanted};
use crate::domain::deferral;
use crate::domain::fields::Fields;
use crate::domain::outcome::Outcome;
use crate::telemetry;
use http::StatusCode;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether a deferred message can still be settled.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Dispatched {
    pub(super) ended: Outcome,
    pub(super) took: Duration,
}

impl Pipeline {
    /// `now` is when the attempt begins: the worker, the journal and a copy's first-seen stamp tell the same time. `None`
    /// when the message is not ours any more.
    pub(super) async fn dispatch(
        &self,
        post: Post<'_, impl Fn(&mut Vec<u8>)>,
        reply: Option<usize>,
        callback: Option<&mut Callback>,
        receipt: &Receipt,
        now: Duration,
    ) -> Option<Dispatched> {
        if post.body.len() > self.config.max_body_bytes {
            return Some(Dispatched {
                ended: Outcome::BodyTooLarge,
                took: Duration::ZERO,
            });
        }
        let begun = Instant::now();
        let answered = self.dispatcher.post(post, reply, now).await;
        let ended = match (deferral(&answered), callback) {
            (Some(asked), Some(callback)) => {
                let most = self.config.max_defer;
                let wait = deferral::time_left(asked, begun.elapsed(), most);
                let (end, word) = Box::pin(self.deferred(wait, reply, callback, receipt, now)).await;
                telemetry::deferral_ended(word);
                end?
            }
            _ => answered,
        };
        let took = begun.elapsed();
        if matches!(ended, Outcome::Answered(_)) {
            self.ledger.served(took);
        }
        Some(Dispatched { ended, took })
    }

    /// Waits for the worker's call, the end of its time, its end, or that of the channel. The slot stays taken: a worker
    /// has no more at once than it was said to bear. With the end comes a word for the label.
    async fn deferred(
        &self,
        wait: Duration,
        reply: Option<usize>,
        callback: &mut Callback,
        receipt: &Receipt,
        now: Duration,
    ) -> (Option<Outcome>, &'static str) {
        let void = async {
            while !receipt.is_void() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // All are cancel safe.
        tokio::select! {
            biased;
            () = void => (None, "lost"),
            (headers, bytes) = callback.done() => {
                let wanted = Wanted::of(reply);
                let body = Body { bytes, is_whole: true };
                let answer = Answer::read(StatusCode::OK, Fields::new(&Fields::of(&headers)), &body, wanted, now);
                // What cannot be settled any more must not be replied to either.
                let outcome = (!receipt.is_void()).then_some(Outcome::Answered(answer));
                (outcome, "done")
            }
            () = tokio::time::sleep(wait) => (Some(Outcome::DeferExpired), "expired"),
            () = self.dispatcher.until_gone() => (Some(Outcome::Crashed), "crashed"),
        }
    }
}

/// For how long the worker wants to work on, unless it has said its verdict with the same answer.
fn deferral(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Answered(answer) if answer.explicit.is_none() => answer.deferred,
        _ => None,
    }
}
