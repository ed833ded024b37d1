//! One POST: on a kept-alive connection when there is one, with the end translated into an [`Outcome`].

use super::http1::{Broken, Connection, Sent};
use super::network::{Network, Tcp};
use super::response::Bounds;
use super::{gate, pool};
use crate::domain::answer::{Answer, Body, Wanted};
use crate::domain::fields::Fields;
use crate::domain::outcome::Outcome;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Bytes of an answer that are kept when nobody wants a reply: enough for a verdict document and for the excerpt.
const KEPT_BYTES: usize = 64 * 1024;
/// Bytes of an answer that are read so that its connection can be used again; a longer one costs its connection.
const READ_BYTES: usize = 1024 * 1024;

/// The longest that connecting may take, or half of the timeout when that is less: a worker on this machine accepts at
/// once or has no room, and then the message never left.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker may take for its introduction; then it is introduced again.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the worker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Posts to one worker and knows whether it is up.
#[derive(Debug)]
pub struct Dispatcher {
    worker: Worker,
    network: Arc<dyn Network>,
    timeout: Duration,
    pool: Arc<pool::Pool>,
    up: watch::Sender<bool>,
    has_answered: AtomicBool,
    introduced: AtomicBool,
    trying: Mutex<()>,
}

/// A request: what is sent before the body is written when a connection is there to take it, and again when it has to be
/// sent again.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a, H> {
    /// Appends the head, whose length of the body is that of `body`.
    pub head: H,
    /// The body.
    pub body: &'a Bytes,
}

impl Dispatcher {
    /// A dispatcher over TCP that gives each POST `timeout` from connecting to the last byte of the answer.
    pub fn new(worker: Worker, timeout: Duration) -> Self {
        Self::over(Arc::new(Tcp), worker, timeout)
    }

    /// As [`new`](Self::new), over another network.
    pub fn over(network: Arc<dyn Network>, worker: Worker, timeout: Duration) -> Self {
        Self {
            worker,
            network,
            timeout,
            pool: Arc::default(),
            up: watch::Sender::new(false),
            has_answered: AtomicBool::new(false),
            introduced: AtomicBool::new(false),
            trying: Mutex::default(),
        }
    }

    /// Waits until the worker's port answers. Cancel safe.
    pub async fn until_up(&self) {
        gate::until_it_answers(&*self.network, &self.worker).await;
        self.has_answered.store(true, Relaxed);
        self.up.send_replace(true);
    }

    /// Whether the worker's port has answered since we run; while it has not, it is tried now, for a second at most.
    /// Cancel safe.
    pub async fn has_answered(&self) -> bool {
        if self.has_answered.load(Relaxed) {
            return true;
        }
        let answers = gate::answers(&*self.network, &self.worker).await;
        self.has_answered.fetch_or(answers, Relaxed) || answers
    }

    /// Waits until its port does not answer any more; for a worker that gets no POSTs from us. Cancel safe.
    pub async fn until_silent(&self) {
        gate::until_it_is_silent(&*self.network, &self.worker).await;
        self.set_gone();
    }

    /// Waits until the worker is gone, found by a POST or, because there may be none for long, by trying its port every
    /// second. However many wait, one of them tries. Cancel safe.
    pub async fn until_gone(&self) {
        let trying = async {
            let _the_only_one = self.trying.lock().await;
            gate::until_it_is_silent(&*self.network, &self.worker).await;
            self.pool.clear();
            self.set_gone();
        };
        tokio::select! {
            () = self.until_down() => {}
            () = trying => {}
        }
    }

    /// Waits until a POST found the worker gone. Cancel safe.
    pub async fn until_down(&self) {
        ops::watching::until(&self.up, |up| !up).await;
    }

    /// Posts and reports how it went; `reply` is how long an answer may be that becomes a reply, `None` when nobody
    /// wants one. Dropping the future closes its connection.
    pub async fn post(
        &self,
        post: Post<'_, impl Fn(&mut Vec<u8>)>,
        reply: Option<usize>,
        now: Duration,
    ) -> Outcome {
        self.post_within(self.timeout, post, reply, now).await
    }

    /// Whether the worker that is up has been introduced to its work.
    pub fn is_introduced(&self) -> bool {
        self.introduced.load(Relaxed)
    }

    /// The worker that is up has been introduced to its work; its successor has not.
    pub fn set_introduced(&self) {
        self.introduced.store(true, Relaxed);
    }

