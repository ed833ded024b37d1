//! AMQP 0-9-1 frames out of a stream of bytes, as far as messages and their settlement are concerned.
//!
//! A client begins with a protocol header of 8 bytes. A frame is type (1 byte), channel (2), size (4), payload, end
//! (1); the payload of a method frame (type 1) begins with class and method (2 each). Source: AMQP 0-9-1, section 4.2.

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToBroker,
    ToSidecar,
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Publish,
    Deliver {
        tag: u64,
    },
    /// Of the sidecar an acknowledgement, of the broker a confirm.
    Ack {
        tag: u64,
        multiple: bool,
    },
    /// `basic.nack` or `basic.reject`.
    GiveBack {
        tag: u64,
        multiple: bool,
    },
    /// The end of a channel or a connection because of an error of the other side (AMQP 0-9-1: 4xx, 5xx), but for the
    /// operator's own word, which is 320.
    CloseForCause,
    Other,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) channel: u16,
    pub(super) method: Method,
    /// All of it.
    pub(super) bytes: Vec<u8>,
}

/// Bytes of one direction, of which whole frames are taken.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    header_left: usize,
}

const PROTOCOL_HEADER_BYTES: usize = 8;
const HEAD_BYTES: usize = 7;
const METHOD_FRAME: u8 = 1;

impl Frames {
    pub(super) fn new(direction: Direction) -> Self {
        let header_left = match direction {
            Direction::ToBroker => PROTOCOL_HEADER_BYTES,
            Direction::ToSidecar => 0,
        };
        Self {
            buffer: Vec::new(),
            header_left,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What of the protocol header is there; empty once it was taken.
    pub(super) fn take_header(&mut self) -> Vec<u8> {
        let taken = self.header_left.min(self.buffer.len());
        self.header_left -= taken;
        self.buffer.drain(..taken).collect()
    }

    /// The next frame when all of it is there.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let size = u32::from_be_bytes(self.buffer.get(3..HEAD_BYTES)?.try_into().ok()?);
        let length = HEAD_BYTES + usize::try_from(size).ok()? + 1;
        if self.buffer.len() < length {
            return None;
        }
        let bytes: Vec<u8> = self.buffer.drain(..length).collect();
        let channel = u16::from_be_bytes([bytes[1], bytes[2]]);
        let method = match bytes[0] {
            METHOD_FRAME => method(&bytes[HEAD_BYTES..length - 1]).unwrap_or(Method::Other),
            _ => Method::Other,
        };
        Some(Frame {
            channel,
            method,
            bytes,
        })
    }
}

/// `None` when it is too short for what it says to be.
fn method(payload: &[u8]) -> Option<Method> {
    let (id, arguments) = payload.split_at_checked(4)?;
    let number = |at: usize| Some(u64::from_be_bytes(arguments.get(at..at + 8)?.try_into().ok()?));
    let is_multiple = || Some(arguments.get(8)? & 1 == 1);
    Some(match id {
        [0, 60, 0, 40] => Method::Publish,
        // The consumer's tag comes first, a text with its length before it.
        [0, 60, 0, 60] => Method::Deliver {
            tag: number(1 + usize::from(*arguments.first()?))?,
        },
        [0, 60, 0, 80] => Method::Ack {
            tag: number(0)?,
            multiple: is_multiple()?,
        },
        [0, 60, 0, 120] => Method::GiveBack {
            tag: number(0)?,
            multiple: is_multiple()?,
        },
        [0, 60, 0, 90] => Method::GiveBack {
            tag: number(0)?,
            multiple: false,
        },
        [0, 10, 0, 50] | [0, 20, 0, 40] => match u16::from_be_bytes(arguments.get(..2)?.try_into().ok()?) {
            // A missing queue is asked for on purpose, and the wrong arguments of one to learn what it was made with.
            400.. if !is_about_a_queue(arguments)? => Method::CloseForCause,
            _ => Method::Other,
        },
        _ => Method::Other,
    })
}

/// Whether a close names `queue.declare` (class 50, method 10) as what was wrong: code, text, class, method.
fn is_about_a_queue(arguments: &[u8]) -> Option<bool> {
    let text = usize::from(*arguments.get(2)?);
    Some(arguments.get(3 + text..7 + text)? == [0, 50, 0, 10])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 1];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame.push(0xce);
        frame
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_split() {
        let ack = [0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 1, 2, 1];
        let deliver = [0, 60, 0, 60, 2, b'c', b't', 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0];
        let refused = [0, 20, 0, 40, 1, 150, 2, b'n', b'o', 0, 60, 0, 80];
        let missing = [0, 20, 0, 40, 1, 148, 2, b'n', b'o', 0, 50, 0, 10];
        let frames = [
            frame(1, &[0, 60, 0, 40, 0, 0]),
            frame(8, &[]),
            // Looks like one, in a body.
            frame(3, &ack),
            frame(1, &ack),
            frame(1, &deliver),
            frame(1, &refused),
            frame(1, &missing),
            frame(1, &[0, 60, 0, 80, 1]),
        ];
        let expected = [
            Method::Publish,
            Method::Other,
            Method::Other,
            Method::Ack {
                tag: 258,
                multiple: true,
            },
            Method::Deliver { tag: 7 },
            Method::CloseForCause,
            Method::Other,
            Method::Other,
        ];
        let bytes = [b"AMQP\x00\x00\x09\x01".to_vec(), frames.concat()].concat();
        for size in 1..bytes.len() {
            let (mut parser, mut passed, mut methods) =
                (Frames::new(Direction::ToBroker), Vec::new(), Vec::new());
            for piece in bytes.chunks(size) {
                parser.push(piece);
                passed.extend(parser.take_header());
                while let Some(frame) = parser.next() {
                    assert_eq!(frame.channel, 1);
                    passed.extend(frame.bytes);
                    methods.push(frame.method);
                }
            }
            assert_eq!(methods, expected, "in pieces of {size}");
            assert_eq!(passed, bytes, "in pieces of {size}");
        }
    }
}
