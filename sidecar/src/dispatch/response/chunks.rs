//! The chunked transfer coding (RFC 9112 §7.1).

use super::Malformed;
use httparse::Status;

/// The longest line between chunks, with its extensions, and the most bytes of trailers.
const LINE_BYTES: usize = 16 * 1024;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    stage: Stage,
    trailers: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Before a line with a size.
    #[default]
    Size,
    /// So many bytes of data to come.
    Data(u64),
    /// Before the line feed that ends the data.
    AfterData,
    /// Before a line of trailers, or the empty one that ends the body.
    Trailers,
    Done,
}

impl Chunks {
    /// How many of the first bytes of `rest` are no data, and how many bytes of data follow on them.
    pub(super) fn next(&mut self, rest: &[u8]) -> Result<(usize, u64), Malformed> {
        let mut used = 0;
        loop {
            let rest = &rest[used..];
            let line = match self.stage {
                Stage::Data(left) => return Ok((used, left)),
                Stage::Done => return Ok((used, 0)),
                Stage::Size => size(rest)?.map(|(line, size)| {
                    self.stage = if size == 0 {
                        Stage::Trailers
                    } else {
                        Stage::Data(size)
                    };
                    line
                }),
                Stage::AfterData => line_feed(rest)?.inspect(|_line| self.stage = Stage::Size),
                Stage::Trailers => {
                    let line = rest.windows(2).position(|end| end == b"\r\n").map(|at| at + 2);
                    self.trailers += line.unwrap_or_default();
                    if self.trailers > LINE_BYTES {
                        return Err(Malformed);
                    }
                    if line == Some(2) {
                        self.stage = Stage::Done;
                    }
                    line
                }
            };
            match line {
                Some(line) => used += line,
                None if rest.len() > LINE_BYTES => return Err(Malformed),
                None => return Ok((used, 0)),
            }
        }
    }

    /// So many bytes of the data were used. Whether the body has ended.
    pub(super) fn took(&mut self, bytes: usize) -> bool {
        if let Stage::Data(left) = &mut self.stage {
            *left -= bytes as u64;
            if *left == 0 {
                self.stage = Stage::AfterData;
            }
        }
        self.stage == Stage::Done
    }
}

/// The length of a line with a size, and the size; `None` while it is not whole.
fn size(rest: &[u8]) -> Result<Option<(usize, u64)>, Malformed> {
    // The parser takes a line without a digit for a zero.
    if rest.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(Malformed);
    }
    match httparse::parse_chunk_size(rest) {
        Ok(Status::Complete(found)) => Ok(Some(found)),
        Ok(Status::Partial) => Ok(None),
        Err(_invalid) => Err(Malformed),
    }
}

fn line_feed(rest: &[u8]) -> Result<Option<usize>, Malformed> {
    match rest {
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [] | [b'\r'] => Ok(None),
        _ => Err(Malformed),
    }
}
