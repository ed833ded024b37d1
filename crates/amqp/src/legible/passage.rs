//! A stream of frames that come in pieces of any size, mended on their way.

use super::{HEADER, METHOD, mend};
use crate::version::Server;
use std::fmt;

/// Type, channel and length, before the payload.
pub(super) const HEAD: usize = 7;
/// Behind the payload.
const END: usize = 1;
const BODY: u8 = 3;
/// Class and method.
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
const HEARTBEAT: u8 = 8;
/// The first letter of `AMQP` and a version, which a broker says that speaks another one.
const PROTOCOL_HEADER: u8 = b'A';
const PROTOCOL_HEADER_BYTES: usize = 8;
/// The longest frame that is looked at, whole: the most that RabbitMQ takes unless it is configured otherwise, with what
/// it lets a frame be longer.
pub(super) const LONGEST: usize = 128 * 1024 + 8;
/// What a frame in pieces may leave behind for the next one.
const KEPT: usize = 4 * 1024;

/// Frames that were mended so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Those with text that is not UTF-8.
    pub texts: u64,
    /// Those with tables or lists that were too deep.
    pub nestings: u64,
}

/// A frame that has to be looked at is longer than any that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(
            f,
            "a message has {bytes} bytes of properties and headers, and the most that can be taken are {LONGEST}"
        )
    }
}

impl std::error::Error for TooLong {}

/// What is next in the stream.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// A frame.
    Frame,
    /// So many more bytes of a frame that nobody looks at.
    Unseen(usize),
    /// No AMQP: whatever comes passes, and lapin says what it is.
    Anything,
}

/// What a frame is, by its head.
enum Kind {
    /// To be mended, and so long as a whole.
    Mended(usize),
    /// To be passed on, and so long as a whole.
    Unseen(usize),
    Unknown,
}

impl Kind {
    fn of(head: [u8; HEAD]) -> Self {
        let [frame_type, _, _, length @ ..] = head;
        let whole = usize::try_from(u32::from_be_bytes(length))
            .unwrap_or(usize::MAX)
            .saturating_add(HEAD + END);
        match frame_type {
            METHOD | HEADER => Self::Mended(whole),
            BODY | HEARTBEAT => Self::Unseen(whole),
            PROTOCOL_HEADER => Self::Unseen(PROTOCOL_HEADER_BYTES),
            _ => Self::Unknown,
        }
    }
}

/// The beginning of a frame whose rest has not come yet.
#[derive(Debug, Default)]
struct Held {
    /// As long as what is waited for: the head, and then the frame.
    bytes: Vec<u8>,
    /// How much of it has come.
    come: usize,
    /// How much of it was handed out; none before it is whole.
    out: usize,
    is_whole: bool,
}

impl Held {
    /// Keeps the beginning of a frame, of which `bytes` are waited for.
    fn begin(&mut self, beginning: &[u8], bytes: usize) {
        if !beginning.is_empty() {
            self.bytes.extend_from_slice(beginning);
            self.bytes.resize(bytes, 0);
            self.come = beginning.len();
        }
    }
}

/// Takes pieces of a stream and hands them out mended. A frame that is mended is handed out once it is whole; of others
/// nothing is kept.
#[derive(Debug)]
pub struct Passage {
    next: Next,
    held: Held,
    seen: Seen,
}

/// What frames have shown.
#[derive(Debug, Default)]
struct Seen {
    count: Count,
    server: Option<Server>,
}

impl Default for Passage {
    fn default() -> Self {
        Self {
            next: Next::Frame,
            held: Held::default(),
            seen: Seen::default(),
        }
    }
}

impl Passage {
    /// What was mended so far.
    pub fn count(&self) -> Count {
        self.seen.count
    }

    /// What the broker says that it is, once it has and only then; it does so first of all.
    pub fn take_server(&mut self) -> Option<Server> {
        self.seen.server.take()
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.held.bytes.capacity()
    }

