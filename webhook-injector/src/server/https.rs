//! `POST /mutate` over TLS.

use crate::domain::pod::Injection;
use crate::{pipeline, telemetry};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The path of reviews.
pub const PATH: &str = "/mutate";

/// The longest review: an API server takes objects of up to 3 MiB, and a review of a change has two of them.
pub const MAX_BODY_BYTES: usize = 7 * 1024 * 1024;

/// Connections at once. An API server keeps a handful.
const MAX_CONNECTIONS: usize = 256;

/// A client that has not finished its handshake by then is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that sends no further request head for this long is cut off. An API server gives up an idle connection
/// after 90 s (client-go's transport); if we were first, a review could be on its way already.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// Shared by all connections.
pub(super) struct Https {
    pub(super) listener: TcpListener,
    pub(super) acceptor: TlsAcceptor,
    /// What is added to pods at this moment.
    pub(super) injection: watch::Receiver<Arc<Injection>>,
    /// From a request's head to its answer.
    pub(super) deadline: Duration,
}

impl Https {
    /// Answers until `closing`, then ends what is in work and returns.
    pub(super) async fn serve(self, closing: CancellationToken) {
        let connections = TaskTracker::new();
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Both are cancel safe. A place is taken first, so that who finds none waits in the listener's queue.
            let accepted = tokio::select! {
                () = closing.cancelled() => break,
                accepted = async {
                    let place = Arc::clone(&free).acquire_owned().await;
                    (place, self.listener.accept().await)
                } => accepted,
            };
            // Out of file descriptors, or the client went away: the next one may do better.
            let (Ok(place), Ok((stream, _))) = accepted else {
                tokio::task::yield_now().await;
                continue;
            };
            let (acceptor, injection) = (self.acceptor.clone(), self.injection.clone());
            let (deadline, closing) = (self.deadline, closing.clone());
            connections.spawn(async move {
                connection(stream, acceptor, injection, deadline, closing).await;
                drop(place);
            });
        }
        // Who connects now is refused at once rather than left waiting.
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    injection: watch::Receiver<Arc<Injection>>,
    deadline: Duration,
    closing: CancellationToken,
) {
    // Small answers must not wait for more; a socket that cannot be told so works all the same.
    stream.set_nodelay(true).ok();
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        telemetry::rejected("handshake_failed");
        return;
    };
    let service = service_fn(move |request| {
        let injection = Arc::clone(&injection.borrow());
        async move { Ok::<_, Infallible>(respond(request, &injection, deadline).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // A client's protocol error concerns that client alone.
        _ = connection.as_mut() => return,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}

/// Why a request is answered without being read as a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoSuchPath,
    NotAPost,
    TooLarge,
    TooSlow,
    Broken,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchPath => "no_such_path",
            Self::NotAPost => "not_a_post",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
        }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let (status, sentence) = match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, format!("no such path; there is {PATH}")),
            Self::NotAPost => (StatusCode::METHOD_NOT_ALLOWED, format!("{PATH} takes POST")),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the review is larger than {MAX_BODY_BYTES} bytes"),
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "the review did not arrive in time".to_owned(),
            ),
            Self::Broken => (StatusCode::BAD_REQUEST, "the review broke off".to_owned()),
        };
        telemetry::rejected(self.as_str());
        let mut response = text(status, sentence);
        // The rest of the body, if there is one, is not waited for.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

async fn respond(
    request: Request<Incoming>,
    injection: &Injection,
    deadline: Duration,
) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return Refusal::NoSuchPath.response();
    }
    if request.method() != Method::POST {
        return Refusal::NotAPost.response();
    }
    let body = request.into_body();
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Refusal::TooLarge.response();
    }
    let body = match tokio::time::timeout(deadline, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Refusal::TooLarge.response(),
        Ok(Err(_)) => return Refusal::Broken.response(),
        Err(_elapsed) => return Refusal::TooSlow.response(),
    };
    match pipeline::answer(&body, injection) {
        Ok(answer) => {
            let mut response = Response::new(Full::from(answer));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(sentence) => text(StatusCode::BAD_REQUEST, sentence),
    }
}

fn text(status: StatusCode, sentence: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(sentence + "\n"));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
