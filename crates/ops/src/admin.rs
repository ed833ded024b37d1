//! The admin server: a handful of small answers on a port of their own, served until the very end of a drain so that
//! probes and `/metrics` keep answering.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client that has not sent its request head by then is cut off, so that idle sockets cannot pile up.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A body that is not there by then has broken off.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// What a stop leaves to answers that are being written.
const CLOSING_TIME: Duration = Duration::from_millis(500);
/// The longest that nothing is accepted when the system has no socket to give.
const PAUSE: Duration = Duration::from_millis(20);

/// A request to the admin port.
#[derive(Debug, Clone)]
pub struct AdminRequest {
    /// The HTTP method.
    pub method: Method,
    /// The path without the query, `/status`.
    pub path: String,
    /// The query without `?`; empty when there is none.
    pub query: String,
    /// Whether a page in a browser asks: it says so by `Origin`, which no page can leave out of a POST. A page from
    /// anywhere can reach loopback, and must not be able to change anything
    /// (<https://fetch.spec.whatwg.org/#origin-header>).
    pub is_from_page: bool,
    /// The token of `Authorization: Bearer …`.
    pub bearer: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body of a POST, where bodies are read ([`Bound::with_bodies`]); empty where they are not. `None` when it is
    /// longer than is read, or broke off.
    pub body: Option<Bytes>,
    /// Who asks. State-changing endpoints may be for loopback only.
    pub peer: SocketAddr,
}

/// An answer of the admin port.
#[derive(Debug, Clone)]
pub struct AdminResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// The media type of `body`.
    pub content_type: &'static str,
    /// The whole body.
    pub body: String,
}

impl AdminResponse {
    /// Plain text; a line feed is added.
    pub fn text(status: StatusCode, body: impl AsRef<str>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{}\n", body.as_ref()),
        }
    }

    /// A JSON document.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: format!("{body}\n"),
        }
    }

    /// Metrics in the Prometheus text format.
    pub fn metrics(page: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: page,
        }
    }

    /// 404 with the paths that exist.
    pub fn not_found(known: &str) -> Self {
        Self::text(StatusCode::NOT_FOUND, format!("no such path; there is {known}"))
    }
}

/// A bound admin port that does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    body_bytes: usize,
}

/// Binds the admin port; port 0 chooses a free one.
///
/// # Errors
/// When the address cannot be bound, a sentence that names it.
pub async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("admin address {address} cannot be bound: {error}"),
        )
    })?;
    Ok(Bound {
        listener,
        body_bytes: 0,
    })
}

impl Bound {
    /// The address that was bound.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Reads bodies of POSTs from this machine, up to so many bytes each. Those from the network stay unread: anybody
    /// could fill the memory with them.
    #[must_use]
    pub fn with_bodies(self, most: usize) -> Self {
        Self {
            body_bytes: most,
            ..self
        }
    }

    /// Answers until `stop`, then closes within half a second.
    pub async fn serve<F, A>(self, handler: F, stop: CancellationToken)
    where
        F: Fn(AdminRequest) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = AdminResponse> + Send + 'static,
    {
        let connections = TaskTracker::new();
        loop {
            // Accepting is cancel safe.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of file descriptors, or the client went away: the next one may do better, if not at once.
                let _stopped = tokio::time::timeout(PAUSE, stop.cancelled()).await;
                continue;
            };
            let (handler, stop) = (handler.clone(), stop.clone());
            let body_bytes = if peer.ip().to_canonical().is_loopback() {
                self.body_bytes
            } else {
                0
            };
            connections.spawn(async move {
                let service = service_fn(move |request| answer(handler.clone(), request, body_bytes, peer));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    // A client's protocol error concerns that client alone.
                    _ = connection.as_mut() => return,
                    () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
                }
                let _closed = tokio::time::timeout(CLOSING_TIME, connection).await;
            });
        }
        connections.close();
        connections.wait().await;
    }
}

async fn answer<F, A>(
    handler: F,
    request: http::Request<Incoming>,
    body_bytes: usize,
    peer: SocketAddr,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(AdminRequest) -> A,
    A: Future<Output = AdminResponse>,
{
    let (request, body) = request.into_parts();
    let is_head = request.method == Method::HEAD;
    let body = if body_bytes > 0 && request.method == Method::POST {
        read(body, body_bytes).await
    } else {
        Some(Bytes::new())
    };
    let answer = handler(AdminRequest {
        method: if is_head { Method::GET } else { request.method },
        path: request.uri.path().to_owned(),
        query: request.uri.query().unwrap_or_default().to_owned(),
        is_from_page: request.headers.contains_key(header::ORIGIN),
        bearer: bearer(&request.headers),
        headers: request.headers,
        body,
        peer,
    })
    .await;
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(answer.content_type),
    );
    if answer.status == StatusCode::UNAUTHORIZED {
        // RFC 9110, section 15.5.2, asks for it.
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Ok(response)
}

/// A whole body of at most `most` bytes.
async fn read(body: Incoming, most: usize) -> Option<Bytes> {
    let reading = Limited::new(body, most).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    Some(collected.ok()?.ok()?.to_bytes())
}

/// The token of `Authorization: Bearer <token>`; the scheme may be written in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_until_stopped_and_then_closes() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = bound.addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(bound.serve(
            |request| async move {
                AdminResponse::text(StatusCode::OK, format!("{} {}", request.method, request.path))
            },
            stop.clone(),
        ));
        let answer = exchange(
            address,
            "GET /healthz?x=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("GET /healthz\n"),
            "{answer}"
        );
        let refused = exchange(address, "nonsense\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = bound.addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
