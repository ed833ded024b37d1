//! What a broker passes on and lapin cannot read, made legible.
//!
//! A broker hands a message over with the properties that its publisher wrote. RabbitMQ takes any bytes as the name of a
//! header, and tables in tables as deep as a frame is long; its idea of UTF-8 in the other short strings is wider than
//! Rust's. lapin ends the connection at a short string that is not UTF-8, and the process at deep nesting, each time that
//! the message is delivered. So frames are mended before lapin has them: in place, and without changing a length.
//!
//! - A byte of a short string that belongs to no UTF-8 becomes `?`. No name by which the broker or the product acts has
//!   one, so nothing can be made to look like those.
//! - A table or list that is deeper than [`DEEPEST`] becomes a byte array, which is laid out the same.
//!
//! What is wrong otherwise stays as it is: lapin refuses it, and no broker sends it. Pure.

mod passage;
mod walk;

pub use passage::{Count, Passage, TooLong};

use walk::Walk;

/// How many tables and lists may be in one another, counted from the table of headers.
pub const DEEPEST: usize = 32;

/// Frames that say or announce something. Others pass unseen.
const METHOD: u8 = 1;
const HEADER: u8 = 2;

/// Class, weight and length of the body, before the properties.
const BEFORE_PROPERTIES: usize = 12;

/// What was mended in a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mended {
    /// A name or another short string was not UTF-8.
    pub text: bool,
    /// Tables or lists were too deep.
    pub nesting: bool,
}

/// Something that a frame is made of.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// So many bytes of numbers and flags.
    Bytes(usize),
    /// A short string, which must be UTF-8.
    Text,
    /// A long string, which may be anything.
    Long,
    Table,
}

/// The properties of a content header in the order of their flags, from the highest.
const PROPERTIES: [Field; 14] = [
    Field::Text,     // content-type
    Field::Text,     // content-encoding
    Field::Table,    // headers
    Field::Bytes(1), // delivery-mode
    Field::Bytes(1), // priority
    Field::Text,     // correlation-id
    Field::Text,     // reply-to
    Field::Text,     // expiration
    Field::Text,     // message-id
    Field::Bytes(8), // timestamp
    Field::Text,     // type
    Field::Text,     // user-id
    Field::Text,     // app-id
    Field::Text,     // cluster-id
];

/// Mends the payload of a frame of this type. The length stays; what is legible is not touched.
pub fn mend(frame_type: u8, payload: &mut [u8]) -> Mended {
    let mut walk = Walk::new(payload);
    // What is cut off or unknown ends the walk.
    let _whole = match frame_type {
        METHOD => method(&mut walk),
        HEADER => properties(&mut walk),
        _ => None,
    };
    walk.mended()
}

fn properties(walk: &mut Walk<'_>) -> Option<()> {
    walk.field(Field::Bytes(BEFORE_PROPERTIES))?;
    let flags = walk.short()?;
    for (bit, field) in PROPERTIES.into_iter().enumerate() {
        if flags & (1 << (15 - bit)) != 0 {
            walk.field(field)?;
        }
    }
    Some(())
}

fn method(walk: &mut Walk<'_>) -> Option<()> {
    let method = (walk.short()?, walk.short()?);
    for field in arguments(method) {
        walk.field(*field)?;
    }
    Some(())
}

/// Arguments of what a broker may say, as far as the last one that has to be looked at.
///
/// Source: the AMQP 0-9-1 XML definition with RabbitMQ's extensions, `connection.blocked` among them.
fn arguments(method: (u16, u16)) -> &'static [Field] {
    use Field::{Bytes, Long, Table, Text};
    match method {
        // connection.start
        (10, 10) => &[Bytes(2), Table, Long, Long],
        // connection.open-ok, connection.blocked, queue.declare-ok, basic.consume-ok, basic.cancel, basic.cancel-ok,
        // basic.get-empty
        (10, 41 | 60) | (50, 11) | (60, 21 | 30 | 31 | 72) => &[Text],
        // connection.close, channel.close: a long explanation is cut off anywhere
        (10, 50) | (20, 40) => &[Bytes(2), Text],
        // basic.return
        (60, 50) => &[Bytes(2), Text, Text, Text],
        // basic.deliver
        (60, 60) => &[Text, Bytes(9), Text, Text],
        // basic.get-ok
        (60, 71) => &[Bytes(9), Text, Text],
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
