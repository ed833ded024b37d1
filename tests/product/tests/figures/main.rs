//! What it takes, measured on a real Kubernetes: printed, and written to `target/cluster-figures.json`. Nothing is
//! asserted about time; machines differ and are busy.
#![expect(clippy::unwrap_used, reason = "everything here is a test")]

mod cold;
mod distribution;
mod memory;

use distribution::Distribution;
use product::Product;
use serde_json::{Value, json};

/// How many cold starts of each kind.
const ROUNDS: usize = 12;

#[tokio::test]
async fn figures() {
    if cluster::skip("figures") {
        return;
    }
    let product = Product::shared().await;
    let mut rows: Vec<(String, Distribution)> = Vec::new();
    rows.extend(named(
        "publish to first byte",
        cold::by_message(product, ROUNDS).await,
    ));
    rows.extend(named("call to first byte", cold::by_call(product, ROUNDS).await));
    testkit::say(&format!(
        "{:<60} {:>8} {:>8} {:>8} {:>4}",
        "milliseconds", "p50", "p90", "max", "n"
    ));
    for (name, distribution) in &rows {
        testkit::say(&format!("{name:<60} {distribution}"));
    }
    let reviews = memory::review_latency(product).await;
    testkit::say(&reviews);
    let memory = memory::with_annotated_deployments(product, 100).await;
    for (component, kilobytes) in &memory {
        testkit::say(&format!(
            "{component}: {kilobytes} KiB resident with 100 annotated Deployments"
        ));
    }
    let document = json!({
        "cold_starts_ms": rows.iter().map(|(name, distribution)| (name.clone(), distribution.to_json())).collect::<serde_json::Map<String, Value>>(),
        "injector_reviews": reviews,
        "resident_kib_with_100_deployments": memory,
    });
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("cluster-figures.json");
    std::fs::write(&file, serde_json::to_string_pretty(&document).unwrap()).unwrap();
    testkit::say(&format!("written to {}", file.display()));
}

fn named(prefix: &str, phases: Vec<(&'static str, Distribution)>) -> Vec<(String, Distribution)> {
    phases
        .into_iter()
        .map(|(phase, distribution)| (format!("{prefix}: {phase}"), distribution))
        .collect()
}
