//! P1: the load on a proxy. A closed loop over a fixed number of kept connections: each sends its next request when the
//! answer to the one before is there. Every answer is checked.

use crate::body;
use crate::line::{End, Line, say};
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

/// How often the count is told while it grows.
const COUNT_EVERY: Duration = Duration::from_millis(200);

/// What is sent, and to whom.
#[derive(Debug, Clone)]
pub struct Load {
    /// `127.0.0.1:<port>` of the proxy.
    pub address: String,
    /// How many requests.
    pub requests: u64,
    /// After how many answers the clocks start.
    pub warm_up: u64,
    /// Connections, each with one request at a time.
    pub connections: u16,
    /// Bytes of each body; with 0 it is a `GET`, else a `POST`.
    pub body_bytes: usize,
    /// Of the bodies.
    pub seed: u64,
}

/// What came of the requests.
#[derive(Debug, Default)]
struct Answers {
    /// The next request's number.
    next: u64,
    right: u64,
    /// Another's answer, or none of the origin's.
    wrong: u64,
    failed: u64,
    /// Of right answers after the warm-up, microseconds.
    latencies: Vec<u32>,
}

impl Answers {
    fn take(&mut self, requests: u64) -> Option<u64> {
        (self.next < requests).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Notes what came of one. Returns what is to be told.
    fn note(&mut self, load: &Load, answer: &anyhow::Result<bool>, took: Duration) -> Option<Line> {
        match answer {
            Ok(true) => self.right += 1,
            Ok(false) => self.wrong += 1,
            Err(_) => self.failed += 1,
        }
        let answered = self.right + self.wrong + self.failed;
        if answered > load.warm_up && matches!(answer, Ok(true)) {
            let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            self.latencies.push(took);
        }
        let now = ops::clock::since_epoch();
        if self.right == load.requests {
            Some(Line::All { now })
        } else {
            (answered == load.warm_up).then_some(Line::Warm { now })
        }
    }

    fn end(&self, load: &Load) -> End {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let at = |share: usize| {
            let last = latencies.len().checked_sub(1)?;
            latencies.get(last * share / 1000).copied()
        };
        End {
            distinct: self.right,
            // A wrong answer is counted as corrupt alone.
            lost: load.requests - self.right - self.wrong,
            duplicates: 0,
            corrupt: self.wrong,
            foreign: 0,
            p50_us: at(500),
            p99_us: at(990),
        }
    }
}

/// Sends every request, telling on standard output how far it is. Ends on SIGTERM, as the sink does.
///
/// # Errors
/// When signals cannot be handled.
pub async fn run(load: Load) -> anyhow::Result<()> {
    let answers = Rc::new(RefCell::new(Answers::default()));
    let mut terminated = signal(SignalKind::terminate())?;
    let all = async {
        let connections: Vec<_> = (0..load.connections)
            .map(|_| spawn_local(connection(load.clone(), Rc::clone(&answers))))
            .collect();
        for connection in connections {
            // One that has panicked has told why; its requests are lost.
            let _ended = connection.await.is_ok();
        }
    };
    let count = async {
        let mut told = 0;
        loop {
            tokio::time::sleep(COUNT_EVERY).await;
            let distinct = answers.borrow().right;
            if distinct != told {
                told = distinct;
                say(&Line::Count { distinct });
            }
        }
    };
    LocalSet::new()
        .run_until(async {
            // What is dropped here is not needed any more.
            tokio::select! {
                ((), ()) = async { tokio::join!(all, count) } => {}
                _ = terminated.recv() => {}
            }
        })
        .await;
    say(&Line::End(answers.borrow().end(&load)));
    Ok(())
}

/// One connection after another: a proxy may close one between two requests.
async fn connection(load: Load, answers: Rc<RefCell<Answers>>) {
    let mut open: Option<SendRequest<Full<Bytes>>> = None;
    loop {
        // Before a request is taken: the time to connect is none of its own.
        let is_open = match &mut open {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            open = connect(&load.address).await.ok();
        }
        let Some(id) = answers.borrow_mut().take(load.requests) else {
            return;
        };
        let began = Instant::now();
        let answer = match &mut open {
            Some(sender) => exchange(&load, sender, id).await,
            None => Err(anyhow::anyhow!("no connection")),
        };
        if answer.is_err() {
            open = None;
        }
        let line = answers.borrow_mut().note(&load, &answer, began.elapsed());
        if let Some(line) = line {
            say(&line);
        }
    }
}

async fn connect(address: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    spawn_local(async move {
        // Its end is seen by the sender.
        let _ended = connection.await.is_ok();
    });
    sender.ready().await?;
    Ok(sender)
}

/// Whether the answer is that to this request.
async fn exchange(load: &Load, sender: &mut SendRequest<Full<Bytes>>, id: u64) -> anyhow::Result<bool> {
    let request = Request::builder()
        .uri(format!("/{id}"))
        .header(header::HOST, &load.address);
    let request = if load.body_bytes == 0 {
        request.body(Full::default())
    } else {
        let body = body::make(load.seed, id, Duration::ZERO, load.body_bytes);
        request.method("POST").body(Full::from(body))
    };
    let response = sender.send_request(request?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status == StatusCode::OK, "status {status}");
    Ok(*body == *answer_to(id).as_bytes())
}

/// What the origin answers to a request with this number.
pub fn answer_to(id: u64) -> String {
    format!("answer {id}")
}

/// The number in a path.
///
/// # Errors
/// When there is none.
pub fn number_in(path: &str) -> anyhow::Result<u64> {
    let digits = path.strip_prefix('/').context("a path begins with a slash")?;
    Ok(digits.parse()?)
}

#[cfg(test)]
mod tests {
    use super::{Answers, Load, number_in};
    use crate::line::Line;
    use std::time::Duration;

    fn load(requests: u64) -> Load {
        Load {
            address: String::new(),
            requests,
            warm_up: 2,
            connections: 1,
            body_bytes: 0,
            seed: 1,
        }
    }

    #[test]
    fn every_answer_is_counted_as_what_it_is() {
        let (load, mut answers) = (load(5), Answers::default());
        let numbers: Vec<u64> = std::iter::from_fn(|| answers.take(load.requests)).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        let took = Duration::from_millis(2);
        let failed = || Err(anyhow::anyhow!("reset"));
        assert!(answers.note(&load, &Ok(true), took).is_none());
        let warm = answers.note(&load, &failed(), took);
        assert!(matches!(warm, Some(Line::Warm { .. })));
        for answer in [Ok(true), Ok(false), Ok(true)] {
            assert!(answers.note(&load, &answer, took).is_none(), "not all are right");
        }
        let end = answers.end(&load);
        assert_eq!((end.distinct, end.lost, end.corrupt), (3, 1, 1));
        assert_eq!((end.p50_us, end.p99_us), (Some(2000), Some(2000)));
    }

    #[test]
    fn the_last_right_answer_ends_it() {
        let (load, mut answers) = (load(3), Answers::default());
        let lines: Vec<Option<Line>> = (0..3)
            .map(|_| answers.note(&load, &Ok(true), Duration::ZERO))
            .collect();
        assert!(matches!(
            lines[..],
            [None, Some(Line::Warm { .. }), Some(Line::All { .. })]
        ));
        assert_eq!(answers.end(&load).lost, 0);
    }

    #[test]
    fn a_path_holds_the_number() {
        assert_eq!(number_in("/17").unwrap(), 17);
        number_in("/").unwrap_err();
        number_in("17").unwrap_err();
    }
}
