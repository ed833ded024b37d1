//! The soak: a million messages over both types of queue while everything that can end is ended, and a table that says
//! what became of each. Ends with 1 when a message is lost or anything else is found.
//!
//! `soak [--minutes N] [--messages N] [--seed N] [--queue classic|quorum|both] [--faults yes|no]`
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report is what it is for"
)]

use std::process::ExitCode;
use suite::soak::{Options, Soak};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(sentence) => {
            eprintln!("soak: {sentence}");
            return ExitCode::from(2);
        }
    };
    let report = Soak::start(options).await.run().await;
    println!("{report}");
    if report.problems().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
