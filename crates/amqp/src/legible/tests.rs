use super::passage::{HEAD, LONGEST};
use super::*;
use lapin::protocol::basic::parse_properties;
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};
use proptest::collection::vec;
use proptest::prelude::*;

const CHANNEL: [u8; 2] = [0, 1];

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn frame(frame_type: u8, payload: &[u8]) -> Vec<u8> {
    [&[frame_type], &CHANNEL[..], &long(payload), &[0xCE]].concat()
}

/// The payload of a content header with nothing but these properties.
fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    [
        &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &flags.to_be_bytes()[..],
        properties,
    ]
    .concat()
}

/// One with a table of headers alone.
fn header_with(table: &[u8]) -> Vec<u8> {
    header(1 << 13, &long(table))
}

/// Mends a payload and returns the headers as lapin reads them.
fn headers_of(payload: &mut [u8]) -> FieldTable {
    mend(HEADER, payload);
    let (rest, properties) = parse_properties(&payload[BEFORE_PROPERTIES..]).unwrap();
    assert!(rest.is_empty());
    properties.headers().clone().unwrap()
}

/// A header `n` with so many lists or tables in one another.
fn nested(levels: usize, is_list: bool) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..levels {
        let entry = if is_list {
            value
        } else {
            [short(b"t"), value].concat()
        };
        value = [&[if is_list { b'A' } else { b'F' }], &long(&entry)[..]].concat();
    }
    [short(b"n"), value].concat()
}

/// Tables and lists in one another.
fn depth(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::FieldArray(items) => 1 + items.as_slice().iter().map(depth).max().unwrap_or(0),
        AMQPValue::FieldTable(table) => {
            1 + table
                .into_iter()
                .map(|(_, value)| depth(value))
                .max()
                .unwrap_or(0)
        }
        _ => 0,
    }
}

#[test]
fn bytes_of_a_name_that_are_no_utf_8_become_question_marks() {
    let cases: &[(&[u8], &str)] = &[
        (b"caf\xE9", "caf?"),
        (b"\xFF\xFE", "??"),
        ("Grüße".as_bytes(), "Grüße"),
        ("Gr\u{fc}\u{df}".as_bytes(), "Grüß"),
        // A surrogate, which RabbitMQ takes for UTF-8; a character that is cut off; one that is too long.
        (b"a\xED\xA0\x80b", "a???b"),
        (b"a\xE2\x82", "a??"),
        (b"\xF7\xBF\xBF\xBF", "????"),
        (b"\xC3\xC3\xBC", "?\u{fc}"),
        (b"", ""),
    ];
    for (name, shown) in cases {
        let mut payload = header_with(&[&short(name)[..], b"t\x01"].concat());
        let was = payload.clone();
        let headers = headers_of(&mut payload);
        assert_eq!(
            headers.inner().get(*shown),
            Some(&AMQPValue::Boolean(true)),
            "{name:?}"
        );
        assert_eq!(payload == was, std::str::from_utf8(name).is_ok());
        assert_eq!(payload.len(), was.len());
    }
}

#[test]
fn values_may_be_any_bytes() {
    let value = [
        short(b"a"),
        vec![b'S'],
        long(b"\xFF\xFE"),
        short(b"b"),
        vec![b'x'],
        long(b"\xFF"),
    ]
    .concat();
    let mut payload = header_with(&value);
    let was = payload.clone();
    assert_eq!(mend(HEADER, &mut payload), Mended::default());
    assert_eq!(payload, was);
}

#[test]
fn every_short_string_among_the_properties_is_mended() {
    let is_text = |bit: usize| matches!(PROPERTIES[bit], Field::Text);
    for bit in (0..14).filter(|bit| is_text(*bit)) {
        // With a neighbour before it and one behind it.
        let flags = 1 << (15 - bit) | 1 << 12 | 1 << 6;
        let mut properties = Vec::new();
        for other in 0..14 {
            match other {
                _ if other == bit => properties.extend(short(b"\xED\xA0\x80x")),
                3 => properties.push(2),
                9 => properties.extend([0xFF; 8]),
                _ => {}
            }
        }
        let mut payload = header(flags, &properties);
        let mended = mend(HEADER, &mut payload);
        assert!(mended.text && !mended.nesting, "{bit}");
        let (rest, read) = parse_properties(&payload[BEFORE_PROPERTIES..]).unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            (*read.delivery_mode(), *read.timestamp()),
            (Some(2), Some(u64::MAX)),
            "{bit}"
        );
        assert!(format!("{read:?}").contains("???x"), "{bit}: {read:?}");
    }
}

