//! Why a call is answered without the worker, and how that answer reads.
//!
//! One table: reason → status, `Retry-After`, title. The reason is also the metric label and the log field, and
//! stands in the body, which is a problem document of RFC 9457. Its `type` is `about:blank`, so its `title` is the
//! status in words, as §4.2.1 asks; the sentence that helps is the `detail`.

use crate::domain::buffer::{Bounds, Full};
use crate::domain::route::Unrouted;
use crate::targets::TargetName;
use http::StatusCode;
use serde_json::json;
use std::time::Duration;

/// Why a call was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Neither host nor path names a target.
    UnknownTarget,
    /// The name belongs to targets in several namespaces.
    AmbiguousTarget,
    /// An asynchronous call to a target without a queue.
    NoQueue,
    /// The request breaks HTTP.
    BadRequest,
    /// The `Idempotency-Key` cannot be a message id.
    BadIdempotencyKey,
    /// An asynchronous call that is not a POST, or a CONNECT.
    MethodNotAllowed,
    /// The caller stopped sending in the middle of the request.
    RequestTimeout,
    /// An asynchronous call with a body over the bound.
    BodyTooLarge,
    /// An asynchronous call with more headers than a message may carry.
    HeadersTooLarge,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// As many calls wait for the target as may.
    TargetBufferFull,
    /// As many calls wait as may, or the target has its share of them.
    BufferFull,
    /// As many bytes wait as may, or the target has its share of them.
    BufferBytesFull,
    /// The target did not start before the wait was over.
    NotStarted,
    /// The target has endpoints, and none accepted a connection before the wait was over.
    UpstreamConnect,
    /// The worker's connection broke before it answered.
    UpstreamReset,
    /// What the worker answered is not HTTP.
    UpstreamMalformed,
    /// The worker took the request and sent no response head in time.
    UpstreamTimeout,
    /// The activator is shutting down.
    Draining,
    /// The broker cannot be reached, or has no such queue.
    BrokerUnavailable,
    /// The broker was given the message and did not confirm it.
    Unconfirmed,
    /// The caller went away before there was an answer; nobody sees this one.
    ClientGone,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Self; 22] = [
        Self::UnknownTarget,
        Self::AmbiguousTarget,
        Self::NoQueue,
        Self::BadRequest,
        Self::BadIdempotencyKey,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::HeadersTooLarge,
        Self::TransferCoding,
        Self::TargetBufferFull,
        Self::BufferFull,
        Self::BufferBytesFull,
        Self::NotStarted,
        Self::UpstreamConnect,
        Self::UpstreamReset,
        Self::UpstreamMalformed,
        Self::UpstreamTimeout,
        Self::Draining,
        Self::BrokerUnavailable,
        Self::Unconfirmed,
        Self::ClientGone,
    ];

    /// The stable word for it: metric label, log field, member `reason` of the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTarget => "unknown_target",
            Self::AmbiguousTarget => "ambiguous_target",
            Self::NoQueue => "no_queue",
            Self::BadRequest => "bad_request",
            Self::BadIdempotencyKey => "bad_idempotency_key",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::TransferCoding => "transfer_coding",
            Self::TargetBufferFull => "target_buffer_full",
            Self::BufferFull => "buffer_full",
            Self::BufferBytesFull => "buffer_bytes_full",
            Self::NotStarted => "not_started",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Draining => "draining",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::Unconfirmed => "unconfirmed",
            Self::ClientGone => "client_gone",
        }
    }

    /// The status of the answer (RFC 9110 §15).
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::BadIdempotencyKey => StatusCode::BAD_REQUEST,
            Self::UnknownTarget | Self::AmbiguousTarget | Self::NoQueue => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::UpstreamConnect | Self::UpstreamReset | Self::UpstreamMalformed => StatusCode::BAD_GATEWAY,
            Self::NotStarted | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::TargetBufferFull
            | Self::BufferFull
            | Self::BufferBytesFull
            | Self::Draining
            | Self::BrokerUnavailable
            | Self::Unconfirmed => StatusCode::SERVICE_UNAVAILABLE,
            // nginx's number for it, known from access logs.
            Self::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        }
    }

    /// When the same call may succeed, whole seconds; `None` when waiting does not help or nobody knows.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            // The buffer empties as soon as the worker is up, and another activator may take the call at once.
            Self::TargetBufferFull | Self::BufferFull | Self::BufferBytesFull | Self::Draining => {
                Some(Duration::from_secs(1))
            }
            // A broker that restarts needs some seconds; asking every second would only add to its start.
            Self::BrokerUnavailable | Self::Unconfirmed => Some(Duration::from_secs(5)),
            Self::UnknownTarget
            | Self::AmbiguousTarget
            | Self::NoQueue
            | Self::BadRequest
            | Self::BadIdempotencyKey
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::BodyTooLarge
            | Self::HeadersTooLarge
            | Self::TransferCoding
            | Self::NotStarted
            | Self::UpstreamConnect
            | Self::UpstreamReset
            | Self::UpstreamMalformed
            | Self::UpstreamTimeout
            | Self::ClientGone => None,
        }
    }
}

/// A call's answer when the worker does not give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: Reason,
    /// What is wrong and what to do about it, one sentence for the caller.
    pub detail: String,
}

impl Reject {
    /// A rejection with its sentence.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// For a call that names no target, or too many.
    pub fn unrouted(unrouted: &Unrouted) -> Self {
        match unrouted {
            Unrouted::Unknown { asked, known } => {
                let asked: String = asked.chars().take(100).collect();
                Self::new(
                    Reason::UnknownTarget,
                    format!(
                        "no target for \"{asked}\": call /<namespace>/<name>/…, /async/<name>, or the host \
                         <name>.<namespace>; {}",
                        listed(known)
                    ),
                )
            }
            Unrouted::Ambiguous { asked, candidates } => Self::new(
                Reason::AmbiguousTarget,
                format!(
                    "\"{asked}\" is the name of several targets: say which namespace; {}",
                    listed(candidates)
                ),
            ),
        }
    }

