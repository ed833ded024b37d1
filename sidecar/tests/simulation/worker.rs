//! Workers that speak HTTP/1.1 over simulated connections, and answer, hang, break off and die by script.

use crate::oracle::Answer;
use crate::rabbit::STAMP;
use crate::watched::Watched;
use crate::world::{Shared, World, lock};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sidecar::dispatch::{Network, Stream};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const BUFFER: usize = 16 * 1024;

/// What befalls a message at the worker, whenever it comes.
#[derive(Debug, Clone, Copy)]
pub enum Script {
    /// Accepted.
    Good,
    /// This status so many times, then accepted.
    Status(u16, u32),
    /// Throttled so many times, then accepted.
    Throttle(u32),
    /// An explicit verdict with a status that says otherwise.
    Explicit(&'static str, u16),
    /// 202 with `X-Defer`.
    Defer,
    /// No answer so many times, then accepted.
    Hang(u32),
    /// The connection breaks before or within the answer so many times, then accepted.
    Break(u32, bool),
    /// Something that is not HTTP so many times, then accepted.
    Garbage(u32),
    /// The worker dies so many times, then accepted.
    Kill(u32),
}

/// The processes behind one sidecar's worker port.
pub struct Worker {
    pub world: Shared,
    /// Counts deaths; `listens` says whether somebody is there.
    life: Arc<Watched<Life>>,
    scripts: Vec<Script>,
    timeout: Duration,
    /// What the worker is at.
    holds: std::sync::Mutex<BTreeSet<usize>>,
    /// Requests of each message so far.
    seen: std::sync::Mutex<Vec<u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    deaths: u32,
    breaks: u32,
    listens: bool,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

/// The network between a sidecar and its worker.
#[derive(Debug)]
pub struct Loopback(pub Arc<Worker>);

impl Network for Loopback {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        async move {
            let takes = {
                let mut world = lock(&self.0.world);
                world.count_call();
                world.draw(0, 1)
            };
            tokio::time::sleep(takes).await;
            if !self.0.life.get().listens {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (client, server) = tokio::io::duplex(BUFFER);
            tokio::spawn(Arc::clone(&self.0).serve(server));
            let client: Box<dyn Stream> = Box::new(client);
            Ok(client)
        }
        .boxed()
    }
}

struct Request {
    serial: usize,
    message: usize,
    attempt: u32,
}

impl Worker {
    pub fn new(world: Shared, scripts: Vec<Script>, timeout: Duration, listens: bool) -> Arc<Self> {
        Arc::new(Self {
            world,
            life: Watched::new(Life {
                deaths: 0,
                breaks: 0,
                listens,
            }),
            seen: vec![0; scripts.len()].into(),
            scripts,
            timeout,
            holds: BTreeSet::new().into(),
        })
    }

    pub fn listen(&self) {
        self.life.change(|life| life.listens = true);
    }

    /// The process dies with all that it holds, and comes back after `downtime`.
    pub fn die(self: &Arc<Self>, world: &mut World, downtime: Duration) {
        let held = std::mem::take(&mut *self.holds.lock().unwrap());
        world.say(|| format!("a worker dies for {downtime:?} with {held:?}"));
        let at = world.now();
        world.oracle.died(at, at + downtime);
        self.life.change(|life| {
            life.deaths += 1;
            life.listens = false;
        });
        let worker = Arc::clone(self);
        world.later(downtime, move |world| {
            world.say(|| "the worker is back".to_owned());
            worker.listen();
        });
    }

    /// All connections break; the process lives.
    pub fn break_connections(&self, world: &mut World) {
        world.say(|| "a worker's connections break".to_owned());
        self.life.change(|life| life.breaks += 1);
    }

    async fn serve(self: Arc<Self>, mut stream: DuplexStream) {
        let born = self.life.get();
        let mut holding = None;
        tokio::select! {
            biased;
            _ = self.life.until(|life| (life.deaths, life.breaks) != (born.deaths, born.breaks)) => {}
            _ended = self.answer_all(&mut stream, &mut holding) => {}
        }
        if let Some(serial) = holding {
            self.holds.lock().unwrap().remove(&serial);
        }
    }

