//! Bytes from the worker's socket, to an answer.
//!
//! The first byte of an input says in parts of how many bytes the rest comes.

use crate::Target;
use sidecar::dispatch::response::{Bounds, Malformed, Progress, Reader};

pub(crate) const TARGET: Target = Target {
    name: "response",
    what: "an answer of HTTP/1.1: the same whole and in parts, nothing kept beyond the bounds",
    run,
};

const BOUNDS: Bounds = Bounds { kept: 64, read: 256 };

/// How reading ended: nothing whole, or the status, the body, and whether the connection can be used again.
type End = Result<Option<(u16, Vec<u8>, bool)>, Malformed>;

fn run(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    let whole = read(&[bytes]);
    let parts: Vec<&[u8]> = bytes.chunks(usize::from(*size).max(1)).collect();
    assert_eq!(whole, read(&parts));
}

fn read(parts: &[&[u8]]) -> End {
    let mut reader = Reader::default();
    let mut is_done = false;
    for part in parts {
        reader.space().extend_from_slice(part);
        // What comes after the end stays where it is.
        if !is_done {
            is_done = reader.advance(BOUNDS)? == Progress::Done;
        }
    }
    if !is_done && !reader.end()? {
        return Ok(None);
    }
    let finished = reader
        .finish(|status, fields, body| {
            assert!(body.bytes.len() <= BOUNDS.kept);
            assert!(fields.iter().all(|field| !field.name.is_empty()));
            (status.as_u16(), body.bytes.to_vec())
        })
        .expect("an answer that is done has a head");
    assert!(reader.is_untouched());
    let (status, body) = finished.answer;
    Ok(Some((status, body, finished.is_reusable)))
}
