//! Servers of the bench: the sink that every runner posts to, the origin behind proxies, and the plain proxy. One thread
//! each.

use crate::ledger::{Expected, Ledger};
use crate::line::{Line, say};
use crate::{body, load};
use anyhow::Context;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
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

/// Answers each request with its number: that in the path of a `GET`, that in the body of anything else. 400 when the
/// body is not whole. Tells on standard output where it listens; ends by being killed.
///
/// # Errors
/// When it cannot listen there.
pub async fn origin(listen: SocketAddr, body_bytes: usize, seed: u64) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.context("no port")?;
    let url = format!("http://{}", listener.local_addr()?);
    say(&Line::Ready { url });
    let service = service_fn(move |request| numbered(request, body_bytes, seed));
    LocalSet::new().run_until(accept(listener, service)).await
}

async fn numbered(
    request: Request<Incoming>,
    body_bytes: usize,
    seed: u64,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let number = if request.method() == Method::GET {
        load::number_in(request.uri().path()).ok()
    } else {
        let body = request.into_body().collect().await?.to_bytes();
        body::check(seed, body_bytes, &body).map(|stamp| stamp.id)
    };
    let mut response = Response::new(Full::default());
    match number {
        Some(number) => *response.body_mut() = Full::from(load::answer_to(number)),
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

/// Passes every request on to `upstream`, `<address>:<port>`, and its answer back. 502 when there is none.
///
/// # Errors
/// When it cannot listen there.
pub async fn proxy(listen: SocketAddr, upstream: String) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.context("no port")?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<HttpConnector, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let upstream: Arc<str> = upstream.into();
    let service = service_fn(move |request| pass_on(request, client.clone(), Arc::clone(&upstream)));
    LocalSet::new().run_until(accept(listener, service)).await
}

async fn pass_on(
    mut request: Request<Incoming>,
    client: Client<HttpConnector, Incoming>,
    upstream: Arc<str>,
) -> Result<Response<Either<Incoming, Full<Bytes>>>, http::Error> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = Uri::builder()
        .scheme("http")
        .authority(&*upstream)
        .path_and_query(path);
    *request.uri_mut() = uri.build()?;
    match client.request(request).await {
        Ok(response) => Ok(response.map(Either::Left)),
        Err(_) => Response::builder()
            .status(StatusCode::BAD_GATEWAY)
            .body(Either::Right(Full::default())),
    }
}

/// Serves every connection with `service`, for ever.
async fn accept<S, B>(listener: TcpListener, service: S) -> anyhow::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service.clone()),
        );
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
