//! Everything the activator tells about itself: one function an event, so that log line and metric never disagree.
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `activator_rejections_total` | counter | `reason` |
//! | `activator_wakes_total` | counter | `result` = `woken`, `asked_again` |
//! | `activator_scale_requests_total` | counter | `result` = `asked` |
//! | `activator_scales_total` | counter | `result` = `scaled`, `already_up`, `failed`; on a cluster |
//! | `activator_slice_writes_total` | counter | `result` = `written`, `withdrawn`, `failed`; on a cluster |
//! | `activator_services_stood_in_for` | gauge | – ; on a cluster |
//! | `activator_buffer_wait_seconds` | histogram | `result` = `forwarded`, or a rejection's reason |
//! | `activator_cold_start_duration_seconds` | histogram | `namespace`, `deployment` |
//! | `activator_buffered_requests`, `activator_buffer_capacity` | gauge | `namespace`, `deployment` |
//! | `activator_target_state` | gauge, 1 for the one that it is in | `namespace`, `deployment`, `state` |
//! | `activator_ready_endpoints` | gauge | `namespace`, `deployment` |
//! | `activator_broker_connected` | gauge 0/1 | – |
//! | `activator_async_calls_total` | counter | `result` = `confirmed`, or a rejection's reason |
//! | `http_server_request_duration_seconds` | histogram | `http_request_method`, `http_response_status_code` |
//!
//! Labels come from enums and from the names of targets, never from callers. The log says changes: a target is
//! woken, falls asleep, the broker comes and goes. One line a call is for `debug`, target `access`.

#![expect(
    clippy::disallowed_macros,
    reason = "this is the one module that names metrics"
)]

use crate::domain::reject::Reason;
use crate::domain::wake::State;
use crate::targets::TargetName;
use http::{Method, StatusCode};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

const REJECTIONS: &str = "activator_rejections_total";
const WAKES: &str = "activator_wakes_total";
const SCALE_REQUESTS: &str = "activator_scale_requests_total";
const SCALES: &str = "activator_scales_total";
const SLICE_WRITES: &str = "activator_slice_writes_total";
const STOOD_IN_FOR: &str = "activator_services_stood_in_for";
const BUFFER_WAIT: &str = "activator_buffer_wait_seconds";
const COLD_START: &str = "activator_cold_start_duration_seconds";
const BUFFERED: &str = "activator_buffered_requests";
const CAPACITY: &str = "activator_buffer_capacity";
const TARGET_STATE: &str = "activator_target_state";
const READY_ENDPOINTS: &str = "activator_ready_endpoints";
const BROKER_CONNECTED: &str = "activator_broker_connected";
const ASYNC_CALLS: &str = "activator_async_calls_total";
const REQUEST_DURATION: &str = "http_server_request_duration_seconds";

/// Describes every metric to the recorder that is installed.
pub(crate) fn describe() {
    describe_counter!(
        REJECTIONS,
        "Calls that were answered without the worker, by reason."
    );
    describe_counter!(WAKES, "Wakes, by what came of them.");
    describe_counter!(SCALE_REQUESTS, "Times that a target was asked to leave zero.");
    describe_histogram!(
        BUFFER_WAIT,
        Unit::Seconds,
        "How long calls waited for an endpoint."
    );
    describe_histogram!(
        COLD_START,
        Unit::Seconds,
        "From the ask for a wake to the first endpoint."
    );
    describe_gauge!(BUFFERED, "Calls that wait for an endpoint.");
    describe_gauge!(CAPACITY, "Calls that may wait for an endpoint.");
    describe_gauge!(
        TARGET_STATE,
        "1 for the state that the target is in, 0 for the others."
    );
    describe_gauge!(READY_ENDPOINTS, "Endpoints of the target.");
    describe_gauge!(
        BROKER_CONNECTED,
        "Whether the last asynchronous call found the broker there."
    );
    describe_counter!(ASYNC_CALLS, "Asynchronous calls, by result.");
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "From a request's head to the end of its answer."
    );
}

