//! A tiny HTTP/1.1 client, one connection a call.

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::fmt;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use http::{HeaderMap, Method, StatusCode};

/// How long the head of an answer may take: a call that waits longer is a test that hangs.
const PATIENCE: Duration = Duration::from_mins(2);

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }
}

/// An answer whose body is read piece by piece. Dropping it closes the connection.
pub struct Streaming {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Streaming {
    /// The next piece of the body, `None` after the last one.
    ///
    /// # Errors
    ///
    /// The body ended before it was complete.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error(format!("the answer broke off: {error}"))),
                // A frame that is not data holds trailers.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl fmt::Debug for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Calls `GET url`, for example `http://127.0.0.1:8080/status`.
///
/// # Errors
///
/// No connection, or no complete answer. Every status is an answer.
pub async fn get(url: &str) -> Result<Response, Error> {
    request(Method::GET, url, &[], Bytes::new()).await
}

/// Calls `POST url` with headers and a body.
///
/// # Errors
///
/// As [`get`].
pub async fn post(url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Response, Error> {
    request(Method::POST, url, headers, body).await
}

/// Calls `url` and reads the whole answer.
///
/// # Errors
///
/// As [`get`].
pub async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Response, Error> {
    let mut answer = open(method, url, headers, Full::new(body.into())).await?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    Ok(Response {
        status: answer.status,
        headers: std::mem::take(&mut answer.headers),
        body: body.into(),
    })
}

/// Calls `url` with a body that may be a stream, and returns when the head of the answer is there.
///
/// # Errors
///
/// No connection, or no answer.
pub async fn open<B>(method: Method, url: &str, headers: &[(&str, &str)], body: B) -> Result<Streaming, Error>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |what: &str, error: &dyn fmt::Display| Error(format!("{method} {url}: {what}: {error}"));
    let uri: http::Uri = url.parse().map_err(|error| failed("not a URL", &error))?;
    let authority = uri
        .authority()
        .ok_or_else(|| failed("not a URL", &"no host"))?
        .clone();
    let address = (
        authority.host().trim_matches(['[', ']']),
        authority.port_u16().unwrap_or(80),
    );
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);

    let mut request = http::Request::builder().method(method.clone()).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", authority.as_str());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Box::pin(body))
        .map_err(|error| failed("not a request", &error))?;

    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| failed("no connection", &error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed("no connection", &error))?;
    // What ends the connection shows in the answer as well.
    let connection = tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let connection = AbortOnDrop(Some(connection));
    let answer = timeout(PATIENCE, sender.send_request(request)).await;
    let answer = answer.map_err(|_| failed("no answer", &format!("waited {PATIENCE:?}")))?;
    let (head, body) = answer.map_err(|error| failed("no answer", &error))?.into_parts();
    Ok(Streaming {
        status: head.status,
        headers: head.headers,
        body,
        connection: connection.keep(),
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Ends a connection whose call failed or was given up.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().expect("invariant: taken once, here")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
