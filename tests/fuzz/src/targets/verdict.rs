//! Verdict documents: an answer's body under the media type of verdicts.

use super::answer::{NOW, answer};
use crate::Target;
use bytes::Bytes;
use contract::headers::VERDICT_MEDIA_TYPE;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use sidecar::domain::answer::Explicit;

pub(crate) const TARGET: Target = Target {
    name: "verdict",
    what: "verdicts in JSON: what is no verdict is never taken for a yes, and other JSON never for a verdict",
    run,
};

fn run(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let read = |media_type: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_str(media_type).expect("a media type"),
        );
        answer(StatusCode::INTERNAL_SERVER_ERROR, &headers, &body, None, NOW).explicit
    };
    let word = serde_json::from_slice::<Value>(input)
        .ok()
        .and_then(|document| Some(document.get("status")?.as_str()?.trim().to_ascii_lowercase()));
    let expected = match word.as_deref() {
        Some("ack" | "success") => Explicit::Ack,
        Some("retry") => Explicit::Retry,
        Some("reject" | "err" | "drop") => Explicit::Reject,
        _ => Explicit::Unknown,
    };
    assert_eq!(read(VERDICT_MEDIA_TYPE), Some(expected));
    let shouted = format!("{}; charset=utf-8", VERDICT_MEDIA_TYPE.to_uppercase());
    assert_eq!(read(&shouted), Some(expected));
    assert_eq!(read("application/json"), None);
}