/// Describes the metrics that there are on a cluster only.
pub(crate) fn describe_cluster() {
    describe_counter!(SCALES, "Writes to the scale of targets at zero.");
    describe_counter!(SLICE_WRITES, "Writes of EndpointSlices.");
    describe_gauge!(
        STOOD_IN_FOR,
        "Services that this replica has an EndpointSlice behind."
    );
}

/// A target's scale was written, or had been by somebody else.
pub(crate) fn scaled(target: &TargetName, replicas: u32, is_ours: bool) {
    if is_ours {
        counter!(SCALES, "result" => "scaled").increment(1);
        tracing::info!(%target, replicas, "scaled up from zero");
    } else {
        counter!(SCALES, "result" => "already_up").increment(1);
    }
}

/// A target's scale could not be written.
pub(crate) fn scale_failed(target: &TargetName, cause: &str) {
    counter!(SCALES, "result" => "failed").increment(1);
    tracing::warn!(%target, cause, "cannot be woken; trying again");
}

/// An EndpointSlice was written, or removed.
pub(crate) fn slice_written(namespace: &str, slice: &str, stands: bool) {
    if stands {
        counter!(SLICE_WRITES, "result" => "written").increment(1);
        tracing::info!(namespace, slice, "stands in for a Service");
    } else {
        counter!(SLICE_WRITES, "result" => "withdrawn").increment(1);
        tracing::info!(namespace, slice, "slice withdrawn");
    }
}

/// An EndpointSlice could not be written; `is_first` when the last one could.
pub(crate) fn slice_failed(cause: &str, is_first: bool) {
    counter!(SLICE_WRITES, "result" => "failed").increment(1);
    if is_first {
        tracing::warn!(
            cause,
            "an EndpointSlice cannot be written: Services of targets at zero cannot be called until it can"
        );
    }
}

/// EndpointSlices can be written again.
pub(crate) fn slices_recovered() {
    tracing::info!("EndpointSlices can be written again");
}

/// How many Services this replica stands in for now.
#[expect(clippy::cast_precision_loss, reason = "a gauge of a count, which is small")]
pub(crate) fn stands_in_for(services: usize) {
    gauge!(STOOD_IN_FOR).set(services as f64);
}

/// A target that was at zero is asked to leave it.
pub(crate) fn wake_asked(target: &TargetName, again: bool) {
    counter!(SCALE_REQUESTS, "result" => "asked").increment(1);
    if again {
        counter!(WAKES, "result" => "asked_again").increment(1);
        tracing::warn!(%target, "still no endpoint: asked for a wake again");
    } else {
        tracing::info!(%target, "waking");
    }
}

/// The wake that was asked for has brought an endpoint.
pub(crate) fn woken(target: &TargetName, took: Duration) {
    counter!(WAKES, "result" => "woken").increment(1);
    let labels = [
        ("namespace", target.namespace.clone()),
        ("deployment", target.name.clone()),
    ];
    histogram!(COLD_START, &labels).record(took);
    tracing::info!(%target, took_ms = millis(took), "awake");
}

/// The target has no endpoint any more, and nobody waits for one.
pub(crate) fn fell_asleep(target: &TargetName) {
    tracing::info!(%target, "asleep");
}

/// A call's wait for an endpoint is over; `rejected` when it was in vain.
pub(crate) fn waited(wait: Duration, rejected: Option<Reason>) {
    histogram!(BUFFER_WAIT, "result" => rejected.map_or("forwarded", Reason::as_str)).record(wait);
}

/// An asynchronous call was confirmed, or `rejected`.
pub(crate) fn async_call(rejected: Option<Reason>) {
    counter!(ASYNC_CALLS, "result" => rejected.map_or("confirmed", Reason::as_str)).increment(1);
}

/// The broker can be published to.
pub(crate) fn broker_connected() {
    gauge!(BROKER_CONNECTED).set(1);
    tracing::info!("connected to the broker");
}

