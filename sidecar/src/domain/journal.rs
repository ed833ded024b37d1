//! The attempt journal: one line an attempt, carried by the message, readable by a person in any RabbitMQ tool.

use crate::domain::verdict::Reason;
use http::StatusCode;
use std::fmt::Write as _;
use std::time::Duration;

/// Lines kept; the first one always stays, then the latest.
const LINES: usize = 20;
/// Bytes of an answer that a line shows.
const ANSWER_BYTES: usize = 160;

/// What one line says.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The attempt's number, 1-based.
    pub attempt: u32,
    /// Since the Unix epoch.
    pub at: Duration,
    /// What was wrong with it.
    pub reason: Reason,
    /// The worker's status, if it answered.
    pub status: Option<StatusCode>,
    /// The first bytes of its answer.
    pub answer: &'a [u8],
}

/// The journal with one more line, bounded.
pub fn with(journal: &[String], entry: Entry<'_>) -> Vec<String> {
    let mut lines = journal.to_vec();
    lines.push(line(entry));
    if lines.len() > LINES {
        let surplus = lines.len() - LINES;
        lines.drain(1..=surplus);
    }
    lines
}

fn line(entry: Entry<'_>) -> String {
    let mut line = format!(
        "attempt={} at={} reason={}",
        entry.attempt,
        rfc3339(entry.at),
        entry.reason.as_str()
    );
    if let Some(status) = entry.status {
        // Writing to a String cannot fail.
        let _infallible = write!(line, " status={}", status.as_u16());
    }
    if !entry.answer.is_empty() {
        let _infallible = write!(line, " answer={:?}", text(entry.answer, ANSWER_BYTES));
    }
    line
}

/// The first `limit` bytes as text; what is not UTF-8 is replaced.
pub fn text(bytes: &[u8], limit: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into_owned()
}

/// A stamp as `2026-11-21T10:00:00Z` (RFC 3339, UTC).
pub fn rfc3339(since_epoch: Duration) -> impl std::fmt::Display {
    let whole_milliseconds = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(whole_milliseconds).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(attempt: u32) -> Entry<'static> {
        Entry {
            attempt,
            at: Duration::from_millis(1_763_719_200_250),
            reason: Reason::ServerError,
            status: Some(StatusCode::INTERNAL_SERVER_ERROR),
            answer: b"no \"disk\"\n",
        }
    }

    #[test]
    fn a_line_can_be_read_by_a_person() {
        assert_eq!(
            with(&[], entry(1)),
            [r#"attempt=1 at=2025-11-21T10:00:00.25Z reason=server_error status=500 answer="no \"disk\"\n""#]
        );
        let refused = Entry {
            status: None,
            answer: b"",
            reason: Reason::TimedOut,
            ..entry(2)
        };
        assert_eq!(
            with(&[], refused),
            ["attempt=2 at=2025-11-21T10:00:00.25Z reason=timed_out"]
        );
    }

    #[test]
    fn it_keeps_the_first_line_and_the_latest() {
        let mut journal = Vec::new();
        for attempt in 1..=100 {
            journal = with(&journal, entry(attempt));
        }
        assert_eq!(journal.len(), LINES);
        assert!(journal[0].starts_with("attempt=1 ") && journal[LINES - 1].starts_with("attempt=100 "));
        assert!(journal[1].starts_with("attempt=82 "));
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(text(&[0xff, b'a', 0xc3], 2), "\u{fffd}a");
        assert!(rfc3339(Duration::MAX).to_string().starts_with("9999-"));
    }
}
