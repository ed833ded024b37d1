//! The admin port: probes, status, metrics, and the two levers of intake.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 while messages are or could be taken; 503 with the state otherwise |
//! | `GET /status` | what is known, as JSON |
//! | `GET /metrics` | Prometheus text |
//! | `POST /drain` | stops intake; 202 at once, with `?wait` 200 when nothing is in flight any more |
//! | `POST /resume` | takes messages again |
//!
//! The levers answer to loopback only, and not to pages in a browser: anyone on the pod network, or any page that is
//! open on a laptop, could otherwise stop a worker.

use crate::app::Handle;
use crate::status::State;
use http::{Method, StatusCode};
use ops::admin::{AdminRequest, AdminResponse};
use tokio::time::Instant;

const PATHS: &str = "/healthz, /readyz, /status, /metrics, /drain and /resume";

/// Answers one request.
pub async fn answer(handle: Handle, request: AdminRequest) -> AdminResponse {
    match (&request.method, request.path.as_str()) {
        (&Method::GET, "/healthz") => AdminResponse::text(StatusCode::OK, "ok"),
        (&Method::GET, "/readyz") => ready(handle.status().state),
        (&Method::GET, "/status") => status(&handle, StatusCode::OK),
        (&Method::GET, "/metrics") => AdminResponse::metrics(ops::metrics::install().render()),
        (&Method::POST, "/drain" | "/resume") if request.is_from_page => AdminResponse::text(
            StatusCode::FORBIDDEN,
            format!("{} is not for pages in a browser", request.path),
        ),
        (&Method::POST, "/drain" | "/resume") if !request.peer.ip().to_canonical().is_loopback() => {
            AdminResponse::text(
                StatusCode::FORBIDDEN,
                format!(
                    "{} is answered to loopback only; in a pod use `sidecar drain`",
                    request.path
                ),
            )
        }
        (&Method::POST, "/drain") => {
            handle.drain();
            if request.query == "wait" {
                handle.drained().await;
                return status(&handle, StatusCode::OK);
            }
            status(&handle, StatusCode::ACCEPTED)
        }
        (&Method::POST, "/resume") => {
            handle.resume();
            status(&handle, StatusCode::OK)
        }
        (_, "/healthz" | "/readyz" | "/status" | "/metrics") => AdminResponse::text(
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

/// A broker that is away does not make a worker unready: it may answer HTTP calls all the same, and taking it out of
/// its Service would turn one outage into two.
fn ready(state: State) -> AdminResponse {
    let status = match state {
        State::Connecting | State::Consuming => StatusCode::OK,
        State::WaitingForWorker | State::Draining | State::Drained => StatusCode::SERVICE_UNAVAILABLE,
    };
    AdminResponse::text(status, state.as_str())
}

fn status(handle: &Handle, code: StatusCode) -> AdminResponse {
    AdminResponse::json(
        code,
        &handle.status().to_json(handle.queue(), Instant::now().into_std()),
    )
}