/// The broker cannot be published to any more.
pub(crate) fn broker_lost(cause: &str) {
    gauge!(BROKER_CONNECTED).set(0);
    tracing::warn!(
        cause,
        "the broker is away: asynchronous calls are answered 503 until it is back"
    );
}

/// No more connections can be accepted for now.
pub(crate) fn accept_failed(error: &std::io::Error) {
    tracing::error!(%error, "cannot accept connections; is the limit of open files too low?");
}

/// Connections are accepted again.
pub(crate) fn accept_recovered() {
    tracing::info!("accepting connections again");
}

/// What one target looks like now.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    pub(crate) target: &'a TargetName,
    pub(crate) state: State,
    pub(crate) endpoints: usize,
    pub(crate) buffered: usize,
    pub(crate) capacity: usize,
}

/// Publishes a target's gauges.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of calls and endpoints are far below 2^52"
)]
pub(crate) fn observed(snapshot: &Snapshot<'_>) {
    let labels = [
        ("namespace", snapshot.target.namespace.clone()),
        ("deployment", snapshot.target.name.clone()),
    ];
    gauge!(READY_ENDPOINTS, &labels).set(snapshot.endpoints as f64);
    gauge!(BUFFERED, &labels).set(snapshot.buffered as f64);
    gauge!(CAPACITY, &labels).set(snapshot.capacity as f64);
    for state in ["asleep", "waking", "awake"] {
        let [namespace, deployment] = labels.clone();
        let is_in_it = f64::from(u8::from(snapshot.state.as_str() == state));
        gauge!(
            TARGET_STATE,
            &[namespace, deployment, ("state", state.to_owned())]
        )
        .set(is_in_it);
    }
}

/// One call from its head to the end of its answer; says so once, when it is dropped.
#[derive(Debug)]
pub(crate) struct Access {
    method: &'static str,
    started: tokio::time::Instant,
    target: Option<TargetName>,
    status: StatusCode,
    reason: Option<Reason>,
    waited: Option<Duration>,
}

impl Access {
    /// A call that has just come. Until it is answered, its end counts as its caller's going away.
    pub(crate) fn begin(method: &Method) -> Self {
        let reason = Reason::ClientGone;
        Self {
            method: known(method),
            started: tokio::time::Instant::now(),
            target: None,
            status: reason.status(),
            reason: Some(reason),
            waited: None,
        }
    }

    /// When the call came.
    pub(crate) fn started(&self) -> tokio::time::Instant {
        self.started
    }

    /// The call is for this target.
    pub(crate) fn is_for(&mut self, target: &TargetName) {
        self.target = Some(target.clone());
    }

    /// The call had to wait so long for an endpoint.
    pub(crate) fn has_waited(&mut self, wait: Duration) {
        self.waited = Some(wait);
    }

    /// How long the call had to wait for an endpoint, when it had to.
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// The head of the answer is known.
    pub(crate) fn answers(&mut self, status: StatusCode, reason: Option<Reason>) {
        self.status = status;
        self.reason = reason;
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let reason = self.reason.map(Reason::as_str);
        if let Some(reason) = reason {
            counter!(REJECTIONS, "reason" => reason).increment(1);
        }
        let labels = [
            ("http_request_method", self.method.to_owned()),
            ("http_response_status_code", self.status.as_u16().to_string()),
        ];
        histogram!(REQUEST_DURATION, &labels).record(took);
        tracing::debug!(
            target: "access",
            reason,
            http.request.method = self.method,
            http.response.status_code = self.status.as_u16(),
            target_name = self.target.as_ref().map(tracing::field::display),
            waited_ms = self.waited.map(millis),
            took_ms = millis(took),
            "answered"
        );
    }
}

/// The method as a label: callers may invent methods, labels are bounded.
///
/// Source: OpenTelemetry semantic conventions, `http.request.method`.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => "_OTHER",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