#[test]
fn what_is_too_deep_becomes_bytes_and_the_rest_stays() {
    for is_list in [true, false] {
        for levels in [1, DEEPEST - 2, DEEPEST - 1, DEEPEST, DEEPEST + 1, 3_000, 20_000] {
            let table = [nested(levels, is_list), short(b"next"), b"t\x01".to_vec()].concat();
            let mut payload = header_with(&table);
            let was = payload.clone();
            let headers = headers_of(&mut payload);
            // The table of headers is a level too.
            let is_too_deep = levels >= DEEPEST;
            assert_eq!(payload != was, is_too_deep, "{levels}");
            assert_eq!(
                depth(headers.inner().get("n").unwrap()),
                levels.min(DEEPEST - 1),
                "{levels}"
            );
            assert_eq!(headers.inner().get("next"), Some(&AMQPValue::Boolean(true)));
            assert_eq!(mend(HEADER, &mut payload), Mended::default(), "a second time");
        }
    }
}

#[test]
fn a_deep_value_is_made_bytes_even_where_something_behind_it_is_wrong() {
    // lapin reads in the same order, and must not get as deep as that.
    let mut table = nested(10_000, true);
    table.extend(b"\xFFcut off");
    let mut payload = header_with(&table);
    assert!(mend(HEADER, &mut payload).nesting);
    assert!(parse_properties(&payload[BEFORE_PROPERTIES..]).is_err());
}

#[test]
fn short_strings_of_methods_are_mended() {
    let bad = short(b"\xFF");
    let deliver = [&[0, 60, 0, 60][..], &short(b"ctag"), &[0; 9], &bad, &bad].concat();
    let returned = [&[0, 60, 0, 50, 1, 56][..], &bad, &bad, &bad].concat();
    let got = [&[0, 60, 0, 71][..], &[0; 9], &bad, &bad, &[0; 4]].concat();
    let closed = [&[0, 20, 0, 40, 1, 148][..], &bad, &[0; 4]].concat();
    let blocked = [&[0, 10, 0, 60][..], &bad].concat();
    let table = [nested(100, false), bad.clone(), b"V".to_vec()].concat();
    let start = [
        &[0, 10, 0, 10, 0, 9][..],
        &long(&table),
        &long(b"PLAIN"),
        &long(b"en_US"),
    ]
    .concat();
    for method in [deliver, returned, got, closed, blocked, start] {
        assert!(lapin::protocol::parse_class(&method[..]).is_err());
        let mut mended = method.clone();
        assert!(mend(METHOD, &mut mended).text);
        let (rest, read) = lapin::protocol::parse_class(&mended[..]).unwrap();
        assert!(rest.is_empty(), "{read:?}");
    }
}

#[test]
fn lengths_that_say_too_much_are_left_alone() {
    for payload in [
        header_with(&[short(b"a"), vec![b'S', 0, 0, 0, 9]].concat()),
        header_with(&[short(b"a"), vec![b'F', 0, 0, 0, 1, b'A']].concat()),
        header_with(&[9, b'a']),
        header_with(&[short(b"a"), vec![b'?']].concat()),
        header_with(&short(b"a")),
        header(0xFFFC, b""),
        vec![0, 60],
        Vec::new(),
    ] {
        let mut mended = payload.clone();
        assert_eq!(mend(HEADER, &mut mended), Mended::default(), "{payload:?}");
        assert_eq!(mended, payload);
    }
}

