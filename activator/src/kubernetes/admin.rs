//! The admin port: probes, metrics, and what the autoscaler and people ask.

use super::takeover::Shown;
use super::targets::KubeTargets;
use super::views::Views;
use contract::pods::CALLS_PATH;
use http::{Method, StatusCode};
use ops::admin::{AdminRequest, AdminResponse};
use ops::shutdown::Shutdown;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

const PATHS: &str = "/healthz, /readyz, /metrics, /calls and /status";

/// What the admin port answers from.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) targets: Arc<KubeTargets>,
    pub(crate) views: Views,
    pub(crate) takeover: Option<Shown>,
    /// Whether the views have shown everything once.
    pub(crate) is_loaded: Arc<AtomicBool>,
    pub(crate) shutdown: Shutdown,
}

impl Admin {
    /// Answers one request.
    pub(crate) fn answer(&self, request: &AdminRequest) -> AdminResponse {
        match (&request.method, request.path.as_str()) {
            (&Method::GET, "/healthz") => AdminResponse::text(StatusCode::OK, "ok"),
            (&Method::GET, "/readyz") => match self.unready() {
                None => AdminResponse::text(StatusCode::OK, "ready"),
                Some(why) => AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            (&Method::GET, "/metrics") => AdminResponse::metrics(ops::metrics::install().render()),
            (&Method::GET, CALLS_PATH) => AdminResponse::json(StatusCode::OK, &self.calls()),
            (&Method::GET, "/status") => AdminResponse::json(StatusCode::OK, &self.status()),
            (_, path @ ("/healthz" | "/readyz" | "/metrics" | CALLS_PATH | "/status")) => {
                AdminResponse::text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes GET"))
            }
            _ => AdminResponse::not_found(PATHS),
        }
    }

    fn unready(&self) -> Option<String> {
        if self.shutdown.is_draining() {
            return Some("draining".to_owned());
        }
        if !self.is_loaded.load(Ordering::Relaxed) {
            let why = self
                .views
                .trouble()
                .map(|trouble| format!(": {}", trouble.sentence));
            return Some(format!(
                "the API server has not told everything yet{}",
                why.unwrap_or_default()
            ));
        }
        None
    }

    fn calls(&self) -> Value {
        let calls: Map<String, Value> = self
            .targets
            .calls()
            .into_iter()
            .map(|(name, calls)| (name.to_string(), json!(calls)))
            .collect();
        json!({ "calls": calls })
    }

    fn status(&self) -> Value {
        let targets: Map<String, Value> = self
            .targets
            .known()
            .into_iter()
            .map(|(name, known)| {
                let shown = json!({
                    "kind": known.workload.kind.as_str(),
                    "replicas": known.workload.replicas,
                    "endpoints": known.state.endpoints,
                    "trouble": known.state.trouble,
                    "calls": known.calls,
                    "queue": known.workload.queue,
                });
                (name.to_string(), shown)
            })
            .collect();
        let services: Option<Map<String, Value>> = self.takeover.as_ref().map(|takeover| {
            let shown = takeover.lock().unwrap_or_else(PoisonError::into_inner);
            let service =
                |(name, standing): (&super::takeover::plan::ServiceName, &super::takeover::Standing)| {
                    let shown = json!({
                        "target": standing.candidate.target.to_string(),
                        "needed": standing.candidate.is_needed,
                        "standing_in": standing.stands,
                        "ports": standing.ports,
                    });
                    (format!("{}/{}", name.namespace, name.name), shown)
                };
            shown.iter().map(service).collect()
        });
        let trouble = self.views.trouble().map(
            |trouble| json!({ "sentence": trouble.sentence, "seconds": trouble.since.elapsed().as_secs() }),
        );
        json!({
            "draining": self.shutdown.is_draining(),
            "loaded": self.is_loaded.load(Ordering::Relaxed),
            "out_of_date": trouble,
            "targets": targets,
            "services": services,
        })
    }
}
