//! The head of an answer: its status, and what it says of its body and its connection.

use super::Malformed;
use crate::domain::fields::{Field, Fields, text};
use http::StatusCode;
use httparse::{ParserConfig, Response, Status};
use std::mem::MaybeUninit;

/// The most fields of a head.
const FIELDS: usize = 100;

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) extent: Extent,
    /// Whether its connection may be used again.
    pub(super) keeps_alive: bool,
    /// Its length, with the empty line.
    pub(super) bytes: usize,
}

/// How far a body reaches (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Counted(u64),
    Chunked,
    UntilClosed,
}

impl Head {
    /// Reads one from the beginning of `bytes`; `None` while it is not whole.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut response = Response::new(&mut []);
        let parsed =
            ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
        let Status::Complete(bytes) = parsed.map_err(|_error| Malformed)? else {
            return Ok(None);
        };
        let code = response.code.ok_or(Malformed)?;
        let status = StatusCode::from_u16(code).map_err(|_error| Malformed)?;
        let is_old = response.version == Some(0);
        let fields = Fields::new(response.headers);
        let extent = Extent::of(status, fields)?;
        // A length beside chunks is what request smuggling looks like, and chunks are not of HTTP/1.0: the body is read,
        // and then the connection is not trusted any more (RFC 9112 §6.1).
        let is_odd = extent == Extent::Chunked && (is_old || fields.get("content-length").is_some());
        let asks_for =
            |word: &str| tokens(fields, "connection").any(|token| token.eq_ignore_ascii_case(word));
        let is_kept = if is_old {
            asks_for("keep-alive")
        } else {
            !asks_for("close")
        };
        let ends_with_its_connection =
            extent == Extent::UntilClosed || status == StatusCode::SWITCHING_PROTOCOLS;
        Ok(Some(Self {
            status,
            extent,
            keeps_alive: is_kept && !is_odd && !ends_with_its_connection,
            bytes,
        }))
    }

    /// Whether another answer follows this one. After a switch of protocols, which nobody asked for, none does.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// The fields of a head that was parsed before.
    pub(super) fn with_fields<T>(bytes: &[u8], read: impl FnOnce(Fields<'_>) -> T) -> T {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut response = Response::new(&mut []);
        let parsed =
            ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
        debug_assert!(parsed.is_ok_and(|status| status.is_complete()), "parsed before");
        let fields: &[Field<'_>] = response.headers;
        read(Fields::new(fields))
    }
}

impl Extent {
    fn of(status: StatusCode, fields: Fields<'_>) -> Result<Self, Malformed> {
        if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::Counted(0));
        }
        if fields.get("transfer-encoding").is_some() {
            let last = tokens(fields, "transfer-encoding").last();
            return Ok(match last {
                Some(coding) if coding.eq_ignore_ascii_case("chunked") => Self::Chunked,
                _ => Self::UntilClosed,
            });
        }
        let mut lengths = tokens(fields, "content-length").map(length);
        match lengths.next() {
            // The same one twice is a length still.
            Some(Some(length)) if lengths.all(|other| other == Some(length)) => Ok(Self::Counted(length)),
            Some(_) => Err(Malformed),
            None => Ok(Self::UntilClosed),
        }
    }
}

/// The elements of all fields of a name (RFC 9110 §5.6.1). What is no text is an empty one.
fn tokens<'a>(fields: Fields<'a>, name: &'static str) -> impl Iterator<Item = &'a str> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .flat_map(|field| text(field.value).unwrap_or_default().split(','))
        .map(str::trim_ascii)
}

/// Digits alone: no sign, which `parse` would take.
fn length(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
