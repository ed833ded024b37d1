//! Small HTTP exchanges with sidecars and activators, on connections that are kept.

use futures_util::FutureExt;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that an exchange may take, connecting included.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// From this many kept connections on, closed ones are looked for.
const TIDY_FROM: usize = 64;

type Sender = SendRequest<Empty<Bytes>>;

/// Connections by address; at most one of each is kept.
#[derive(Debug, Default)]
pub(super) struct Http {
    kept: Mutex<HashMap<SocketAddr, Sender>>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Http {
    /// Sends a request without a body and returns the whole answer, whatever its status.
    ///
    /// # Errors
    /// Why there is no answer, in a sentence.
    pub(super) async fn send(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        token: Option<&str>,
    ) -> Result<Answer, String> {
        let exchange = async {
            if let Some(sender) = self.take(address)
                && let Ok(answer) = self.exchange(sender, &method, address, path, token).await
            {
                return Ok(answer);
            }
            // The kept one was closed under our feet, or there was none. Everything that is sent may be sent twice.
            let sender = connect(address).await?;
            self.exchange(sender, &method, address, path, token).await
        };
        let late = || format!("{address} did not answer within {} ms", PATIENCE.as_millis());
        timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_elapsed| Err(late()))
    }

    async fn exchange(
        &self,
        mut sender: Sender,
        method: &Method,
        address: SocketAddr,
        path: &str,
        token: Option<&str>,
    ) -> Result<Answer, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{address} did not answer: {error}");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|error| failed(&error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| failed(&error))?
            .to_bytes();
        // A connection that is not ready for another request by now is about to close.
        if sender.ready().now_or_never().is_some_and(|ready| ready.is_ok()) {
            self.keep(address, sender);
        }
        Ok(Answer { status, body })
    }

    fn take(&self, address: SocketAddr) -> Option<Sender> {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&address);
        kept.filter(|sender| !sender.is_closed())
    }

    fn keep(&self, address: SocketAddr, sender: Sender) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TIDY_FROM {
            kept.retain(|_, sender| !sender.is_closed());
        }
        kept.insert(address, sender);
    }
}

async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{address} cannot be reached: {error}");
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| failed(&error))?;
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    // It ends with its sender; what goes wrong is told to whoever waits for an answer.
    tokio::spawn(connection.map(drop));
    Ok(sender)
}
