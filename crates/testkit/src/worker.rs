//! A worker in the test's own process: an HTTP server that answers as the test says and records every request.

mod answer;
mod server;

pub use answer::{Answer, Gate};

use crate::wait::{PATIENCE, until};
use bytes::Bytes;
use http::{HeaderMap, Method};
use server::Server;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// One request as it arrived, body included.
#[derive(Debug, Clone)]
pub struct Received {
    /// 1 for the first request that this worker got, and so on.
    pub number: u32,
    /// 1 for requests of the first connection, and so on.
    pub connection: u32,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When its last byte was there.
    pub at: Instant,
}

impl Received {
    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Script = dyn Fn(&Received) -> Answer + Send + Sync;

/// What the server's tasks and the test both see.
struct Shared {
    script: Box<Script>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    requests: Vec<Received>,
    connections: u32,
    in_flight: u32,
    most_in_flight: u32,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An HTTP/1.1 server on a free loopback port that runs on a thread of its own until it is dropped.
///
/// ```no_run
/// # async fn example() {
/// use testkit::worker::{Answer, Worker};
///
/// let worker = Worker::start(|request| match request.text().as_str() {
///     "poison" => Answer::status(422).body("not an order"),
///     _ => Answer::ok(),
/// })
/// .await;
/// // ... send messages to worker.url() ...
/// worker.wait_for(3).await;
/// # }
/// ```
pub struct Worker {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Mutex<Option<Server>>,
}

impl Worker {
    /// Starts a worker that answers every request by `script`: an [`Answer`], or a status code.
    #[expect(
        clippy::unused_async,
        reason = "callers need not care when the server stops being started by a thread"
    )]
    pub async fn start<A: Into<Answer>>(script: impl Fn(&Received) -> A + Send + Sync + 'static) -> Self {
        let script = Box::new(move |request: &Received| script(request).into());
        let shared = Arc::new(Shared {
            script,
            record: Mutex::default(),
        });
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(any_port, Arc::clone(&shared)).expect("a loopback port is free");
        Self {
            address: server.address,
            server: Mutex::new(Some(server)),
            shared,
        }
    }

    /// Starts a worker that gives these answers in this order, and the last one from then on.
    pub async fn scripted<A: Into<Answer>>(answers: impl IntoIterator<Item = A>) -> Self {
        let answers: Vec<Answer> = answers.into_iter().map(Into::into).collect();
        assert!(!answers.is_empty(), "a script needs an answer");
        Self::start(move |request| {
            let index = (request.number as usize - 1).min(answers.len() - 1);
            answers[index].clone()
        })
        .await
    }

    /// Its port on 127.0.0.1; the same after [`start_again`](Self::start_again).
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.record().requests.clone()
    }

    /// How many requests there were so far.
    pub fn count(&self) -> usize {
        self.shared.record().requests.len()
    }

    /// How many requests wait for their answer now.
    pub fn in_flight(&self) -> u32 {
        self.shared.record().in_flight
    }

    /// The most requests that ever waited for their answers at once.
    pub fn most_in_flight(&self) -> u32 {
        self.shared.record().most_in_flight
    }

    /// How many connections were ever opened.
    pub fn connections(&self) -> u32 {
        self.shared.record().connections
    }

    /// Waits until there were at least `n` requests, and returns them all.
    pub async fn wait_for(&self, n: usize) -> Vec<Received> {
        let what = format!("the worker on port {} has {n} requests", self.port());
        until(&what, PATIENCE, || async { self.count() >= n }).await;
        self.requests()
    }

    /// Closes the port and every connection at once, as the end of the process does. Nothing that was recorded is
    /// forgotten.
    pub fn crash(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(server);
        self.shared.record().in_flight = 0;
    }

    /// Listens again on the same port, after [`crash`](Self::crash).
    pub fn start_again(&self) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(server.is_none(), "the worker runs already");
        *server = Some(
            Server::start(self.address, Arc::clone(&self.shared)).expect("the worker's port is still free"),
        );
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("address", &self.address)
            .field("requests", &self.count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
