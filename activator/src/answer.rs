//! How answers look: the worker's, the queue's, and ours.

use crate::domain::reject::{Reason, Reject};
use crate::enqueue::{Queued, confirmation, id_header};
use crate::load::InFlight;
use crate::proxy::body::ResponseBody;
use crate::proxy::headers;
use crate::proxy::pool::Lease;
use crate::proxy::tunnel::Tunnels;
use crate::telemetry::Access;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT, RETRY_AFTER, UPGRADE};
use http::{HeaderValue, Response, StatusCode, Version, request};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

/// What a request got that was not rejected.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The broker's confirmation.
    Queued(Queued),
    /// The worker's answer, with what must last as long as its body.
    Worker {
        response: Box<Response<Incoming>>,
        lease: Lease,
        in_flight: InFlight,
        upgrade: Option<OnUpgrade>,
    },
}

impl Answer {
    /// The worker's answer.
    pub(crate) fn worker(
        response: Box<Response<Incoming>>,
        lease: Lease,
        in_flight: InFlight,
        upgrade: Option<OnUpgrade>,
    ) -> Self {
        Self::Worker {
            response,
            lease,
            in_flight,
            upgrade,
        }
    }
}

/// Whether a caller is in the middle of sending a body, and would lose an answer that comes now together with the end
/// of the connection. HTTP/2 ends streams one by one; who expects a 100 has not begun to send.
pub(crate) fn is_still_sending(head: &request::Parts, body: &Incoming) -> bool {
    head.version != Version::HTTP_2 && !head.headers.contains_key(EXPECT) && !body.is_end_stream()
}

/// The answer to a call that was carried out or queued.
pub(crate) fn given(answer: Answer, mut access: Access, tunnels: &Tunnels) -> Response<ResponseBody> {
    match answer {
        Answer::Queued(queued) => {
            access.answers(StatusCode::ACCEPTED, None);
            let mut response = Response::new(ResponseBody::own(confirmation(&queued), Some(access)));
            *response.status_mut() = StatusCode::ACCEPTED;
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().extend(id_header(&queued));
            response
        }
        Answer::Worker {
            response,
            lease,
            in_flight,
            upgrade,
        } => {
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            match upgrade {
                Some(caller) if switches => switched(*response, caller, (lease, in_flight, access), tunnels),
                None if switches => {
                    let detail = "the worker switched protocols, which nobody asked it for";
                    rejected(&Reject::new(Reason::UpstreamMalformed, detail), access)
                }
                _ => streamed(*response, lease, in_flight, access),
            }
        }
    }
}

/// The answer to a call that was rejected: a problem document of RFC 9457.
pub(crate) fn rejected(reject: &Reject, mut access: Access) -> Response<ResponseBody> {
    let reason = reject.reason;
    access.answers(reason.status(), Some(reason));
    let mut response = Response::new(ResponseBody::own(reject.problem(), Some(access)));
    *response.status_mut() = reason.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // A 404 of a target that is about to be created, for example, may be cached otherwise (RFC 9111 §4.2.2).
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(wait) = reason.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if reason == Reason::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn streamed(
    response: Response<Incoming>,
    lease: Lease,
    in_flight: InFlight,
    mut access: Access,
) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    access.answers(head.status, None);
    headers::to_caller(&mut head.headers, access.waited());
    // Each hop speaks its own version: hyper lowers it again for a caller that needs that.
    head.version = Version::HTTP_11;
    Response::from_parts(head, ResponseBody::worker(body, lease, in_flight, access))
}

fn switched(
    mut response: Response<Incoming>,
    caller: OnUpgrade,
    (lease, in_flight, mut access): (Lease, InFlight, Access),
    tunnels: &Tunnels,
) -> Response<ResponseBody> {
    let worker = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(UPGRADE).cloned();
    let (mut head, _no_body) = response.into_parts();
    access.answers(head.status, None);
    headers::to_caller(&mut head.headers, access.waited());
    head.headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.extend(protocol.map(|protocol| (UPGRADE, protocol)));
    tunnels.open(caller, worker, (lease, in_flight, access));
    Response::from_parts(head, ResponseBody::own("", None))
}
