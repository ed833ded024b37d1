//! A way through the bytes of a frame, which mends what it passes.

use super::{DEEPEST, Field, Mended};

/// In place of a byte that belongs to no UTF-8.
const REPLACEMENT: u8 = b'?';
/// The type of a byte array, laid out as a table and a list are: a length in four bytes, and as many bytes.
const BYTE_ARRAY: u8 = b'x';

/// A position in a payload. Whatever goes beyond an end is `None`, and ends the walk.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
    mended: Mended,
}

/// A table or list that the walk is in.
#[derive(Debug, Clone, Copy)]
struct Open {
    end: usize,
    /// A table's values have names, a list's have none.
    is_table: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            mended: Mended::default(),
        }
    }

    pub(super) fn mended(&self) -> Mended {
        self.mended
    }

    /// Passes a number of two bytes.
    pub(super) fn short(&mut self) -> Option<u16> {
        let number = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 2;
        Some(u16::from_be_bytes(*number))
    }

    /// Passes one field of a method or of properties.
    pub(super) fn field(&mut self, field: Field) -> Option<()> {
        let end = self.bytes.len();
        match field {
            Field::Bytes(count) => self.skip(count, end),
            Field::Text => self.text(end),
            Field::Long => {
                self.at = self.end_of_long(end)?;
                Some(())
            }
            Field::Table => {
                let end = self.end_of_long(end)?;
                self.table(end)
            }
        }
    }

    fn skip(&mut self, count: usize, end: usize) -> Option<()> {
        let after = self.at.checked_add(count)?;
        (after <= end).then(|| self.at = after)
    }

    /// Passes the length of something long, and returns where that ends.
    fn end_of_long(&mut self, end: usize) -> Option<usize> {
        let length = u32::from_be_bytes(*self.bytes.get(self.at..end)?.first_chunk()?);
        self.at += 4;
        let after = self.at.checked_add(usize::try_from(length).ok()?)?;
        (after <= end).then_some(after)
    }

    /// Passes a short string.
    fn text(&mut self, end: usize) -> Option<()> {
        let length = usize::from(*self.bytes.get(self.at..end)?.first()?);
        let start = self.at + 1;
        self.at = start;
        self.skip(length, end)?;
        self.mended.text |= make_utf8(&mut self.bytes[start..self.at]);
        Some(())
    }

    /// Passes all that is in a table, with the tables and lists in it. Their number does not matter, nor does their
    /// depth: nothing here calls itself.
    fn table(&mut self, end: usize) -> Option<()> {
        let outermost = Open { end, is_table: true };
        let mut open = [outermost; DEEPEST];
        let mut depth = 0;
        loop {
            let Open { end, is_table } = open[depth];
            if self.at == end {
                if depth == 0 {
                    return Some(());
                }
                depth -= 1;
                continue;
            }
            if is_table {
                self.text(end)?;
            }
            let type_at = self.at;
            let value_type = *self.bytes.get(type_at..end)?.first()?;
            self.at += 1;
            match value_type {
                b'V' => {}
                b't' | b'b' | b'B' => self.skip(1, end)?,
                b's' | b'U' | b'u' => self.skip(2, end)?,
                b'I' | b'i' | b'f' => self.skip(4, end)?,
                b'D' => self.skip(5, end)?,
                b'l' | b'L' | b'd' | b'T' => self.skip(8, end)?,
                b'S' | BYTE_ARRAY => self.at = self.end_of_long(end)?,
                b'A' | b'F' => {
                    let inner = self.end_of_long(end)?;
                    if depth + 1 == DEEPEST {
                        self.bytes[type_at] = BYTE_ARRAY;
                        self.mended.nesting = true;
                        self.at = inner;
                    } else {
                        depth += 1;
                        open[depth] = Open {
                            end: inner,
                            is_table: value_type == b'F',
                        };
                    }
                }
                // RabbitMQ takes no message with any other, and lapin knows the same ones.
                _ => return None,
            }
        }
    }
}

/// Replaces what is not UTF-8, byte for byte; whether there was any.
fn make_utf8(mut text: &mut [u8]) -> bool {
    let mut is_mended = false;
    while let Err(error) = std::str::from_utf8(text) {
        is_mended = true;
        let start = error.valid_up_to();
        let end = error.error_len().map_or(text.len(), |length| start + length);
        text[start..end].fill(REPLACEMENT);
        text = &mut text[end..];
    }
    is_mended
}
