//! The process-wide metrics recorder, rendered as Prometheus text.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Handle;

/// Upper bounds in seconds: OpenTelemetry's advice for HTTP durations, extended for messages that take minutes.
const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// How long samples of histograms may pile up: the exporter folds them only when it is asked to, and a process that
/// nobody scrapes would grow with every message.
const FOLD_EVERY: Duration = Duration::from_secs(5);

/// Installs the recorder on the first call and returns its handle on every call. Without it metrics cost next to
/// nothing and go nowhere. The runtime of the first call keeps the recorder's memory flat for as long as it lives.
///
/// Every histogram gets explicit buckets, because without them this exporter renders summaries, which cannot be
/// aggregated over replicas.
pub fn install() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets(SECONDS)
            .expect("invariant: the bucket list is not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Another recorder in the same process (a test's) wins; the handle then renders nothing.
        let _already_installed = metrics::set_global_recorder(recorder).is_err();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(fold(handle.clone()));
        }
        handle
    })
}

/// Ends with its runtime.
async fn fold(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(FOLD_EVERY).await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn install_is_idempotent_and_renders_buckets() {
        super::install();
        let handle = super::install();
        #[expect(clippy::disallowed_macros, reason = "the recorder itself is under test")]
        metrics::histogram!("test_duration_seconds").record(0.03);
        let page = handle.render();
        assert!(
            page.contains(r#"test_duration_seconds_bucket{le="0.05"} 1"#),
            "{page}"
        );
    }
}
