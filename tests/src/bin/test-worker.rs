//! A worker for tests: plays the row drawn for each message and writes what it does to a log before it does it.
//!
//! `PORT` is where it listens. With `WORKER_SEED` it plays the rows of `WORKER_MIX`, all of them unless it says
//! otherwise; without, everything is answered 200. `WORKER_LOG` gets a line a request:
//! `<id> <attempt> <status or word> <nanoseconds since the epoch>`.
#![expect(
    clippy::disallowed_methods,
    reason = "a worker reads its environment and the clock"
)]

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;
use suite::fate::{Mix, Play, Row, hash_bytes};
use tokio::net::TcpListener;

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

struct Worker {
    seed: Option<u64>,
    mix: Mix,
    log: Option<File>,
    calls: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::var("PORT")
        .context("PORT says where to listen")?
        .parse()?;
    let seed = std::env::var("WORKER_SEED")
        .ok()
        .map(|seed| seed.parse())
        .transpose()?;
    let mix = match std::env::var("WORKER_MIX") {
        Err(_) => Mix::Everything,
        Ok(word) => Mix::ALL
            .into_iter()
            .find(|mix| mix.as_str() == word)
            .with_context(|| format!("WORKER_MIX={word} is no mix"))?,
    };
    let log = std::env::var_os("WORKER_LOG")
        .map(|path| File::options().create(true).append(true).open(path))
        .transpose()?;
    let worker = Arc::new(Worker {
        seed,
        mix,
        log,
        calls: AtomicU64::new(0),
    });
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .with_context(|| format!("port {port}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let worker = Arc::clone(&worker);
        tokio::spawn(async move {
            let service = service_fn(move |request| Arc::clone(&worker).serve(request));
            let server = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // A connection that breaks is the client's business, or was broken on purpose.
            let _ended = server.await;
        });
    }
}

impl Worker {
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (id, attempt, checksum) = (
            header("x-message-id"),
            header("x-delivery-attempt"),
            header("x-amqp-checksum"),
        );
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(std::io::Error::other)?
            .to_bytes();
        let calls = self.calls.fetch_add(1, Relaxed);
        let Some(seed) = self.seed else {
            self.note(&id, &attempt, "200")?;
            return Ok(answer(200, None, "hello"));
        };
        if hash_bytes(seed, &body).to_string() != checksum {
            self.note(&id, &attempt, "corrupt")?;
            return Ok(answer(400, None, "corrupt"));
        }
        let row: Row = self.mix.row(seed, &id);
        match row.play(attempt.parse().unwrap_or(0), calls) {
            Play::Answer(status, header, text) => {
                let explicit = header.is_some_and(|(name, _)| name != "retry-after" && name != "location");
                let word = if explicit {
                    explicit_word(header, text)
                } else {
                    status.to_string()
                };
                self.note(&id, &attempt, &word)?;
                Ok(answer(status, header, text))
            }
            Play::Slow(pause) => {
                tokio::time::sleep(pause).await;
                self.note(&id, &attempt, "200")?;
                Ok(answer(200, None, ""))
            }
            Play::Hang => {
                self.note(&id, &attempt, "hang")?;
                std::future::pending().await
            }
            Play::Crash => {
                self.note(&id, &attempt, "crash")?;
                std::process::abort()
            }
            Play::Drop => {
                self.note(&id, &attempt, "drop")?;
                Err(std::io::Error::other("closed on purpose"))
            }
            Play::CutShort => {
                self.note(&id, &attempt, "cut")?;
                Ok(cut_short())
            }
        }
    }

    /// One write a line, so that a SIGKILL leaves whole lines.
    fn note(&self, id: &str, attempt: &str, word: &str) -> std::io::Result<()> {
        let Some(mut log) = self.log.as_ref() else {
            return Ok(());
        };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        log.write_all(format!("{id} {attempt} {word} {now}\n").as_bytes())
    }
}

/// What an explicit verdict amounts to, as a status would say it.
fn explicit_word(header: Option<(&str, &str)>, text: &str) -> String {
    let said = header.map(|(_, value)| value).unwrap_or_default();
    let word = if text.contains("ACK") || said == "ack" {
        "200"
    } else if said == "retry" {
        "retry"
    } else {
        "reject"
    };
    word.to_owned()
}

fn answer(status: u16, header: Option<(&str, &str)>, text: &str) -> Response<Body> {
    let body = Full::from(text.to_owned())
        .map_err(|never: Infallible| match never {})
        .boxed();
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response
        .body(body)
        .expect("invariant: the rows hold valid headers")
}

/// Announces ten bytes, sends five, and breaks off.
fn cut_short() -> Response<Body> {
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"five."))),
        Err(std::io::Error::other("cut on purpose")),
    ];
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    Response::builder()
        .header("content-length", "10")
        .body(body)
        .expect("invariant: a valid header")
}
