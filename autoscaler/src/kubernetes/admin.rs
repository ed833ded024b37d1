//! The admin port.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 once it knows the cluster, whether it leads or stands by; 503 before |
//! | `GET /status` | who leads, and the last report of each target, as JSON |
//! | `GET /metrics` | Prometheus text |

use super::keeper::Board;
use super::lease::Leadership;
use http::{Method, StatusCode};
use ops::admin::{AdminRequest, AdminResponse};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const PATHS: &str = "/healthz, /readyz, /status and /metrics";

/// What the admin port tells.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) identity: Arc<str>,
    pub(super) leadership: Leadership,
    pub(super) board: Board,
    pub(super) is_ready: Arc<AtomicBool>,
}

impl Desk {
    /// Answers one request.
    pub(super) fn answer(&self, request: &AdminRequest) -> AdminResponse {
        if request.method != Method::GET && PATHS.contains(request.path.as_str()) {
            let takes = format!("{} takes GET", request.path);
            return AdminResponse::text(StatusCode::METHOD_NOT_ALLOWED, takes);
        }
        match request.path.as_str() {
            "/healthz" => AdminResponse::text(StatusCode::OK, "ok"),
            "/readyz" if self.is_ready.load(Relaxed) => AdminResponse::text(StatusCode::OK, "ready"),
            "/readyz" => AdminResponse::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the API server has not told yet what there is",
            ),
            "/status" => AdminResponse::json(
                StatusCode::OK,
                &json!({
                    "identity": &*self.identity,
                    "leader": self.leadership.is_held(),
                    "targets": self.board.to_json(),
                }),
            ),
            "/metrics" => AdminResponse::metrics(ops::metrics::install().render()),
            _ => AdminResponse::not_found(PATHS),
        }
    }
}
