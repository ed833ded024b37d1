//! The admin port: health, status as JSON, metrics.

use crate::fleet::WorkerFleet;
use crate::scaling::Reports;
use futures_util::future::{Ready, ready};
use http::{Method, StatusCode};
use ops::admin::{AdminRequest, AdminResponse};
use ops::shutdown::Shutdown;
use serde_json::{Value, json};
use std::sync::Arc;

/// A handler for [`ops::admin::Bound::serve`].
pub(crate) fn answering(
    fleets: Vec<WorkerFleet>,
    reports: Reports,
    shutdown: Shutdown,
) -> impl Fn(AdminRequest) -> Ready<AdminResponse> + Clone + Send + Sync + 'static {
    let (fleets, reports) = (Arc::new(fleets), Arc::new(reports));
    move |request| {
        if request.method != Method::GET {
            return ready(AdminResponse::text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is answered here",
            ));
        }
        ready(match request.path.as_str() {
            "/readyz" if shutdown.is_draining() => {
                AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, "draining")
            }
            "/healthz" | "/readyz" => AdminResponse::text(StatusCode::OK, "ok"),
            "/status" => AdminResponse::json(StatusCode::OK, &status(&fleets, &reports, &shutdown)),
            "/metrics" => AdminResponse::metrics(ops::metrics::install().render()),
            _ => AdminResponse::not_found("/healthz, /readyz, /status, /metrics"),
        })
    }
}

fn status(fleets: &[WorkerFleet], reports: &Reports, shutdown: &Shutdown) -> Value {
    let workers: Vec<Value> = fleets
        .iter()
        .map(|fleet| {
            let mut status = fleet.to_json();
            let report = reports
                .get(fleet.label())
                .and_then(|report| report.borrow().clone());
            status["waiting"] = json!(report.as_ref().and_then(|report| report.ready));
            status["desired"] = json!(report.as_ref().map(|report| report.desired));
            status["decision"] = json!(report.map(|report| report.sentence));
            status
        })
        .collect();
    json!({ "draining": shutdown.is_draining(), "workers": workers })
}