    async fn answer_all(
        self: &Arc<Self>,
        stream: &mut DuplexStream,
        holding: &mut Option<usize>,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let Some(request) = read_request(stream, &mut buffer).await? else {
                return Ok(());
            };
            self.holds.lock().unwrap().insert(request.serial);
            *holding = Some(request.serial);
            let nth = {
                let mut seen = self.seen.lock().unwrap();
                seen[request.message] += 1;
                seen[request.message]
            };
            let takes = {
                let mut world = lock(&self.world);
                let at = world.now();
                world.oracle.posted(request.serial, request.attempt, at);
                let Request {
                    serial,
                    message,
                    attempt,
                } = request;
                world.say(|| format!("message {message} is posted as {serial}, attempt {attempt}"));
                // Mostly quick, some as slow as the timeout.
                match world.rng.u8(..) {
                    0..=200 => world.draw(0, 30),
                    201..=245 => world.draw(0, 1000),
                    _ => {
                        let timeout = u64::try_from(self.timeout.as_millis()).unwrap();
                        world.draw(0, timeout + timeout / 10)
                    }
                }
            };
            // A client that goes away is noticed.
            let mut byte = [0];
            tokio::select! {
                biased;
                () = tokio::time::sleep(takes) => {}
                _gone = stream.read(&mut byte) => return Ok(()),
            }
            let is_kept = self.act(stream, &request, nth).await?;
            self.holds.lock().unwrap().remove(&request.serial);
            *holding = None;
            if !is_kept {
                return Ok(());
            }
        }
    }

    /// One answer; whether the connection can be used again.
    async fn act(
        self: &Arc<Self>,
        stream: &mut DuplexStream,
        request: &Request,
        nth: u32,
    ) -> io::Result<bool> {
        let good = (Answer::Accept, "200 OK", String::new());
        let (answer, status, headers) = match self.scripts[request.message] {
            Script::Status(status, times) if nth <= times => {
                let answer = match status {
                    408 | 425 | 429 | 500.. => Answer::Retry,
                    _ => Answer::DeadLetter,
                };
                return self
                    .reply(stream, request, answer, &format!("{status} Whatever"), "")
                    .await;
            }
            Script::Throttle(times) if nth <= times => {
                (Answer::Throttle, "503 Busy", "retry-after: 1\r\n".to_owned())
            }
            Script::Explicit(verdict, status) => {
                let answer = match verdict {
                    "ack" => Answer::Accept,
                    "reject" => Answer::DeadLetter,
                    _ => Answer::Retry,
                };
                let header = format!("x-message-verdict: {verdict}\r\n");
                return self
                    .reply(stream, request, answer, &format!("{status} Whatever"), &header)
                    .await;
            }
            Script::Defer => (Answer::DeadLetter, "202 Accepted", "x-defer: 1\r\n".to_owned()),
            Script::Hang(times) if nth <= times => {
                // Until the client gives up.
                let mut byte = [0];
                let _gone = stream.read(&mut byte).await;
                return Ok(false);
            }
            Script::Break(times, is_within) if nth <= times => {
                if is_within {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
                        .await?;
                }
                return Ok(false);
            }
            Script::Garbage(times) if nth <= times => {
                stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await?;
                return Ok(false);
            }
            Script::Kill(times) if nth <= times => {
                let mut world = lock(&self.world);
                let downtime = world.draw(1, 3000);
                self.die(&mut world, downtime);
                return Ok(false);
            }
            _ => good,
        };
        self.reply(stream, request, answer, status, &headers).await
    }

    async fn reply(
        &self,
        stream: &mut DuplexStream,
        request: &Request,
        answer: Answer,
        status: &str,
        headers: &str,
    ) -> io::Result<bool> {
        let text = format!("HTTP/1.1 {status}\r\n{headers}content-length: 2\r\n\r\nok");
        stream.write_all(text.as_bytes()).await?;
        let mut world = lock(&self.world);
        let at = world.now();
        world.oracle.answered(request.serial, answer, at);
        let serial = request.serial;
        world.say(|| format!("delivery {serial} is answered: {answer:?}"));
        // Some servers close a connection when they feel like it.
        Ok(!world.chance(10))
    }
}

async fn read_request(stream: &mut DuplexStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            assert!(head.starts_with("POST /message HTTP/1.1\r\n"), "{head}");
            let header = |name: &str| {
                let lines = head.split("\r\n").skip(1);
                let mut pairs = lines.filter_map(|line| line.split_once(": "));
                let (_, value) = pairs.find(|(found, _)| *found == name)?;
                Some(value.to_owned())
            };
            let length: usize = header("content-length").unwrap().parse().unwrap();
            let body = end + 4..end + 4 + length;
            if buffer.len() >= body.end {
                let message = std::str::from_utf8(&buffer[body.clone()])
                    .unwrap()
                    .parse()
                    .unwrap();
                buffer.drain(..body.end);
                return Ok(Some(Request {
                    serial: header(&format!("x-amqp-{STAMP}")).unwrap().parse().unwrap(),
                    message,
                    attempt: header("x-delivery-attempt").unwrap().parse().unwrap(),
                }));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