    /// Introduces it, as [`post`](Self::post) does a message.
    pub async fn introduce(&self, post: Post<'_, impl Fn(&mut Vec<u8>)>) -> Outcome {
        self.post_within(INTRODUCTION_TIMEOUT, post, None, Duration::ZERO)
            .await
    }

    fn set_gone(&self) {
        self.introduced.store(false, Relaxed);
        self.up.send_replace(false);
    }

    async fn post_within(
        &self,
        timeout: Duration,
        post: Post<'_, impl Fn(&mut Vec<u8>)>,
        reply: Option<usize>,
        now: Duration,
    ) -> Outcome {
        let exchange = self.exchange(&post, Wanted::of(reply), now);
        let outcome = match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Outcome::TimedOut,
        };
        if matches!(outcome, Outcome::Refused | Outcome::Crashed) {
            self.pool.clear();
            self.set_gone();
        }
        outcome
    }

    async fn exchange(
        &self,
        post: &Post<'_, impl Fn(&mut Vec<u8>)>,
        wanted: Wanted,
        now: Duration,
    ) -> Outcome {
        // Whether the worker may have seen this request already, on a connection that then died.
        let mut may_have_arrived = false;
        if let Some(connection) = self.pool.take() {
            match self.exchange_on(connection, post, wanted, now).await {
                Ok(outcome) => return outcome,
                Err(Broken::Unsent) => {}
                // A worker that closes idle connections and a request can cross; at-least-once makes it right to
                // send again at once.
                Err(Broken::BeforeAnswer) => may_have_arrived = true,
                Err(Broken::MidAnswer) => return Box::pin(self.reset_or_crashed()).await,
                Err(Broken::NotHttp) => return Outcome::NotHttp,
            }
        }
        // Rare, and large: what every delivery holds is to be small.
        Box::pin(self.exchange_anew(post, may_have_arrived, wanted, now)).await
    }

    /// On a new connection. `may_have_arrived` says whether the worker may have seen the request before.
    async fn exchange_anew(
        &self,
        post: &Post<'_, impl Fn(&mut Vec<u8>)>,
        may_have_arrived: bool,
        wanted: Wanted,
        now: Duration,
    ) -> Outcome {
        let connecting = pool::connect(&*self.network, &self.worker);
        let patience = CONNECT_TIMEOUT.min(self.timeout / 2);
        let connection = match tokio::time::timeout(patience, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if gate::is_broken(&error) => return self.reset_or_crashed().await,
            Ok(Err(_)) | Err(_) if may_have_arrived => return Outcome::Crashed,
            Ok(Err(_)) | Err(_) => return Outcome::Refused,
        };
        match self.exchange_on(connection, post, wanted, now).await {
            Ok(outcome) => outcome,
            Err(Broken::NotHttp) => Outcome::NotHttp,
            Err(Broken::Unsent | Broken::BeforeAnswer | Broken::MidAnswer) => self.reset_or_crashed().await,
        }
    }

    async fn exchange_on(
        &self,
        mut connection: Box<Connection>,
        post: &Post<'_, impl Fn(&mut Vec<u8>)>,
        wanted: Wanted,
        now: Duration,
    ) -> Result<Outcome, Broken> {
        let at_least = wanted.reply.unwrap_or_default();
        let bounds = Bounds {
            kept: at_least.max(KEPT_BYTES),
            read: at_least.max(READ_BYTES),
        };
        connection.exchange(&post.head, post.body, bounds).await?;
        let read = |status, fields: Fields<'_>, body: &Body| Answer::read(status, fields, body, wanted, now);
        let finished = connection.reader().finish(read).ok_or(Broken::MidAnswer)?;
        match connection.sent() {
            // A worker that answers early may read on: its request is not cut off.
            Sent::Partly => drop(tokio::spawn(tokio::time::timeout(
                self.timeout,
                connection.send_rest(),
            ))),
            Sent::Wholly if finished.is_reusable => self.pool.give_back(connection),
            Sent::Wholly | Sent::Refused => {}
        }
        Ok(Outcome::Answered(finished.answer))
    }

    async fn reset_or_crashed(&self) -> Outcome {
        if gate::answers(&*self.network, &self.worker).await {
            Outcome::Reset
        } else {
            Outcome::Crashed
        }
    }
}
