//! Servers of the bench: the sink that every runner posts to, and the plain proxy. One thread each.

use crate::ledger::{Expected, Ledger};
use crate::line::{Line, say};
use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};

/// How often the count is told while it grows.
const COUNT_EVERY: Duration = Duration::from_millis(200);

/// Where the sink answers with [`crate::line::End`] as JSON.
pub const LEDGER_PATH: &str = "/bench-ledger";

/// Takes every request's body as a message, answers 200 after `think`, and tells on standard output how far it is.
/// Ends on SIGTERM, with the whole ledger.
///
/// # Errors
/// When no port can be had.
pub async fn sink(expected: Expected, think: Duration) -> anyhow::Result<()> {
    let ledger = Rc::new(RefCell::new(Ledger::new(expected)));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("no port for the sink")?;
    let url = format!("http://{}", listener.local_addr()?);
    let serving = {
        let ledger = Rc::clone(&ledger);
        async move {
            say(&Line::Ready { url });
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                // Answers are small: they must not wait for more (RFC 896).
                let _set = stream.set_nodelay(true).is_ok();
                let ledger = Rc::clone(&ledger);
                let service = service_fn(move |request| answer(request, Rc::clone(&ledger), think));
                spawn_local(
                    hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        }
    };
    LocalSet::new()
        .run_until(async move {
            let serving = spawn_local(serving);
            until_terminated(&ledger).await?;
            serving.abort();
            say(&Line::End(ledger.borrow().end()));
            Ok(())
        })
        .await
}

/// Tells the count a few times a second until SIGTERM.
///
/// # Errors
/// When signals cannot be handled.
pub async fn until_terminated(ledger: &RefCell<Ledger>) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut told = 0;
    loop {
        // Both may be dropped: a signal that is not taken yet stays.
        tokio::select! {
            _ = terminated.recv() => return Ok(()),
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
        let distinct = ledger.borrow().distinct();
        if distinct != told {
            told = distinct;
            say(&Line::Count { distinct });
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    ledger: Rc<RefCell<Ledger>>,
    think: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        let end = ledger.borrow().end();
        let json = serde_json::to_vec(&end).unwrap_or_default();
        return Ok(Response::new(Full::from(json)));
    }
    let body = request.into_body().collect().await;
    // A request that broke off is no arrival.
    let Ok(body) = body else {
        return Ok(Response::new(Full::default()));
    };
    let line = ledger
        .borrow_mut()
        .note(&body.to_bytes(), ops::clock::since_epoch());
    if let Some(line) = line {
        say(&line);
    }
    if !think.is_zero() {
        tokio::time::sleep(think).await;
    }
    Ok(Response::new(Full::default()))
}
