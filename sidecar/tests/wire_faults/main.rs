//! Everything that can be wrong between the sidecar and its broker, one named test a kind, under load and against a real
//! RabbitMQ: nothing is lost, duplicates stay within the prefetch of each loss, the sidecar consumes again soon, and no
//! fault makes it connect hotly. `docs/reference/faults.md` has the same rows.
//!
//! The seed of each case is printed; `KUBEDAEMON_SEED=…` replays it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod play;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use support::rows_of_the_page;

#[test]
fn the_reference_page_has_every_row() {
    let rows = rows::ROWS.iter().chain([&tls::ROW]);
    let rows: Vec<String> = rows
        .map(|row| format!("| `{}` | {} | {} |", row.name, row.network, row.then.words()))
        .collect();
    assert_eq!(
        rows_of_the_page("The network and the broker"),
        rows,
        "write:\n{}",
        rows.join("\n")
    );
}
