//! An answer of HTTP/1.1 (RFC 9112), read from bytes as they come. No input and output in here: what was received goes
//! in by [`space`](Reader::space), and [`advance`](Reader::advance) says whether the answer is whole.
//!
//! The head is parsed by `httparse`; where the body ends is RFC 9112 §6.3. Trailers are passed over.

mod chunks;
mod head;

#[cfg(test)]
mod tests;

use crate::domain::answer::Body;
use crate::domain::fields::Fields;
use bytes::Bytes;
use chunks::Chunks;
use head::{Extent, Head};
use http::StatusCode;

/// Room for a usual answer.
const ROOM: usize = 2 * 1024;
/// A buffer that grew beyond is not kept for the next answer.
const KEPT_ROOM: usize = 16 * 1024;
/// The longest head of an answer, in bytes.
const HEAD_BYTES: usize = 400 * 1024;

/// How far an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// It is whole, or all that is wanted of it was read.
    Done,
}

/// What was received is no answer of HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// How much of a body is of interest.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes that are kept.
    pub kept: usize,
    /// Bytes after which reading ends, so that a longer one costs its connection.
    pub read: usize,
}

/// Reads one answer after the other of one connection.
#[derive(Debug, Default)]
pub struct Reader {
    /// The head of the answer, once there is one, and what was received behind it and not yet used.
    bytes: Vec<u8>,
    /// How much of `bytes` was searched for the end of the head.
    scanned: usize,
    /// How much of it there must be for it to be parsed although no end was found.
    parse_at: usize,
    head: Option<Head>,
    chunks: Chunks,
    body: Vec<u8>,
    /// Bytes of the body so far, kept or not.
    seen: u64,
    is_done: bool,
}

impl Reader {
    /// Where received bytes are appended. There is room in it.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() - self.bytes.len() < ROOM / 2 {
            self.bytes.reserve(ROOM);
        }
        &mut self.bytes
    }

    /// Whether nothing was received since the last answer.
    pub fn is_untouched(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Uses what was received.
    ///
    /// # Errors
    /// When that is no answer of HTTP/1.1.
    pub fn advance(&mut self, bounds: Bounds) -> Result<Progress, Malformed> {
        while self.head.is_none() {
            if !self.is_worth_parsing() {
                return Ok(Progress::More);
            }
            match Head::parse(&self.bytes)? {
                None if self.bytes.len() > HEAD_BYTES => return Err(Malformed),
                None => {
                    self.parse_at = self.bytes.len() * 2;
                    return Ok(Progress::More);
                }
                // Interim answers (RFC 9110 §15.2) are passed over.
                Some(head) if head.is_interim() => {
                    self.bytes.drain(..head.bytes);
                    (self.scanned, self.parse_at) = (0, 0);
                }
                Some(head) => self.head = Some(head),
            }
        }
        self.body(bounds)
    }

    /// Nothing more will come. Whether the answer is whole by that.
    ///
    /// # Errors
    /// When what came is no beginning of an answer of HTTP/1.1.
    pub fn end(&mut self) -> Result<bool, Malformed> {
        match self.head {
            Some(head) => self.is_done |= head.extent == Extent::UntilClosed,
            None => drop(Head::parse(&self.bytes)?),
        }
        Ok(self.is_done)
    }

    /// Whether a head that was not whole may be so now, or may be seen to be none: of one that comes byte by byte, each
    /// byte is looked at a few times and not thousands of times.
    fn is_worth_parsing(&mut self) -> bool {
        let new = &self.bytes[self.scanned.saturating_sub(2)..];
        self.scanned = self.bytes.len();
        let ends = |end: &[u8]| new.windows(end.len()).any(|part| part == end);
        self.bytes.len() >= self.parse_at || ends(b"\n\r\n") || ends(b"\n\n")
    }

    fn body(&mut self, bounds: Bounds) -> Result<Progress, Malformed> {
        let Some(head) = &self.head else {
            return Ok(Progress::More);
        };
        let (start, extent) = (head.bytes, head.extent);
        let mut at = start;
        while !self.is_done && self.seen <= bounds.read as u64 {
            let rest = &self.bytes[at..];
            let (skipped, data) = match extent {
                Extent::Counted(length) => (0, length - self.seen),
                Extent::UntilClosed => (0, u64::MAX),
                Extent::Chunked => self.chunks.next(rest)?,
            };
            at += skipped;
            let rest = &rest[skipped..];
            let length = usize::try_from(data).map_or(rest.len(), |data| data.min(rest.len()));
            let kept = length.min(bounds.kept - self.body.len());
            self.body.extend_from_slice(&rest[..kept]);
            self.seen += length as u64;
            at += length;
            self.is_done = match extent {
                Extent::Counted(length) => self.seen == length,
                Extent::UntilClosed => false,
                Extent::Chunked => self.chunks.took(length),
            };
            if skipped + length == 0 {
                break;
            }
        }
        self.bytes.drain(start..at);
        let is_enough = self.is_done || self.seen > bounds.read as u64;
        Ok(if is_enough { Progress::Done } else { Progress::More })
    }

    /// The answer that is done, with what of its body was kept; then everything is ready for the next.
    ///
    /// `None` when there is no head.
    pub fn finish<T>(
        &mut self,
        read: impl FnOnce(StatusCode, Fields<'_>, &Body) -> T,
    ) -> Option<Finished<T>> {
        let head = self.head.take()?;
        let body = Body {
            is_whole: self.is_done && self.seen == self.body.len() as u64,
            bytes: Bytes::from(std::mem::take(&mut self.body)),
        };
        let answer = Head::with_fields(&self.bytes[..head.bytes], |fields| {
            read(head.status, fields, &body)
        });
        let finished = Finished {
            answer,
            is_reusable: self.is_done && head.keeps_alive && self.bytes.len() == head.bytes,
        };
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_ROOM {
            self.bytes = Vec::new();
        }
        (self.scanned, self.parse_at, self.seen, self.is_done) = (0, 0, 0, false);
        self.chunks = Chunks::default();
        Some(finished)
    }
}

/// An answer, and what becomes of its connection.
#[derive(Debug)]
pub struct Finished<T> {
    /// What was made of it.
    pub answer: T,
    /// Whether its connection can take another request: it was read to its end, which is not that of the connection.
    pub is_reusable: bool,
}