/// Reads a stream in pieces of these sizes, over and over, through a passage as lapin does.
fn through(stream: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, Count), TooLong> {
    let (mut passage, mut out, mut at) = (Passage::default(), Vec::new(), 0);
    let mut sizes = sizes.iter().copied().cycle();
    let mut read = |to: &mut [u8]| {
        let count = to.len().min(stream.len() - at);
        to[..count].copy_from_slice(&stream[at..at + count]);
        at += count;
        count
    };
    loop {
        let mut buffer = vec![0; sizes.next().unwrap()];
        let handed = passage.hand_out(&mut buffer);
        if handed > 0 {
            out.extend(&buffer[..handed]);
        } else if let Some(room) = passage.room() {
            let most = room.len().min(buffer.len());
            match read(&mut room[..most]) {
                0 => passage.end(),
                count => passage.fill(count)?,
            }
        } else {
            let count = read(&mut buffer);
            if count == 0 {
                return Ok((out, passage.count()));
            }
            let passed = passage.pass(&mut buffer[..count])?;
            out.extend(&buffer[..passed]);
        }
    }
}

#[test]
fn whole_frames_are_not_copied_and_nothing_is_kept_of_bodies() {
    let mut passage = Passage::default();
    let message = [
        frame(
            METHOD,
            &[
                &[0, 60, 0, 60][..],
                &short(b"c"),
                &[0; 9],
                &short(b""),
                &short(b"\xFF"),
            ]
            .concat(),
        ),
        frame(HEADER, &header_with(&nested(40, true))),
        frame(3, &[7; 1000]),
    ]
    .concat();
    let mut piece = [message.clone(), message[..message.len() - 500].to_vec()].concat();
    let length = piece.len();
    assert_eq!(passage.pass(&mut piece), Ok(length));
    assert!(passage.room().is_none());
    assert_eq!(passage.pass(&mut [7; 500]), Ok(500));
    assert_eq!(
        passage.count(),
        Count {
            texts: 2,
            nestings: 2
        }
    );
    assert_eq!(passage.kept_bytes(), 0, "nothing was ever allocated");
}

#[test]
fn a_long_frame_in_pieces_leaves_no_large_buffer_behind() {
    let long = header_with(&[short(b"a"), vec![b'S'], long(&vec![b'x'; 100_000])].concat());
    let stream = frame(HEADER, &long);
    let mut passage = Passage::default();
    assert_eq!(passage.pass(&mut stream[..100].to_vec()), Ok(0));
    let room = passage.room().unwrap();
    room.copy_from_slice(&stream[100..]);
    let count = room.len();
    passage.fill(count).unwrap();
    let mut out = vec![0; stream.len()];
    assert_eq!(passage.hand_out(&mut out), stream.len());
    assert_eq!(out, stream);
    assert!(passage.kept_bytes() <= 4096);
}

#[test]
fn a_frame_that_is_too_long_to_be_looked_at_is_refused() {
    let head = |payload: usize| {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        [&[HEADER, 0, 1][..], &length].concat()
    };
    let most = LONGEST - HEAD - 1;
    for sizes in [[1], [100]] {
        assert!(through(&head(most), &sizes).is_ok());
        let error = through(&head(most + 1), &sizes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a message has 131081 bytes of properties and headers, and the most that can be taken are 131080"
        );
    }
    let body = [&[3, 0, 1][..], &u32::MAX.to_be_bytes()].concat();
    assert!(through(&body, &[1]).is_ok());
}

#[test]
fn what_is_no_amqp_passes_as_it_is() {
    for stream in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"AMQP\0\0\x09\x01",
        b"\x02\0",
        b"\x01\0\0\0\0\0\x09half",
    ] {
        for size in [1, 3, 100] {
            assert_eq!(through(stream, &[size]).unwrap().0, stream);
        }
    }
}

