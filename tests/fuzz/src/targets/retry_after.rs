//! `Retry-After`, as seconds or as a date.

use super::answer::answer;
use crate::Target;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use sidecar::domain::answer::RETRY_AFTER_CAP;
use sidecar::domain::retry::hinted;
use std::time::Duration;

pub(crate) const TARGET: Target = Target {
    name: "retry-after",
    what: "Retry-After: never beyond its cap, never earlier as time goes on, digits as they stand",
    run,
};

/// 2025-11-21T10:00:00Z, and around it.
const NOW: Duration = Duration::from_hours(489_922);

fn run(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, value.clone());
    let read = |now| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        answer(status, &headers, &Bytes::new(), None, now).retry_after
    };
    let delay = read(NOW);
    let hour_later = read(NOW + Duration::from_hours(1));
    assert_eq!(
        delay.is_some(),
        hour_later.is_some(),
        "whether it can be read depends on the time"
    );
    assert!(hour_later <= delay, "a date moves away");
    if let Some(delay) = delay {
        let wait = hinted(delay);
        assert!(
            wait >= delay && wait <= RETRY_AFTER_CAP,
            "waits {wait:?} when {delay:?} is asked for"
        );
    }
    let text = value.to_str().unwrap_or_default().trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().map_or(RETRY_AFTER_CAP, Duration::from_secs);
        assert_eq!(delay, Some(seconds.min(RETRY_AFTER_CAP)));
    }
}
