//! The part of an answer that is for whoever waits for it.

use super::{Body, Content, is_verdict_document};
use crate::domain::fields::{Field, Fields};
use crate::domain::request::{APPLICATION_HEADER_BYTES, APPLICATION_HEADERS, TRACE_HEADERS};
use bytes::Bytes;
use contract::headers::http as names;

/// The longest name of an AMQP header, in bytes (AMQP 0-9-1, 4.2.5.5).
const NAME_BYTES: usize = 128;
/// Headers by which the broker or another sidecar would take the reply for what it is not.
const RESERVED: [&str; 6] = [
    "x-kubedaemon-",
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
];
/// The field of a verdict document that is for whoever waits.
const REPLY_FIELD: &str = "reply";

/// Reads it; `most` is the longest body.
pub(super) fn read(fields: Fields<'_>, body: &Body, most: usize) -> Content {
    let (forwarded, headers_dropped) = application_headers(fields);
    let content = Content {
        headers: forwarded,
        headers_dropped,
        ..Content::default()
    };
    if is_verdict_document(fields) {
        // The document itself is for us.
        let reply = reply_in(&body.bytes);
        return Content {
            content_type: reply.is_some().then(|| "application/json".to_owned()),
            body: Some(reply.unwrap_or_default()).filter(|bytes| bytes.len() <= most),
            ..content
        };
    }
    let text = |name| fields.text(name).map(str::to_owned);
    let is_whole = body.is_whole && body.bytes.len() <= most;
    Content {
        content_type: text("content-type"),
        content_encoding: text("content-encoding"),
        body: is_whole.then(|| body.bytes.clone()),
        ..content
    }
}

fn reply_in(document: &[u8]) -> Option<Bytes> {
    let document: serde_json::Value = serde_json::from_slice(document).ok()?;
    let reply = document.get(REPLY_FIELD)?;
    Some(Bytes::from(reply.to_string()))
}

/// The headers that the worker wants on the reply, and how many of them were left out: as many and as long as those
/// of a message that reach the worker.
fn application_headers(fields: Fields<'_>) -> (Vec<(String, String)>, u32) {
    let (mut kept, mut bytes, mut dropped) = (Vec::new(), 0, 0);
    for Field { name, value } in fields.iter() {
        let name = name.to_ascii_lowercase();
        let name = match name.strip_prefix(names::AMQP_PREFIX) {
            Some(name) => name,
            None if TRACE_HEADERS.contains(&name.as_str()) => name.as_str(),
            None => continue,
        };
        let is_reserved = RESERVED.iter().any(|reserved| name.starts_with(reserved));
        let value = String::from_utf8_lossy(value);
        bytes += name.len() + value.len();
        let fits = kept.len() < APPLICATION_HEADERS && bytes <= APPLICATION_HEADER_BYTES;
        if is_reserved || !fits || name.is_empty() || name.len() > NAME_BYTES {
            dropped += 1;
            continue;
        }
        kept.push((name.to_owned(), value.into_owned()));
    }
    (kept, dropped)
}