    /// For a call that finds the buffer full.
    pub fn full(full: Full, target: &TargetName, bounds: Bounds) -> Self {
        let Bounds {
            calls_per_target,
            calls,
            bytes,
        } = bounds;
        let (reason, detail) = match full {
            Full::Target => (
                Reason::TargetBufferFull,
                format!("{calls_per_target} calls already wait for {target} to start, and no more may"),
            ),
            Full::Calls => (
                Reason::BufferFull,
                format!("{target} has its share of the {calls} calls that may wait here"),
            ),
            Full::Bytes => (
                Reason::BufferBytesFull,
                format!("{target} has its share of the {bytes} bytes that waiting calls may hold"),
            ),
        };
        Self::new(reason, format!("{detail}; try again soon"))
    }

    /// The body: a problem document of RFC 9457, `application/problem+json`.
    pub fn problem(&self) -> String {
        let status = self.reason.status();
        json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Rejected"),
            "status": status.as_u16(),
            "detail": self.detail,
            "reason": self.reason.as_str(),
        })
        .to_string()
    }
}

/// The first targets by name, so that a typing error is seen at once, and not so many that the list is unreadable.
fn listed(names: &[TargetName]) -> String {
    const SHOWN: usize = 10;
    if names.is_empty() {
        return "there is no target at all".to_owned();
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("there is {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reason, status, `Retry-After` in seconds: what operators and callers may rely on.
    const TABLE: [(&str, u16, Option<u64>); 22] = [
        ("unknown_target", 404, None),
        ("ambiguous_target", 404, None),
        ("no_queue", 404, None),
        ("bad_request", 400, None),
        ("bad_idempotency_key", 400, None),
        ("method_not_allowed", 405, None),
        ("request_timeout", 408, None),
        ("body_too_large", 413, None),
        ("headers_too_large", 431, None),
        ("transfer_coding", 501, None),
        ("target_buffer_full", 503, Some(1)),
        ("buffer_full", 503, Some(1)),
        ("buffer_bytes_full", 503, Some(1)),
        ("not_started", 504, None),
        ("upstream_connect", 502, None),
        ("upstream_reset", 502, None),
        ("upstream_malformed", 502, None),
        ("upstream_timeout", 504, None),
        ("draining", 503, Some(1)),
        ("broker_unavailable", 503, Some(5)),
        ("unconfirmed", 503, Some(5)),
        ("client_gone", 499, None),
    ];

    #[test]
    fn every_reason_has_its_row() {
        let rows = Reason::ALL.map(|reason| {
            (
                reason.as_str(),
                reason.status().as_u16(),
                reason.retry_after().map(|wait| wait.as_secs()),
            )
        });
        assert_eq!(rows, TABLE);
    }

    #[test]
    fn the_body_is_a_problem_document() {
        let reject = Reject::new(Reason::NotStarted, "shop/orders did not \"start\"");
        let body: serde_json::Value = serde_json::from_str(&reject.problem()).unwrap();
        assert_eq!(
            body,
            json!({
                "type": "about:blank",
                "title": "Gateway Timeout",
                "status": 504,
                "detail": "shop/orders did not \"start\"",
                "reason": "not_started",
            })
        );
    }

    #[test]
    fn an_unknown_target_names_the_known_ones() {
        let names = |count: usize| -> Vec<TargetName> {
            (0..count)
                .map(|n| TargetName {
                    namespace: "shop".to_owned(),
                    name: format!("w{n}"),
                })
                .collect()
        };
        for (known, expected) in [
            (0, "there is no target at all"),
            (2, "there is shop/w0, shop/w1"),
            (12, "shop/w9 and 2 more"),
        ] {
            let reject = Reject::unrouted(&Unrouted::Unknown {
                asked: "/shop/w".to_owned(),
                known: names(known),
            });
            assert_eq!(reject.reason, Reason::UnknownTarget);
            assert!(
                reject.detail.contains("\"/shop/w\"") && reject.detail.ends_with(expected),
                "{}",
                reject.detail
            );
        }
        let long = Reject::unrouted(&Unrouted::Unknown {
            asked: "é".repeat(5000),
            known: names(1),
        });
        assert!(long.detail.len() < 500, "{}", long.detail);
        let ambiguous = Reject::unrouted(&Unrouted::Ambiguous {
            asked: "w".to_owned(),
            candidates: names(2),
        });
        assert_eq!(ambiguous.reason, Reason::AmbiguousTarget);
        assert!(
            ambiguous.detail.contains("shop/w0, shop/w1"),
            "{}",
            ambiguous.detail
        );
    }

    #[test]
    fn a_full_buffer_says_which_bound() {
        let target = TargetName {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        };
        let bounds = Bounds {
            calls_per_target: 4711,
            calls: 4712,
            bytes: 4713,
        };
        for (full, reason, limit) in [
            (Full::Target, Reason::TargetBufferFull, "4711"),
            (Full::Calls, Reason::BufferFull, "4712"),
            (Full::Bytes, Reason::BufferBytesFull, "4713"),
        ] {
            let reject = Reject::full(full, &target, bounds);
            assert_eq!(reject.reason, reason);
            assert!(
                reject.detail.contains(limit) && reject.detail.contains("shop/orders"),
                "{}",
                reject.detail
            );
        }
    }
}
