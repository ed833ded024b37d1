//! What the process with the ledger (the sink, or a runner without HTTP) tells the bench: JSON, one line each.

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::Duration;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Line {
    /// It can take messages; a sink says where.
    Ready {
        /// `http://127.0.0.1:<port>`; empty for a runner without HTTP.
        url: String,
    },
    /// The first message arrived.
    First {
        /// When, since the Unix epoch.
        now: Duration,
    },
    /// The warm-up is over.
    Warm {
        /// When, since the Unix epoch.
        now: Duration,
    },
    /// Every message has arrived at least once.
    All {
        /// When, since the Unix epoch.
        now: Duration,
    },
    /// How many distinct messages there are; said a few times a second while there are more.
    Count {
        /// So many.
        distinct: u64,
    },
    /// The last line.
    End(End),
}

/// What the ledger holds at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Messages that arrived at least once.
    pub distinct: u64,
    /// Messages that did not arrive.
    pub lost: u64,
    /// Arrivals of a message that had arrived.
    pub duplicates: u64,
    /// Arrivals that are no whole message of this run.
    pub corrupt: u64,
    /// Messages of this run's seed with a number that was never published.
    pub foreign: u64,
    /// Median of due → arrived after the warm-up, microseconds.
    pub p50_us: Option<u32>,
    /// The 99th percentile of the same.
    pub p99_us: Option<u32>,
}

/// Says a line on standard output, which the bench reads.
pub fn say(line: &Line) {
    let Ok(text) = serde_json::to_string(line) else {
        return;
    };
    // A bench that has ended does not read any more; then this process is ended too.
    let _told = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::{End, Line};
    use std::time::Duration;

    #[test]
    fn every_line_survives_being_told() {
        let now = Duration::from_nanos(1_700_000_000_123_456_789);
        for line in [
            Line::Ready { url: String::new() },
            Line::First { now },
            Line::Warm { now },
            Line::All { now },
            Line::Count { distinct: 7 },
            Line::End(End::default()),
        ] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
        }
    }
}
