use super::*;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { kept: 8, read: 16 };

/// How an answer ends for whoever reads it: its status, what was kept of the body, whether that is all of it, and whether
/// the connection can be used again.
type End = Result<(u16, String, bool, bool), &'static str>;

/// Reads what comes in these parts, and then no more.
fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> End {
    let mut reader = Reader::default();
    let mut parts = parts.into_iter();
    loop {
        let Some(part) = parts.next() else {
            match reader.end() {
                Ok(true) => break,
                Ok(false) => return Err("broke off"),
                Err(Malformed) => return Err("malformed"),
            }
        };
        reader.space().extend_from_slice(part);
        match reader.advance(BOUNDS) {
            Err(Malformed) => return Err("malformed"),
            Ok(Progress::More) => {}
            Ok(Progress::Done) => break,
        }
    }
    // What follows on the answer shows in the same read or not at all.
    for part in parts {
        reader.space().extend_from_slice(part);
    }
    let finished = reader
        .finish(|status, _, body| (status.as_u16(), text(&body.bytes), body.is_whole))
        .unwrap();
    let (status, body, is_whole) = finished.answer;
    assert!(reader.is_untouched(), "ready for the next");
    Ok((status, body, is_whole, finished.is_reusable))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const fn whole(status: u16, body: &'static str, is_reusable: bool) -> (u16, &'static str, bool, bool) {
    (status, body, true, is_reusable)
}

/// An answer as it comes over the wire, and what it is.
type Case = (
    &'static str,
    Result<(u16, &'static str, bool, bool), &'static str>,
);

/// Where a body ends.
const BODIES: &[Case] = &[
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Ok(whole(200, "", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Ok(whole(200, "ok", true)),
    ),
    (
        "HTTP/1.1 200\r\ncontent-length:2\r\n\r\nok",
        Ok(whole(200, "ok", true)),
    ),
    (
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        Ok(whole(200, "ok", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        Ok(whole(200, "ok", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        Ok(whole(200, "ok", true)),
    ),
    ("HTTP/1.1 204 No Content\r\n\r\n", Ok(whole(204, "", true))),
    (
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Ok(whole(304, "", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        Ok((200, "to the e", false, false)),
    ),
    ("HTTP/1.1 200 OK\r\n\r\nthe end", Ok(whole(200, "the end", false))),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Ok(whole(200, "ok", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Ok(whole(200, "", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: Chunked\r\n\r\n\
             1;a=\"b\"\r\no\r\n01 \r\nk\r\n000\r\nx-a: 1\r\nx-b: 2\r\n\r\n",
        Ok(whole(200, "ok", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nok",
        Ok(whole(200, "2\r\nok", false)),
    ),
];

/// What becomes of the connection.
const CONNECTIONS: &[Case] = &[
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: a, Close\r\n\r\n",
        Ok(whole(200, "", false)),
    ),
    (
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        Ok(whole(200, "", false)),
    ),
    (
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n",
        Ok(whole(200, "", true)),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore",
        Ok(whole(200, "", false)),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Ok(whole(200, "ok", false)),
    ),
];

/// Interim answers.
const INTERIM: &[Case] = &[
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n",
        Ok(whole(201, "", true)),
    ),
    (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        Ok(whole(101, "", false)),
    ),
];

/// As much as is wanted of a body.
const BOUNDED: &[Case] = &[
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789",
        Ok((200, "12345678", false, true)),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n12345678901234567",
        Ok((200, "12345678", false, false)),
    ),
];

/// What breaks off.
const BROKEN_OFF: &[Case] = &[
    ("", Err("broke off")),
    ("HTTP/1.1 200 OK\r\n", Err("broke off")),
    ("HTTP/1.1 100 Continue\r\n\r\n", Err("broke off")),
    ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Err("broke off")),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        Err("broke off"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na: b\r\n",
        Err("broke off"),
    ),
];

/// What is no answer.
const NO_ANSWERS: &[Case] = &[
    ("SSH-2.0-OpenSSH_9.2\r\n", Err("malformed")),
    ("HTTP/2.0 200 OK\r\n\r\n", Err("malformed")),
    ("HTTP/1.1 20 OK\r\n\r\n", Err("malformed")),
    ("HTTP/1.1 2000 OK\r\n\r\n", Err("malformed")),
    ("HTTP/1.1 099 ?\r\n\r\n", Err("malformed")),
    ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", Err("malformed")),
    ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Err("malformed")),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        Err("malformed"),
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", Err("malformed")),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        Err("malformed"),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        Err("malformed"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        Err("malformed"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        Err("malformed"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n",
        Err("malformed"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        Err("malformed"),
    ),
];

fn cases() -> impl Iterator<Item = (&'static str, End)> {
    let all = [BODIES, CONNECTIONS, INTERIM, BOUNDED, BROKEN_OFF, NO_ANSWERS];
    let owned = |(answer, end): &Case| {
        let end =
            end.map(|(status, body, is_whole, is_reusable)| (status, body.to_owned(), is_whole, is_reusable));
        (*answer, end)
    };
    all.into_iter().flatten().map(owned)
}

#[test]
fn answers_are_what_they_are_whole_and_byte_by_byte() {
    for (answer, expected) in cases() {
        assert_eq!(read([answer.as_bytes()]), expected, "{answer:?}");
        assert_eq!(
            read(answer.as_bytes().chunks(1)),
            expected,
            "byte by byte: {answer:?}"
        );
    }
}

#[test]
fn one_answer_after_the_other_is_read_from_one_connection() {
    let mut reader = Reader::default();
    for (answer, expected) in cases() {
        let Ok((status, body, true, true)) = expected else {
            continue;
        };
        reader.space().extend_from_slice(answer.as_bytes());
        assert_eq!(reader.advance(BOUNDS), Ok(Progress::Done), "{answer:?}");
        let finished = reader.finish(|status, _, body| (status.as_u16(), text(&body.bytes)));
        assert_eq!(finished.unwrap().answer, (status, body), "{answer:?}");
    }
}

#[test]
fn fields_are_told_with_the_answer() {
    let mut reader = Reader::default();
    reader
        .space()
        .extend_from_slice(b"HTTP/1.1 200 OK\r\nRetry-After:  7 \r\ncontent-length: 1\r\n\r\nx");
    assert_eq!(reader.advance(BOUNDS), Ok(Progress::Done));
    let told = reader.finish(|_, fields, _| fields.text("retry-after").map(str::to_owned));
    assert_eq!(told.unwrap().answer.as_deref(), Some("7"));
}

#[test]
fn heads_and_lines_without_an_end_are_given_up() {
    let long = "x".repeat(500 * 1024);
    for answer in [
        format!("HTTP/1.1 200 OK\r\na: {long}"),
        format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(101)),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{long}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: {long}"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}",
            "a: b\r\n".repeat(9999)
        ),
    ] {
        assert_eq!(read([answer.as_bytes()]), Err("malformed"), "{}", &answer[..60]);
        assert_eq!(
            read(answer.as_bytes().chunks(1000)),
            Err("malformed"),
            "{}",
            &answer[..60]
        );
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same(case in any::<prop::sample::Index>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let cases: Vec<_> = cases().collect();
        let (answer, expected) = case.get(&cases);
        let bytes = answer.as_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        at.sort_unstable();
        let parts = at.windows(2).map(|part| &bytes[part[0]..part[1]]);
        prop_assert_eq!(&read(parts), expected);
    }

    #[test]
    fn any_bytes_end_somehow(head in "(HTTP/1.1 [0-9]{3} \\r\\n)?(transfer-encoding: chunked\\r\\n)?(\\r\\n)?", rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [head.as_bytes(), &rest].concat();
        let whole = read([&bytes[..]]);
        let parts = read(bytes.chunks(3));
        prop_assert_eq!(whole, parts);
    }
}
