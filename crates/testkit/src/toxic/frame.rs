//! Frames of AMQP 0-9-1, as far as a proxy must know them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Type of a frame with a method.
const METHOD: u8 = 1;
/// Type of a heartbeat.
const HEARTBEAT: u8 = 8;
/// Type, channel, length, and the end.
const AROUND: usize = 8;
const END: u8 = 0xCE;

/// One frame, whole.
#[derive(Debug, Clone)]
pub(super) struct Frame(pub(super) BytesMut);

impl Frame {
    /// Takes the first frame out of the buffer, once it is whole.
    pub(super) fn take(buffer: &mut BytesMut) -> Option<Self> {
        let length = buffer.get(3..7)?.get_u32() as usize;
        (buffer.len() >= length + AROUND).then(|| Self(buffer.split_to(length + AROUND)))
    }

    pub(super) fn channel(&self) -> u16 {
        (&self.0[1..3]).get_u16()
    }

    pub(super) fn is_heartbeat(&self) -> bool {
        self.0[0] == HEARTBEAT
    }

    pub(super) fn is_content(&self) -> bool {
        matches!(self.0[0], 2 | 3)
    }

    /// Class and method, when it has them.
    pub(super) fn method(&self) -> Option<(u16, u16)> {
        let mut payload = self.0.get(7..11).filter(|_| self.0[0] == METHOD)?;
        Some((payload.get_u16(), payload.get_u16()))
    }

    /// The short string that the arguments begin with.
    pub(super) fn first_text(&self) -> Option<Bytes> {
        let length = usize::from(*self.0.get(11)?);
        Some(Bytes::copy_from_slice(self.0.get(12..12 + length)?))
    }
}

/// A frame with a method.
pub fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(METHOD);
    frame.put_u16(channel);
    frame.put_u32(u32::try_from(arguments.len() + 4).expect("arguments are short"));
    frame.put_u16(class);
    frame.put_u16(method);
    frame.put_slice(arguments);
    frame.put_u8(END);
    frame.freeze()
}

/// A short string of AMQP.
pub fn text(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short string is short");
    [&[length], text].concat()
}

/// The arguments of `connection.close` and `channel.close`.
pub(super) fn close(code: u16, why: &str) -> Vec<u8> {
    let mut arguments = code.to_be_bytes().to_vec();
    arguments.extend(text(why.as_bytes()));
    arguments.extend([0; 4]);
    arguments
}
