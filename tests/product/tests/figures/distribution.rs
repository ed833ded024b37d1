//! Many measurements of one thing.

use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Durations, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distribution(Vec<f64>);

impl Distribution {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
        self.0.sort_by(f64::total_cmp);
    }

    /// The value that a share of all are not above; `share` in percent.
    fn at(&self, share: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0
            .get((last * share).div_ceil(100))
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({"p50": self.at(50), "p90": self.at(90), "max": self.at(100), "samples": self.0})
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.1} {:>8.1} {:>8.1} {:>4}",
            self.at(50),
            self.at(90),
            self.at(100),
            self.0.len()
        )
    }
}
