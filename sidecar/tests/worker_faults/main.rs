//! Everything that a worker can do wrong on the wire, one named test a kind: the verdict, its reason, what becomes of the
//! message, and whether an attempt was used up. `docs/reference/faults.md` has the same rows. Answers that are proper
//! HTTP are in `verdicts.rs`; here are those that are not, and every status there is.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bounds;
mod play;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod unreachable;

use support::rows_of_the_page;

#[test]
fn the_reference_page_has_every_row() {
    let rows = rows::ROWS.iter().chain(unreachable::ROWS);
    let rows: Vec<String> = rows
        .map(|row| {
            format!(
                "| `{}` | {} | {} | `{}` | {} | {} |",
                row.name,
                row.worker,
                row.verdict.replace('_', " "),
                row.reason,
                row.action(),
                row.counts.word()
            )
        })
        .collect();
    assert_eq!(rows_of_the_page("Workers"), rows, "write:\n{}", rows.join("\n"));
}
