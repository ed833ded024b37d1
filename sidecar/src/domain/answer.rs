//! The worker's HTTP answer, and the parts of it that say what to do with the message.

use bytes::Bytes;
use contract::headers;
use http::{HeaderMap, StatusCode, header};
use std::time::Duration;

/// Retry-After is believed up to here, so that a slip of the worker cannot park a message for years.
pub const RETRY_AFTER_CAP: Duration = Duration::from_hours(1);

/// What of an answer is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// What the worker said explicitly, if anything.
    pub explicit: Option<Explicit>,
    /// How long the worker asks to be left alone, capped at [`RETRY_AFTER_CAP`].
    pub retry_after: Option<Duration>,
    /// Whether the worker wants to settle later (`X-Defer`), which is not supported yet.
    pub deferred: bool,
    /// The first bytes of the body, for people who look at a dead letter.
    pub excerpt: Bytes,
}

/// A verdict that the worker spelled out; it outranks the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explicit {
    /// Done.
    Ack,
    /// Try again later.
    Retry,
    /// Never try again.
    Reject,
    /// A word that is none of these.
    Unknown,
}

impl Answer {
    /// Reads an answer. `body` is what was read of it, `now` is since the Unix epoch.
    pub fn read(
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
        excerpt_bytes: usize,
        now: Duration,
    ) -> Self {
        Self {
            status,
            explicit: explicit(headers, body),
            retry_after: retry_after(headers, now),
            deferred: status == StatusCode::ACCEPTED && headers.contains_key("x-defer"),
            excerpt: body.slice(..body.len().min(excerpt_bytes)),
        }
    }
}

/// The header outranks the body; the body counts only under its own media type, so that no ordinary JSON answer can
/// be taken for a verdict.
fn explicit(headers: &HeaderMap, body: &[u8]) -> Option<Explicit> {
    if let Some(word) = headers.get(headers::http::VERDICT) {
        return Some(word.to_str().map_or(Explicit::Unknown, verdict_word));
    }
    let media_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(headers::VERDICT_MEDIA_TYPE) {
        return None;
    }
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = document.get("status").and_then(serde_json::Value::as_str);
    Some(word.map_or(Explicit::Unknown, verdict_word))
}

/// Our words, and Dapr's for those who are used to them.
fn verdict_word(word: &str) -> Explicit {
    match word.trim().to_ascii_lowercase().as_str() {
        "ack" | "success" => Explicit::Ack,
        "retry" => Explicit::Retry,
        "reject" | "err" | "drop" => Explicit::Reject,
        _ => Explicit::Unknown,
    }
}

/// Seconds or a date (RFC 9110 §10.2.3). What cannot be read counts as absent; a date in the past as zero.
fn retry_after(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too long for 64 bits is beyond any cap.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        at.duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(now)
    };
    Some(delay.min(RETRY_AFTER_CAP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT

    const JSON: (&str, &str) = (
        "content-type",
        "application/vnd.kubedaemon.verdict+json; charset=utf-8",
    );
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static str,
        Option<Explicit>,
    );

    fn read(pairs: &[(&str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.insert(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        Answer::read(
            StatusCode::OK,
            &map,
            &Bytes::copy_from_slice(body.as_bytes()),
            8,
            NOW,
        )
    }

    #[test]
    fn explicit_verdicts_in_header_and_json() {
        let cases: &[Case] = &[
            (&[], "", None),
            (&[("x-message-verdict", "ack")], "", Some(Explicit::Ack)),
            (&[("x-message-verdict", "Retry ")], "", Some(Explicit::Retry)),
            (&[("x-message-verdict", "reject")], "", Some(Explicit::Reject)),
            (&[("x-message-verdict", "bananas")], "", Some(Explicit::Unknown)),
            (&[JSON], r#"{"status":"ACK"}"#, Some(Explicit::Ack)),
            (&[JSON], r#"{"status":"RETRY"}"#, Some(Explicit::Retry)),
            (&[JSON], r#"{"status":"ERR"}"#, Some(Explicit::Reject)),
            (&[JSON], r#"{"status":"SUCCESS"}"#, Some(Explicit::Ack)),
            (&[JSON], r#"{"status":"DROP"}"#, Some(Explicit::Reject)),
            (&[JSON], r#"{"status":7}"#, Some(Explicit::Unknown)),
            (&[JSON], "not json", Some(Explicit::Unknown)),
            (
                &[("content-type", "application/json")],
                r#"{"status":"DROP"}"#,
                None,
            ),
            (
                &[JSON, ("x-message-verdict", "ack")],
                r#"{"status":"DROP"}"#,
                Some(Explicit::Ack),
            ),
        ];
        for (headers, body, expected) in cases {
            assert_eq!(read(headers, body).explicit, *expected, "{headers:?} {body}");
        }
    }

    #[test]
    fn retry_after_as_seconds_and_as_date() {
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("999999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(3600)),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(
                read(&[("retry-after", value)], "").retry_after,
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    #[test]
    fn the_excerpt_is_bounded() {
        assert_eq!(read(&[], "0123456789").excerpt, "01234567");
        assert_eq!(read(&[], "01").excerpt, "01");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_stays_capped(value in "[ -~]{0,40}", body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut map = HeaderMap::new();
            map.insert("retry-after", HeaderValue::from_str(&value).unwrap());
            map.insert("content-type", HeaderValue::from_static("application/vnd.kubedaemon.verdict+json"));
            let answer = Answer::read(StatusCode::OK, &map, &Bytes::from(body), 8, NOW);
            prop_assert!(answer.retry_after.unwrap_or_default() <= RETRY_AFTER_CAP);
            prop_assert!(answer.excerpt.len() <= 8);
        }
    }
}