    /// Takes a piece and returns how much of it can be handed on from where it is: the rest is kept. Nothing may be kept
    /// from before: see [`hand_out`](Self::hand_out) and [`room`](Self::room).
    ///
    /// # Errors
    /// [`TooLong`], and the stream is of no more use.
    pub fn pass(&mut self, piece: &mut [u8]) -> Result<usize, TooLong> {
        let mut at = 0;
        loop {
            let rest = &mut piece[at..];
            match self.next {
                Next::Anything => return Ok(piece.len()),
                Next::Unseen(bytes) if bytes > rest.len() => {
                    self.next = Next::Unseen(bytes - rest.len());
                    return Ok(piece.len());
                }
                Next::Unseen(bytes) => {
                    at += bytes;
                    self.next = Next::Frame;
                }
                Next::Frame => {
                    let Some(head) = rest.first_chunk() else {
                        self.held.begin(rest, HEAD);
                        return Ok(at);
                    };
                    match Kind::of(*head) {
                        Kind::Unknown => self.next = Next::Anything,
                        Kind::Unseen(bytes) => self.next = Next::Unseen(bytes),
                        Kind::Mended(bytes) if bytes > LONGEST => return Err(TooLong(bytes)),
                        Kind::Mended(bytes) => {
                            let Some(frame) = rest.get_mut(..bytes) else {
                                self.held.begin(rest, bytes);
                                return Ok(at);
                            };
                            self.seen.mend(frame);
                            at += bytes;
                        }
                    }
                }
            }
        }
    }

    /// Where the next bytes of the stream must be read to, if the beginning of a frame is kept.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let Held { bytes, come, .. } = &mut self.held;
        Some(&mut bytes[*come..]).filter(|room| !room.is_empty())
    }

    /// So many bytes were read to [`room`](Self::room).
    ///
    /// # Errors
    /// [`TooLong`], and the stream is of no more use.
    pub fn fill(&mut self, bytes: usize) -> Result<(), TooLong> {
        let held = &mut self.held;
        held.come += bytes;
        if held.come < held.bytes.len() {
            return Ok(());
        }
        if held.bytes.len() > HEAD {
            self.seen.mend(&mut held.bytes);
            held.is_whole = true;
            return Ok(());
        }
        let head = held.bytes.first_chunk().map(|head| Kind::of(*head));
        match head {
            Some(Kind::Mended(bytes)) if bytes > LONGEST => return Err(TooLong(bytes)),
            Some(Kind::Mended(bytes)) => held.bytes.resize(bytes, 0),
            Some(Kind::Unseen(bytes)) => {
                held.is_whole = true;
                self.next = Next::Unseen(bytes - HEAD);
            }
            Some(Kind::Unknown) | None => {
                held.is_whole = true;
                self.next = Next::Anything;
            }
        }
        Ok(())
    }

    /// The stream has ended: what is kept is handed out as it is.
    pub fn end(&mut self) {
        self.held.bytes.truncate(self.held.come);
        self.held.is_whole = true;
        self.next = Next::Anything;
    }

    /// Hands out what was kept and is whole; 0 when there is nothing.
    pub fn hand_out(&mut self, to: &mut [u8]) -> usize {
        let held = &mut self.held;
        if !held.is_whole {
            return 0;
        }
        let left = &held.bytes[held.out..];
        let count = left.len().min(to.len());
        to[..count].copy_from_slice(&left[..count]);
        held.out += count;
        if held.out == held.bytes.len() {
            held.bytes.clear();
            held.bytes.shrink_to(KEPT);
            (held.come, held.out, held.is_whole) = (0, 0, false);
        }
        count
    }
}

impl Seen {
    /// Mends a whole frame.
    fn mend(&mut self, frame: &mut [u8]) {
        let (frame_type, payload) = (frame[0], HEAD..frame.len() - END);
        let payload = &mut frame[payload];
        let mended = mend(frame_type, payload);
        self.count.texts += u64::from(mended.text);
        self.count.nestings += u64::from(mended.nesting);
        if frame_type == METHOD && payload.starts_with(&CONNECTION_START) {
            self.server = Server::read(payload);
        }
    }
}
