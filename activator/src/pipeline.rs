//! Life of a request. **Read this first.**
//!
//! 1. **route**: which target, and what of the path is the worker's (`domain/route.rs`). `/async/…` leaves here for
//!    the queue (`enqueue.rs`).
//! 2. **count**: from here to the last byte of the answer the call is part of its target's load (`load.rs`).
//! 3. **admit**: a call that no endpoint can take at once needs a place in the buffer (`domain/buffer.rs`).
//! 4. **wake**: the first one that waits wakes the target, all wait for its socket (`waker.rs`, `domain/wake.rs`).
//! 5. **forward**: sent once, streamed both ways (`proxy/`).
//!
//! Every request gets exactly one answer. The worker gives it, or it is a `Reject` with a reason:
//!
//! | step | outcome | answer |
//! |---|---|---|
//! | – | breaks HTTP | 400, 405, 501 |
//! | route | no target, several, no queue | 404 |
//! | enqueue | confirmed | 202 |
//! | enqueue | too large, too slow, bad key | 413, 431, 408, 400 |
//! | enqueue | broker away, or silent | 503, `Retry-After` |
//! | admit | buffer full | 503, `Retry-After` |
//! | wake | not started, or no socket accepts, in time | 504, 502, with the cause |
//! | wake | the activator shuts down | 503, `Retry-After` |
//! | forward | connection broke, no HTTP, silent | 502, 502, 504 |
//! | any | the caller goes away | nobody hears it; its place is free at once |

use crate::answer::{self, Answer};
use crate::config::Limits;
use crate::domain::buffer::{Buffer, Ticket};
use crate::domain::reject::{Reason, Reject};
use crate::domain::route::{Directory, Route, resolve};
use crate::enqueue::{Mailer, Queued, queue_for};
use crate::proxy::body::{ResponseBody, discard};
use crate::proxy::forward::{Outbound, Sent, Way, send};
use crate::proxy::headers;
use crate::proxy::pool::Lease;
use crate::proxy::server::Peer;
use crate::proxy::tunnel::Tunnels;
use crate::proxy::upstream::PROBE_EVERY;
use crate::targets::{TargetName, TargetState};
use crate::telemetry::{self, Access};
use crate::waker::{Target, Waker};
use http::uri::PathAndQuery;
use http::{Request, Response, request};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;

/// Everything that a request passes on its way.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) limits: Limits,
    pub(crate) buffer: Buffer,
    pub(crate) waker: Waker,
    pub(crate) mailer: Mailer,
    pub(crate) tunnels: Tunnels,
}

impl Pipeline {
    /// Answers one request, exactly once. Dropping this future, as hyper does when a caller's stream ends, gives the
    /// call's places back.
    pub(crate) async fn serve(&self, request: Request<Incoming>, peer: &Peer) -> Response<ResponseBody> {
        let mut access = Access::begin(request.method());
        let (head, body) = request.into_parts();
        let is_still_sending = answer::is_still_sending(&head, &body);
        let mut body = Some(body);
        // Neither branch is polled again after the other one has won.
        let answer = tokio::select! {
            biased;
            answer = self.answer(head, &mut body, peer, &mut access) => answer,
            () = peer.socket.closed_by_peer() => Err(Reject::new(Reason::ClientGone, "the caller has hung up")),
        };
        match (answer, body) {
            (Ok(answer), _) => answer::given(answer, access, &self.tunnels),
            (Err(reject), Some(body)) if is_still_sending && reject.reason != Reason::ClientGone => {
                discard(body).await;
                answer::rejected(&reject, access)
            }
            (Err(reject), _) => answer::rejected(&reject, access),
        }
    }

    /// Step 1: which way does it go?
    async fn answer(
        &self,
        head: request::Parts,
        body: &mut Option<Incoming>,
        peer: &Peer,
        access: &mut Access,
    ) -> Result<Answer, Reject> {
        let authority = headers::authority(&head)?;
        let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let route = resolve(&peer.routing, authority.as_deref(), path, &self.waker);
        match route.map_err(|unrouted| Reject::unrouted(&unrouted))? {
            Route::Enqueue { target, rest } => {
                access.is_for(&target);
                let queued = self.enqueue(&target, &head, rest, body).await;
                telemetry::async_call(queued.as_ref().err().map(|reject| reject.reason));
                Ok(Answer::Queued(queued?))
            }
            Route::Forward { target, path, prefix } => {
                access.is_for(&target);
                let way = Way {
                    authority: authority.as_deref(),
                    path: &path,
                    prefix: prefix.as_deref(),
                };
                let outbound = Outbound::new(head, body.as_ref(), &way, peer)?;
                self.forward(&target, outbound, body, access).await
            }
        }
    }

    /// For the queue: confirmed by the broker, or not taken.
    async fn enqueue(
        &self,
        target: &TargetName,
        head: &request::Parts,
        rest: Option<String>,
        body: &mut Option<Incoming>,
    ) -> Result<Queued, Reject> {
        let queue = queue_for(target, &head.method, self.waker.queue(target))?;
        let _ticket = self.admit(target, self.mailer.cost(head))?;
        self.mailer.enqueue(target, queue, head, rest, body).await
    }

    /// Steps 2 to 5: for the worker.
    async fn forward(
        &self,
        name: &TargetName,
        mut outbound: Outbound,
        body: &mut Option<Incoming>,
        access: &mut Access,
    ) -> Result<Answer, Reject> {
        let (target, states) = self.waker.find(name)?;
        let in_flight = target.load.enter();
        let deadline = access.started() + self.limits.wake_timeout;
        while Instant::now() < deadline {
            let lease = match self.waker.at_once(&target, &states).await {
                Some(lease) => lease,
                None => {
                    self.hold(&target, &states, deadline, outbound.held, access)
                        .await?
                }
            };
            let (upgrade, held) = (outbound.upgrade.take(), outbound.held);
            match send(lease, outbound.with(body), name, self.limits.response_timeout).await {
                Sent::Answered(response, lease) => {
                    return Ok(Answer::worker(response, lease, in_flight, upgrade));
                }
                Sent::Rejected(reject) => return Err(reject),
                Sent::Unsent(request) => outbound = Outbound::unsent(request, body, upgrade, held),
            }
            // A socket that accepts and closes at once, as a port mapping without its program does, is one that
            // does not accept yet.
            tokio::time::sleep(PROBE_EVERY).await;
        }
        let detail = format!("{name} accepted connections and closed them until the wait was over");
        Err(Reject::new(Reason::UpstreamConnect, detail))
    }

    /// Steps 3 and 4: a place in the buffer, and a connection as soon as there is one.
    async fn hold(
        &self,
        target: &Target,
        states: &watch::Receiver<TargetState>,
        deadline: Instant,
        bytes: u64,
        access: &mut Access,
    ) -> Result<Lease, Reject> {
        let ticket = self.admit(&target.name, bytes)?;
        let since = Instant::now();
        let woken = self.waker.wait(target, states.clone(), deadline).await;
        drop(ticket);
        telemetry::waited(since.elapsed(), woken.as_ref().err().map(|reject| reject.reason));
        let woken = woken?;
        if woken.was_cold {
            access.has_waited(access.started().elapsed());
        }
        Ok(woken.lease)
    }

    fn admit(&self, target: &TargetName, bytes: u64) -> Result<Ticket, Reject> {
        let bounds = self.buffer.bounds();
        self.buffer
            .admit(target, bytes)
            .map_err(|full| Reject::full(full, target, bounds))
    }
}
