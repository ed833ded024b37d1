//! Frames from a broker, which are mended before the client reads them.
//!
//! An input is the type of a frame and its payload. The payload is then one frame among others, read in pieces.

use crate::Target;
use crate::input::Input;
use amqp::legible::{DEEPEST, Mended, Passage, mend};
use lapin::protocol::basic::parse_properties;
use lapin::protocol::parse_class;
use lapin::types::AMQPValue;

pub(crate) const TARGET: Target = Target {
    name: "frames",
    what: "frames of a broker: as long as they were, the same in any pieces, and read by the client if they are sound",
    run,
};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// Class, weight and length of the body, before the properties.
const BEFORE_PROPERTIES: usize = 12;
/// By the order of their flags: what is no short string has so many bytes; the table is the third.
const PROPERTIES: [Option<usize>; 14] = {
    let mut properties = [None; 14];
    (properties[3], properties[4], properties[9]) = (Some(1), Some(1), Some(8));
    properties
};
const HEADERS: usize = 2;

fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let frame_type = [METHOD, HEADER, BODY][usize::from(input.byte() % 3)];
    let pieces = usize::from(input.byte()) + 1;
    let was = input.rest();
    let mut payload = was.to_vec();
    let mended = mend(frame_type, &mut payload);
    assert_eq!(payload.len(), was.len(), "the length");
    assert_eq!(payload == was, mended == Mended::default(), "what is told");
    let mut again = payload.clone();
    assert_eq!(mend(frame_type, &mut again), Mended::default(), "a second time");
    assert_eq!(again, payload, "a second time");
    match frame_type {
        HEADER => check_properties(was, &payload, mended),
        METHOD => {
            // Depth is bounded whatever else is wrong: this would overflow the stack.
            let _read = parse_class(&payload[..]).is_ok();
        }
        _ => assert_eq!(payload, was, "a body"),
    }
    check_pieces(frame_type, was, &payload, pieces);
}

fn check_properties(was: &[u8], now: &[u8], mended: Mended) {
    let sound = was.get(BEFORE_PROPERTIES..).and_then(sound);
    let read = now.get(BEFORE_PROPERTIES..).map(parse_properties);
    let Some(sound) = sound else {
        assert!(
            !matches!(read, Some(Ok(([], _)))),
            "lapin reads what is not sound"
        );
        return;
    };
    assert_eq!(mended.nesting, sound.depth > DEEPEST);
    assert_eq!(mended.text, !sound.is_utf8, "text is mended when it must be");
    let (rest, properties) = read
        .expect("there are properties")
        .expect("sound properties are read");
    assert!(rest.is_empty(), "{} bytes are left", rest.len());
    if let Some(headers) = properties.headers() {
        assert!(depth(&AMQPValue::FieldTable(headers.clone())) <= DEEPEST);
    }
}

/// The frame among others in pieces of this size, as they come from a socket.
fn check_pieces(frame_type: u8, was: &[u8], mended: &[u8], size: usize) {
    let around = |payload: &[u8]| {
        let body = frame(BODY, b"a body that nobody looks at");
        [frame(frame_type, payload), body, frame(frame_type, payload)].concat()
    };
    let (stream, expected) = (around(was), around(mended));
    let mut left = &stream[..];
    let mut read = |to: &mut [u8]| {
        let (taken, rest) = left.split_at(to.len().min(left.len()));
        to[..taken.len()].copy_from_slice(taken);
        left = rest;
        taken.len()
    };
    let (mut passage, mut out, mut buffer) = (Passage::default(), Vec::<u8>::new(), vec![0; size]);
    loop {
        let handed = passage.hand_out(&mut buffer);
        out.extend(&buffer[..handed]);
        if handed > 0 {
            continue;
        }
        if let Some(room) = passage.room() {
            let count = read(room);
            assert!(count > 0, "all frames are whole");
            passage.fill(count).expect("no frame is too long");
            continue;
        }
        let count = read(&mut buffer);
        if count == 0 {
            break;
        }
        let passed = passage.pass(&mut buffer[..count]).expect("no frame is too long");
        out.extend(&buffer[..passed]);
    }
    assert_eq!(out, expected, "in pieces of {size}");
}

fn frame(frame_type: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("inputs are short");
    [&[frame_type, 0, 1][..], &length.to_be_bytes(), payload, &[0xCE]].concat()
}

fn depth(value: &AMQPValue) -> usize {
    let inner = match value {
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(depth).max(),
        AMQPValue::FieldTable(table) => table.into_iter().map(|(_, value)| depth(value)).max(),
        _ => return 0,
    };
    inner.unwrap_or(0) + 1
}

/// Properties whose lengths fit into each other, by a reader of its own.
struct Sound {
    is_utf8: bool,
    /// Of tables and lists in one another.
    depth: usize,
}

fn sound(properties: &[u8]) -> Option<Sound> {
    let (flags, mut rest) = properties.split_first_chunk()?;
    let flags = u16::from_be_bytes(*flags);
    let mut sound = Sound {
        is_utf8: true,
        depth: 0,
    };
    for (bit, fixed) in PROPERTIES.into_iter().enumerate() {
        if flags & (1 << (15 - bit)) == 0 {
            continue;
        }
        match fixed {
            Some(bytes) => rest = rest.get(bytes..)?,
            None if bit == HEADERS => {
                let table = long(&mut rest)?;
                container(table, true, 1, &mut sound)?;
            }
            None => name(&mut rest, &mut sound)?,
        }
    }
    rest.is_empty().then_some(sound)
}

fn name(rest: &mut &[u8], sound: &mut Sound) -> Option<()> {
    let (length, after) = rest.split_first()?;
    let (text, after) = after.split_at_checked(usize::from(*length))?;
    sound.is_utf8 &= std::str::from_utf8(text).is_ok();
    *rest = after;
    Some(())
}

fn long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

/// By recursion, as lapin reads: inputs are too short to be too deep for that.
fn container(mut rest: &[u8], is_table: bool, depth: usize, sound: &mut Sound) -> Option<()> {
    sound.depth = sound.depth.max(depth);
    while !rest.is_empty() {
        if is_table {
            name(&mut rest, sound)?;
        }
        let (letter, after) = rest.split_first()?;
        rest = after;
        let fixed = match letter {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'S' | b'x' => {
                long(&mut rest)?;
                0
            }
            b'A' | b'F' => {
                let inner = long(&mut rest)?;
                // What is deeper than that is bytes for lapin, and need not be sound.
                if depth < DEEPEST {
                    container(inner, *letter == b'F', depth + 1, sound)?;
                } else {
                    sound.depth = DEEPEST + 1;
                }
                0
            }
            _ => return None,
        };
        rest = rest.get(fixed..)?;
    }
    Some(())
}
