//! A worker that speaks TCP and not always HTTP: it reads as much as it likes and answers bytes.

use crate::served::Served;
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// What is done on a connection, one after another. After the last step the next request is read.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Bytes),
    /// Sends bytes one by one, with this pause behind each.
    Drip(Bytes, Duration),
    /// Sends the same bytes so many times, or until nobody takes them.
    Flood(Bytes, usize),
    /// Waits.
    Pause(Duration),
    /// Reads what is left of a request that was answered early.
    ReadRest,
    /// Closes in order (FIN).
    Close,
    /// Closes by a reset (RST).
    Reset,
    /// Does nothing any more, and keeps the connection.
    Hang,
}

impl Step {
    /// Sends a text.
    pub fn send(text: impl Into<String>) -> Self {
        Self::Send(Bytes::from(text.into()))
    }
}

/// How much of a request is read before its steps begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Nothing: the steps begin when the connection is accepted. What arrived is not recorded.
    None,
    /// The head.
    Head,
    /// Head and body.
    Whole,
}

/// One request, as far as it was read.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// 1 for the first request, and so on.
    pub number: u32,
    /// 1 for the first connection, and so on.
    pub connection: u32,
    /// 1 for the first request of its connection, and so on.
    pub on_connection: u32,
    /// The head, as it was sent.
    pub head: String,
    /// What was read of the body.
    pub body: Bytes,
    /// When.
    pub at: Instant,
}

impl Exchange {
    /// A header; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        header(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    values.next().map_or("", |(_, value)| value.trim())
}

type Script = dyn Fn(&Exchange) -> Vec<Step> + Send + Sync;

struct Shared {
    patience: Patience,
    script: Box<Script>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    exchanges: Vec<Exchange>,
    connections: u32,
    sent: u64,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TCP server on a free loopback port that runs on a thread of its own until it is dropped.
pub struct RawWorker {
    shared: Arc<Shared>,
    served: Served,
}

impl RawWorker {
    /// A worker that reads with `patience` and then does what `script` says.
    pub fn start(
        patience: Patience,
        script: impl Fn(&Exchange) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            patience,
            script: Box::new(script),
            record: Mutex::default(),
        });
        let in_thread = Arc::clone(&shared);
        let served = Served::start("raw-worker", move |listener| async move {
            accept(&listener, &in_thread).await;
        });
        Self { shared, served }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.served.address().port()
    }

    /// Every request so far, in the order of arrival.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.record().exchanges.clone()
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> u32 {
        self.shared.record().connections
    }

    /// How many bytes the other side has taken, all connections together; the kernel's buffers included.
    pub fn sent(&self) -> u64 {
        self.shared.record().sent
    }
}

impl std::fmt::Debug for RawWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawWorker")
            .field("address", &self.served.address())
            .finish_non_exhaustive()
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _peer) = accepted.expect("the listener accepts");
                let number = {
                    let mut record = shared.record();
                    record.connections += 1;
                    record.connections
                };
                let shared = Arc::clone(shared);
                connections.spawn(async move {
                    // It ends by an error whenever the script or the peer cuts it.
                    let _ended = serve(stream, number, &shared).await;
                });
            }
            Some(served) = connections.join_next() => {
                served.expect("a script that panics is a mistake in the test");
            }
        }
    }
}

async fn serve(mut stream: TcpStream, connection: u32, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    for on_connection in 1.. {
        let (head, body, left) = read(&mut stream, &mut buffer, shared.patience).await?;
        let exchange = {
            let mut record = shared.record();
            let exchange = Exchange {
                number: u32::try_from(record.exchanges.len() + 1).unwrap_or(u32::MAX),
                connection,
                on_connection,
                head,
                body,
                at: Instant::now(),
            };
            if shared.patience != Patience::None {
                record.exchanges.push(exchange.clone());
            }
            exchange
        };
        for step in (shared.script)(&exchange) {
            if !take(&mut stream, &mut buffer, left, step, shared).await? {
                return Ok(());
            }
        }
        if shared.patience == Patience::None {
            return Ok(());
        }
    }
    Ok(())
}

/// The head, what was read of the body, and how many bytes of it are still to come.
async fn read(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    patience: Patience,
) -> io::Result<(String, Bytes, usize)> {
    if patience == Patience::None {
        return Ok((String::new(), Bytes::new(), 0));
    }
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        fill(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer.split_to(end)).into_owned();
    let length = header(&head, "content-length").parse().unwrap_or(0_usize);
    if patience == Patience::Whole {
        while buffer.len() < length {
            fill(stream, buffer).await?;
        }
    }
    let body = buffer.split_to(length.min(buffer.len())).freeze();
    let left = length - body.len();
    Ok((head, body, left))
}

async fn fill(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Does one step; `false` when it was the last.
async fn take(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    left: usize,
    step: Step,
    shared: &Shared,
) -> io::Result<bool> {
    let count = |bytes: usize| shared.record().sent += bytes as u64;
    match step {
        Step::Send(bytes) => {
            stream.write_all(&bytes).await?;
            count(bytes.len());
        }
        Step::Drip(bytes, pause) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                count(1);
                sleep(pause).await;
            }
        }
        Step::Flood(bytes, times) => {
            for _ in 0..times {
                stream.write_all(&bytes).await?;
                count(bytes.len());
            }
        }
        Step::Pause(time) => sleep(time).await,
        Step::ReadRest => {
            while buffer.len() < left {
                fill(stream, buffer).await?;
            }
            drop(buffer.split_to(left));
        }
        Step::Close => {
            stream.shutdown().await?;
            // What the peer still sends is read: unread bytes would make a reset of it.
            let mut rest = BytesMut::new();
            while stream.read_buf(&mut rest).await? > 0 {
                rest.clear();
            }
            return Ok(false);
        }
        Step::Reset => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Step::Hang => std::future::pending().await,
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{Exchange, Patience, RawWorker, Step};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn answer(worker: &RawWorker, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", worker.port())).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn does_its_steps_and_records_what_it_read() {
        let worker = RawWorker::start(Patience::Whole, |exchange: &Exchange| {
            vec![Step::send(exchange.text()), Step::Close]
        });
        let request = "POST / HTTP/1.1\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";
        assert_eq!(answer(&worker, request).await, "hello");
        let exchange = worker.exchanges().remove(0);
        assert_eq!(
            (exchange.header("x-a"), exchange.number, exchange.on_connection),
            ("b", 1, 1)
        );
        assert_eq!((worker.connections(), worker.sent()), (1, 5));
    }

    #[tokio::test]
    async fn answers_before_it_reads() {
        let worker = RawWorker::start(Patience::None, |_: &Exchange| {
            vec![Step::send("early"), Step::Close]
        });
        assert_eq!(answer(&worker, "").await, "early");
        assert_eq!(worker.exchanges().len(), 0);
    }
}
