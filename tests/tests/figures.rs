//! The figures are measured and printed; nothing about time is asserted, because machines differ.

use std::process::Command;

#[tokio::test]
async fn zero_to_one_is_measured_over_fifty_runs_each() {
    let (output, said) = suite::programs::run(Command::new(env!("CARGO_BIN_EXE_figures"))).await;
    assert!(output.status.success(), "{said}");
    for line in [
        "publish -> request at the worker",
        "HTTP call -> request at the worker",
        "idle sidecar: RSS",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    testkit::say(&said);
}
