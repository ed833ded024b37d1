//! One POST: on a kept-alive connection when there is one, with the end translated into an [`Outcome`].

use super::{gate, pool};
use crate::domain::answer::Answer;
use crate::domain::outcome::Outcome;
use crate::domain::settlement::ANSWER_BYTES;
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

/// Bytes of an answer that are kept: enough for a verdict document and for the excerpt.
const KEPT_BYTES: usize = 64 * 1024;
/// Bytes of an answer that are read so that its connection can be used again; a longer one costs its connection.
const READ_BYTES: usize = 1024 * 1024;

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
    timeout: Duration,
    pool: pool::Pool,
    up: watch::Sender<bool>,
    has_answered: AtomicBool,
}

/// Why an exchange on one connection ended without an answer.
enum Broken {
    /// The request never left; it can be sent elsewhere.
    Unsent(Box<Request<Full<Bytes>>>),
    /// The request may have been received; no byte of an answer came.
    BeforeAnswer,
    /// The answer broke off.
    MidAnswer,
    /// What came is not HTTP.
    NotHttp,
}

impl Dispatcher {
    /// A dispatcher that gives each POST `timeout` from connecting to the last byte of the answer.
    pub fn new(worker: Worker, timeout: Duration) -> Self {
        Self {
            worker,
            timeout,
            pool: pool::Pool::default(),
            up: watch::Sender::new(false),
            has_answered: AtomicBool::new(false),
        }
    }

    /// Waits until the worker's port answers. Cancel safe.
    pub async fn until_up(&self) {
        gate::until_it_answers(&self.worker.host, self.worker.port).await;
        self.has_answered.store(true, Relaxed);
        self.up.send_replace(true);
    }

    /// Whether the worker's port has answered since we run; while it has not, it is tried now, for a second at most.
    /// Cancel safe.
    pub async fn has_answered(&self) -> bool {
        if self.has_answered.load(Relaxed) {
            return true;
        }
        let answers = gate::answers(&self.worker.host, self.worker.port).await;
        self.has_answered.fetch_or(answers, Relaxed) || answers
    }

    /// Waits until its port does not answer any more; for a worker that gets no POSTs from us. Cancel safe.
    pub async fn until_silent(&self) {
        gate::until_it_is_silent(&self.worker.host, self.worker.port).await;
        self.up.send_replace(false);
    }

    /// Waits until a POST found the worker gone. Cancel safe.
    pub async fn until_down(&self) {
        ops::watching::until(&self.up, |up| !up).await;
    }

    /// Posts and reports how it went. Dropping the future closes its connection.
    pub async fn post(&self, request: Request<Bytes>, now: Duration) -> Outcome {
        let outcome = match tokio::time::timeout(self.timeout, self.exchange(request, now)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Outcome::TimedOut,
        };
        if matches!(outcome, Outcome::Refused | Outcome::Crashed) {
            self.pool.clear();
            self.up.send_replace(false);
        }
        outcome
    }

    async fn exchange(&self, request: Request<Bytes>, now: Duration) -> Outcome {
        let mut request = request.map(Full::new);
        // Whether the worker may have seen this request already, on a connection that then died.
        let mut may_have_arrived = false;
        if let Some(connection) = self.pool.take() {
            let spare = request.clone();
            match self.exchange_on(connection, request, now).await {
                Ok(outcome) => return outcome,
                Err(Broken::Unsent(unsent)) => request = *unsent,
                // A worker that closes idle connections and a request can cross; at-least-once makes it right to
                // send again at once.
                Err(Broken::BeforeAnswer) => {
                    may_have_arrived = true;
                    request = spare;
                }
                Err(Broken::MidAnswer) => return self.reset_or_crashed().await,
                Err(Broken::NotHttp) => return Outcome::NotHttp,
            }
        }
        let Ok(connection) = pool::connect(&self.worker.host, self.worker.port).await else {
            return if may_have_arrived {
                Outcome::Crashed
            } else {
                Outcome::Refused
            };
        };
        match self.exchange_on(connection, request, now).await {
            Ok(outcome) => outcome,
            Err(Broken::NotHttp) => Outcome::NotHttp,
            Err(Broken::Unsent(_) | Broken::BeforeAnswer | Broken::MidAnswer) => {
                self.reset_or_crashed().await
            }
        }
    }

    async fn exchange_on(
        &self,
        mut connection: pool::Connection,
        request: Request<Full<Bytes>>,
        now: Duration,
    ) -> Result<Outcome, Broken> {
        if connection.sender.ready().await.is_err() {
            return Err(Broken::Unsent(Box::new(request)));
        }
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failure) => {
                return Err(match failure.take_message() {
                    Some(unsent) => Broken::Unsent(Box::new(unsent)),
                    None if failure.error().is_parse() => Broken::NotHttp,
                    None if connection.is_reused => Broken::BeforeAnswer,
                    None => Broken::MidAnswer,
                });
            }
        };
        let (head, body) = response.into_parts();
        let (kept, is_complete) = read(body).await?;
        if is_complete {
            self.pool.give_back(connection.sender);
        }
        Ok(Outcome::Answered(Answer::read(
            head.status,
            &head.headers,
            &kept,
            ANSWER_BYTES,
            now,
        )))
    }

    async fn reset_or_crashed(&self) -> Outcome {
        if gate::answers(&self.worker.host, self.worker.port).await {
            Outcome::Reset
        } else {
            Outcome::Crashed
        }
    }
}

/// The first bytes of a body, and whether it was read to its end.
async fn read(mut body: Incoming) -> Result<(Bytes, bool), Broken> {
    let mut kept = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is_parse() {
                Broken::NotHttp
            } else {
                Broken::MidAnswer
            }
        })?;
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        kept.extend_from_slice(&data[..data.len().min(KEPT_BYTES - kept.len())]);
        if seen > READ_BYTES {
            return Ok((kept.freeze(), false));
        }
    }
    Ok((kept.freeze(), true))
}
