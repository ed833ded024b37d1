//! Asks a starting worker itself whether it is ready.
//!
//! The kubelet asks once when a container starts and then every `periodSeconds`, 10 s unless somebody says otherwise; a
//! call that waits for the worker would wait for that too. The question is the one that the pod's readiness probe says:
//! a GET whose answer has a status from 200 to 399
//! (<https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/>).

use super::workload::HttpProbe;
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;

/// How often. A GET within a cluster takes a fraction of a millisecond, and a handler of such probes not much more.
const EVERY: Duration = Duration::from_millis(20);
/// How long an answer may take; the kubelet's own default.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks until the answer is good, or nobody wants to know any more; whether it was good. Cancel safe.
pub(crate) async fn until_ready(ip: IpAddr, probe: &HttpProbe, wanted: impl Fn() -> bool) -> bool {
    let address = SocketAddr::new(ip, probe.port);
    while wanted() {
        if tokio::time::timeout(PATIENCE, ask(address, probe)).await == Ok(Some(true)) {
            return true;
        }
        tokio::time::sleep(EVERY).await;
    }
    false
}

/// One question; `None` when there was no answer.
async fn ask(address: SocketAddr, probe: &HttpProbe) -> Option<bool> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let mut request = Request::get(probe.path.as_str())
        .body(Empty::<Bytes>::new())
        .ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(address.to_string()).ok()?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in &probe.headers {
        headers.insert(
            HeaderName::try_from(name).ok()?,
            HeaderValue::try_from(value).ok()?,
        );
    }
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let mut has_ended = false;
    loop {
        // Neither is polled again once it is done. The end of the connection ends the answer too.
        tokio::select! {
            biased;
            answer = &mut answer => {
                let status = answer.ok()?.status();
                return Some(status.is_success() || status.is_redirection());
            }
            _ended = &mut connection, if !has_ended => has_ended = true,
        }
    }
}
