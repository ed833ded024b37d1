//! The admin port: probes, status, metrics, and the two levers of intake.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200; 503 with the state while intake is stopped, and before the worker has answered once |
//! | `GET /status` | what is known, as JSON |
//! | `GET /metrics` | Prometheus text |
//! | `GET /drained` | 200 when the pod ends and its worker may go (`admin/drained.rs`) |
//! | `POST /drain` | stops intake; 202 at once, with `?wait` 200 when nothing is in flight any more |
//! | `POST /resume` | takes messages again |
//! | `POST /callback/…/done` | settles a deferred message (`admin/callback.rs`) |
//!
//! The levers answer to loopback, to those on the network who show a permission for this pod, and not to pages in a
//! browser ([`lever`]): anyone on the pod network, or any page that is open on a laptop, could otherwise stop a worker.

mod callback;
mod drained;

use crate::app::Handle;
use crate::callbacks::Callbacks;
use crate::domain::lever::{self, Caller, Refused};
use crate::status::State;
use crate::telemetry;
use contract::pods::DRAINED_PATH;
use drained::Waits;
use http::{Method, StatusCode};
use ops::admin::{AdminRequest, AdminResponse};
use std::sync::Arc;
use token::Action;
use tokio::time::Instant;

const PATHS: &str = "/healthz, /readyz, /status, /metrics, /drained, /drain and /resume";

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    handle: Handle,
    waits: Arc<Waits>,
}

impl Admin {
    /// Answers for this sidecar.
    pub fn new(handle: Handle) -> Self {
        Self {
            handle,
            waits: Arc::default(),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: AdminRequest) -> AdminResponse {
        if Callbacks::is_callback(&request.path) {
            return self.answer_callback(request).await;
        }
        let request = &request;
        match (&request.method, request.path.as_str()) {
            (&Method::GET, "/healthz") => AdminResponse::text(StatusCode::OK, "ok"),
            (&Method::GET, "/readyz") => self.ready().await,
            (&Method::GET, "/status") => self.status(StatusCode::OK),
            (&Method::GET, "/metrics") => AdminResponse::metrics(ops::metrics::install().render()),
            (&Method::GET, DRAINED_PATH) => self.drained(request).await,
            (&Method::POST, "/drain") => match self.permitted(request, Action::Drain) {
                Ok(()) => self.drain(request).await,
                Err(refused) => refuse(request, refused),
            },
            (&Method::POST, "/resume") => match self.permitted(request, Action::Resume) {
                Ok(()) => self.resume(),
                Err(refused) => refuse(request, refused),
            },
            (_, "/healthz" | "/readyz" | "/status" | "/metrics" | DRAINED_PATH) => AdminResponse::text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} takes GET", request.path),
            ),
            (_, "/drain" | "/resume") => AdminResponse::text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} takes POST", request.path),
            ),
            _ => AdminResponse::not_found(PATHS),
        }
    }

    /// Unready means: do not send this pod anything more, and remove it before others. That is so when it drains, and
    /// until its worker's port answers for the first time, for a worker need not have a probe of its own. A broker that
    /// is away does not make a worker unready, for it may answer calls all the same, and taking it out of its Service
    /// would turn one outage into two; whether a worker that has once answered is ready, its own probe tells.
    async fn ready(&self) -> AdminResponse {
        let status = self.handle.status();
        match (status.draining, status.state) {
            (false, state) if self.handle.worker_has_answered().await => {
                AdminResponse::text(StatusCode::OK, state.as_str())
            }
            (false, _) => unready(State::WaitingForWorker),
            (true, State::Drained) => unready(State::Drained),
            // Intake stops at once, and the state follows.
            (true, _) => unready(State::Draining),
        }
    }

    fn status(&self, code: StatusCode) -> AdminResponse {
        let config = self.handle.config();
        let queue = (!config.report_only).then_some(config.queue.as_str());
        let now = Instant::now().into_std();
        let document = self
            .handle
            .status()
            .to_json(queue, self.handle.connections(), now);
        AdminResponse::json(code, &document)
    }

    async fn drained(&self, request: &AdminRequest) -> AdminResponse {
        let Some(_place) = self.waits.enter(request.peer.ip().to_canonical()) else {
            let sentence = format!("too many wait for {} already; ask again later", request.path);
            return AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, sentence);
        };
        if drained::wait(&self.handle).await {
            AdminResponse::text(StatusCode::OK, "drained")
        } else {
            let sentence = format!(
                "intake is not stopped, and {} does not stop it: it waits for the end of the pod",
                request.path
            );
            AdminResponse::text(StatusCode::CONFLICT, sentence)
        }
    }

    fn permitted(&self, request: &AdminRequest, action: Action) -> Result<(), Refused> {
        let caller = Caller {
            ip: request.peer.ip(),
            is_from_page: request.is_from_page,
            bearer: request.bearer.as_deref(),
        };
        let remote = self.handle.config().remote.as_ref();
        lever::permit(caller, remote, action, ops::clock::since_epoch())
    }

    async fn drain(&self, request: &AdminRequest) -> AdminResponse {
        self.handle.drain();
        if request.query == "wait" {
            self.handle.drained().await;
            return self.status(StatusCode::OK);
        }
        self.status(StatusCode::ACCEPTED)
    }

    fn resume(&self) -> AdminResponse {
        self.handle.resume();
        self.status(StatusCode::OK)
    }
}

fn unready(state: State) -> AdminResponse {
    AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, state.as_str())
}

fn refuse(request: &AdminRequest, refused: Refused) -> AdminResponse {
    telemetry::lever_refused(&request.path, refused);
    let status = if refused.is_unauthorized() {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::FORBIDDEN
    };
    AdminResponse::text(status, refused.sentence(&request.path))
}