/// A value as on the wire, with names of any bytes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop_oneof![
        Just(vec![b'V']),
        any::<u8>().prop_map(|byte| vec![b't', byte]),
        any::<[u8; 2]>().prop_map(|bytes| [&b"s"[..], &bytes].concat()),
        any::<[u8; 4]>().prop_map(|bytes| [&b"I"[..], &bytes].concat()),
        any::<[u8; 5]>().prop_map(|bytes| [&b"D"[..], &bytes].concat()),
        any::<[u8; 8]>().prop_map(|bytes| [&b"d"[..], &bytes].concat()),
        vec(any::<u8>(), 0..20).prop_map(|bytes| [vec![b'S'], long(&bytes)].concat()),
        vec(any::<u8>(), 0..20).prop_map(|bytes| [vec![b'x'], long(&bytes)].concat()),
        (DEEPEST - 4..DEEPEST + 4, any::<bool>())
            .prop_map(|(levels, is_list)| nested(levels, is_list)[2..].to_vec()),
    ];
    fixed.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| [vec![b'A'], long(&items.concat())].concat()),
            table(inner).prop_map(|table| [vec![b'F'], long(&table)].concat()),
        ]
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof!["\\PC{0,20}".prop_map(String::into_bytes), vec(any::<u8>(), 0..20),]
}

fn table(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let entry = (name(), value).prop_map(|(name, value)| [short(&name), value].concat());
    vec(entry, 0..5).prop_map(|entries| entries.concat())
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        table(value()).prop_map(|table| frame(HEADER, &header_with(&table))),
        vec(any::<u8>(), 0..100).prop_map(|bytes| frame(HEADER, &bytes)),
        vec(any::<u8>(), 0..100).prop_map(|bytes| frame(METHOD, &bytes)),
        (name(), name()).prop_map(|(exchange, key)| {
            frame(
                METHOD,
                &[
                    &[0, 60, 0, 60][..],
                    &short(b"c"),
                    &[0; 9],
                    &short(&exchange),
                    &short(&key),
                ]
                .concat(),
            )
        }),
        vec(any::<u8>(), 0..300).prop_map(|bytes| frame(3, &bytes)),
        Just(frame(8, &[])),
    ]
}

proptest! {
    #[test]
    fn sound_headers_become_readable_and_stay_so(table in table(value())) {
        let mut payload = header_with(&table);
        let was = payload.clone();
        let mended = mend(HEADER, &mut payload);
        prop_assert_eq!(payload.len(), was.len());
        prop_assert_eq!(payload == was, mended == Mended::default());
        let (rest, headers) = parse_field_table(&payload[BEFORE_PROPERTIES + 2..]).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert!(depth(&AMQPValue::FieldTable(headers.clone())) <= DEEPEST);
        let again = payload.clone();
        prop_assert_eq!(mend(HEADER, &mut payload), Mended::default());
        prop_assert_eq!(&payload, &again);
        // What lapin could read already was not touched: none of these is so deep that reading it is dangerous.
        if let Ok((_, before)) = parse_field_table(&was[BEFORE_PROPERTIES + 2..])
            && depth(&AMQPValue::FieldTable(before)) <= DEEPEST
        {
            prop_assert_eq!(&again, &was);
        }
    }

    #[test]
    fn any_bytes_are_taken(frame_type in 0_u8..4, mut payload in vec(any::<u8>(), 0..300)) {
        let length = payload.len();
        mend(frame_type, &mut payload);
        prop_assert_eq!(payload.len(), length);
        let again = payload.clone();
        mend(frame_type, &mut payload);
        prop_assert_eq!(payload, again);
    }

    #[test]
    fn frames_are_the_same_in_pieces_of_any_size(
        frames in vec(any_frame(), 0..12),
        sizes in vec(1_usize..200, 1..10),
        end in 0_usize..20,
    ) {
        let mut stream = frames.concat();
        let mut expected = Vec::new();
        for mut frame in frames {
            let payload = HEAD..frame.len() - 1;
            mend(frame[0], &mut frame[payload]);
            expected.extend(frame);
        }
        let whole = stream.len();
        // The last frame may be cut off; its beginning then comes as it was.
        let cut = whole.saturating_sub(end);
        let (out, _) = through(&stream, &sizes).unwrap();
        prop_assert_eq!(&out, &expected);
        stream.truncate(cut);
        let (out, _) = through(&stream, &sizes).unwrap();
        prop_assert_eq!(out.len(), cut);
    }
}
