//! One request on one connection: sent once, or not at all.

use crate::domain::reject::{Reason, Reject};
use crate::proxy::body::{Progress, RequestBody, Turn};
use crate::proxy::headers::{self, Origin};
use crate::proxy::pool::Lease;
use crate::proxy::server::{Peer, READ_AHEAD};
use crate::targets::TargetName;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version, request};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// Where a call came from and goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    /// The authority that the caller named.
    pub(crate) authority: Option<&'a str>,
    /// Path and query for the worker.
    pub(crate) path: &'a str,
    /// What was taken off the path.
    pub(crate) prefix: Option<&'a str>,
}

/// A request as its worker shall see it, before its body is attached.
#[derive(Debug)]
pub(crate) struct Outbound {
    head: request::Parts,
    /// The caller's side of a switch to another protocol, when it asks for one.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// The memory that the call holds while it waits, bytes: its head, and what is read ahead of its body.
    pub(crate) held: u64,
}

impl Outbound {
    /// Makes a caller's request into the one for the worker: the worker's path in place of the caller's, headers as
    /// they are for the next hop.
    ///
    /// # Errors
    ///
    /// When what is left of the path is no request target.
    pub(crate) fn new(
        mut head: request::Parts,
        body: Option<&Incoming>,
        way: &Way<'_>,
        peer: &Peer,
    ) -> Result<Self, Reject> {
        let Way {
            authority,
            path,
            prefix,
        } = *way;
        let fields: usize = head
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let ahead = body.map_or(0, |body| body.size_hint().upper().unwrap_or(u64::MAX));
        let held = fields as u64 + path.len() as u64 + ahead.min(u64::from(READ_AHEAD));
        let protocol = headers::upgrade(&head);
        let upgrade = head
            .extensions
            .remove::<OnUpgrade>()
            .filter(|_| protocol.is_some());
        let origin = Origin {
            peer: peer.address,
            authority,
            version: head.version,
            prefix,
            upgrade: protocol,
        };
        headers::to_worker(&mut head.headers, &origin);
        head.uri = Uri::try_from(path).map_err(|error| {
            Reject::new(
                Reason::BadRequest,
                format!("the path cannot be forwarded: {error}"),
            )
        })?;
        head.version = Version::HTTP_11;
        head.extensions.clear();
        Ok(Self { head, upgrade, held })
    }

    /// The request with its body, which `body` then no longer has.
    pub(crate) fn with(self, body: &mut Option<Incoming>) -> Request<RequestBody> {
        Request::from_parts(self.head, RequestBody::new(body.take()))
    }

    /// The same again, after nothing of it was sent.
    pub(crate) fn unsent(
        request: Request<RequestBody>,
        body: &mut Option<Incoming>,
        upgrade: Option<OnUpgrade>,
        held: u64,
    ) -> Self {
        let (head, unsent) = request.into_parts();
        *body = unsent.into_incoming();
        Self { head, upgrade, held }
    }
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The worker has answered; its body comes on this connection.
    Answered(Box<Response<Incoming>>, Lease),
    /// The connection was gone before a byte was sent: the request may go on another one.
    Unsent(Request<RequestBody>),
    /// It failed, and may have been carried out all the same. It is never sent again, whatever its method: only its
    /// caller knows whether that is safe (RFC 9110 §9.2.2).
    Rejected(Reject),
}

/// Sends a request and waits for the head of its answer: at most `patience` since the last byte went either way.
pub(crate) async fn send(
    mut lease: Lease,
    mut request: Request<RequestBody>,
    target: &TargetName,
    patience: Option<Duration>,
) -> Sent {
    if let Ok(endpoint) = HeaderValue::try_from(lease.endpoint().to_string()) {
        // Only a caller that speaks HTTP/1.0 may leave out what HTTP/1.1 asks of us.
        request.headers_mut().entry(HOST).or_insert(endpoint);
    }
    let progress = request.body().progress();
    let Some(sender) = lease.sender() else {
        return Sent::Unsent(request);
    };
    let mut sending = pin!(sender.try_send_request(request));
    // The branch that loses is dropped with the connection, never begun anew.
    let answered = tokio::select! {
        answered = &mut sending => answered,
        () = silent_for(&progress, patience) => return Sent::Rejected(silent(&progress, target, patience)),
    };
    let mut failed = match answered {
        Ok(response) => return Sent::Answered(Box::new(response), lease),
        Err(failed) => failed,
    };
    match failed.take_message() {
        Some(request) => Sent::Unsent(request),
        None => Sent::Rejected(broken(failed.error(), &progress, target)),
    }
}

/// Resolves when nothing has moved for `patience`.
async fn silent_for(progress: &Progress, patience: Option<Duration>) {
    let Some(patience) = patience else {
        return std::future::pending().await;
    };
    loop {
        let due = progress.upload().moved + patience;
        if Instant::now() >= due {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

fn silent(progress: &Progress, target: &TargetName, patience: Option<Duration>) -> Reject {
    let seconds = patience.unwrap_or_default().as_secs_f64();
    match progress.upload().turn {
        Turn::Caller => Reject::new(
            Reason::RequestTimeout,
            format!("the rest of the request did not come within {seconds} s"),
        ),
        Turn::Worker | Turn::BrokenOff => Reject::new(
            Reason::UpstreamTimeout,
            format!("{target} took the request and did not begin to answer within {seconds} s"),
        ),
    }
}

fn broken(error: &hyper::Error, progress: &Progress, target: &TargetName) -> Reject {
    if progress.upload().turn == Turn::BrokenOff {
        return Reject::new(
            Reason::ClientGone,
            "the request broke off in the middle of its body",
        );
    }
    if error.is_parse() {
        let detail = format!("{target} answered with something that is not an HTTP response: {error}");
        return Reject::new(Reason::UpstreamMalformed, detail);
    }
    Reject::new(
        Reason::UpstreamReset,
        format!(
            "{target} closed the connection before it answered; the call may have been carried out, so it is not \
             sent again"
        ),
    )
}
