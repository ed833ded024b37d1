//! AMQP properties as on the wire (AMQP 0-9-1, 4.2.5 and 4.2.6.1, with RabbitMQ's types of values).
//!
//! Reading is lenient, so that every input is a message: a length that says too much means what is there, and a type
//! that nobody knows means nothing.

use crate::input::Input;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString};

/// Reads the properties of a content header: 16 flags, and what they announce.
pub(crate) fn read(input: &mut Input<'_>) -> BasicProperties {
    let flags = input.short();
    let has = |bit: u32| flags & (1 << (15 - bit)) != 0;
    let mut properties = BasicProperties::default();
    macro_rules! read {
        ($($bit:literal $setter:ident $value:expr),+ $(,)?) => {
            $(if has($bit) { properties = properties.$setter($value); })+
        };
    }
    read!(
        0 with_content_type short(input),
        1 with_content_encoding short(input),
        2 with_headers table(&mut Input::new(input.long_bytes())),
        3 with_delivery_mode input.byte(),
        4 with_priority input.byte(),
        5 with_correlation_id short(input),
        6 with_reply_to short(input),
        7 with_expiration short(input),
        8 with_message_id short(input),
        9 with_timestamp input.long_long(),
        10 with_type short(input),
        11 with_user_id short(input),
        12 with_app_id short(input),
        13 with_cluster_id short(input),
    );
    properties
}

/// A short string; what is no text is replaced, as far as there is room.
pub(crate) fn short(input: &mut Input<'_>) -> ShortString {
    let text = String::from_utf8_lossy(input.short_bytes());
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::try_new(&text[..end]).unwrap_or_default()
}

fn table(input: &mut Input<'_>) -> FieldTable {
    let mut table = FieldTable::default();
    while !input.is_empty() {
        let name = short(input);
        table.insert(name, value(input));
    }
    table
}

fn value(input: &mut Input<'_>) -> AMQPValue {
    match input.byte() {
        b't' => AMQPValue::Boolean(input.byte() != 0),
        b'b' => AMQPValue::ShortShortInt(i8::from_be_bytes(input.array())),
        b'B' => AMQPValue::ShortShortUInt(input.byte()),
        b's' => AMQPValue::ShortInt(i16::from_be_bytes(input.array())),
        b'u' => AMQPValue::ShortUInt(input.short()),
        b'I' => AMQPValue::LongInt(i32::from_be_bytes(input.array())),
        b'i' => AMQPValue::LongUInt(input.long()),
        b'l' | b'L' => AMQPValue::LongLongInt(i64::from_be_bytes(input.array())),
        b'f' => AMQPValue::Float(f32::from_be_bytes(input.array())),
        b'd' => AMQPValue::Double(f64::from_be_bytes(input.array())),
        b'D' => AMQPValue::DecimalValue(DecimalValue {
            scale: input.byte(),
            value: input.long(),
        }),
        b'S' => AMQPValue::LongString(input.long_bytes().to_vec().into()),
        b'A' => {
            let mut items = Input::new(input.long_bytes());
            let mut array = FieldArray::default();
            while !items.is_empty() {
                array.push(value(&mut items));
            }
            AMQPValue::FieldArray(array)
        }
        b'T' => AMQPValue::Timestamp(input.long_long()),
        b'F' => AMQPValue::FieldTable(table(&mut Input::new(input.long_bytes()))),
        b'x' => AMQPValue::ByteArray(input.long_bytes().to_vec().into()),
        _ => AMQPValue::Void,
    }
}

/// Writes properties so that [`read`], and a broker, reads them again.
pub(crate) fn write(properties: &BasicProperties) -> Vec<u8> {
    let mut wire = properties.bitmask().to_be_bytes().to_vec();
    let text = |wire: &mut Vec<u8>, text: &Option<ShortString>| {
        if let Some(text) = text {
            write_short(wire, text.as_str());
        }
    };
    text(&mut wire, properties.content_type());
    text(&mut wire, properties.content_encoding());
    if let Some(headers) = properties.headers() {
        measured(&mut wire, |wire| write_table(wire, headers));
    }
    wire.extend(*properties.delivery_mode());
    wire.extend(*properties.priority());
    text(&mut wire, properties.correlation_id());
    text(&mut wire, properties.reply_to());
    text(&mut wire, properties.expiration());
    text(&mut wire, properties.message_id());
    if let Some(seconds) = properties.timestamp() {
        wire.extend(seconds.to_be_bytes());
    }
    text(&mut wire, properties.kind());
    text(&mut wire, properties.user_id());
    text(&mut wire, properties.app_id());
    text(&mut wire, properties.cluster_id());
    wire
}

pub(crate) fn write_short(wire: &mut Vec<u8>, text: &str) {
    wire.push(u8::try_from(text.len()).expect("a short string"));
    wire.extend(text.as_bytes());
}

fn write_long(wire: &mut Vec<u8>, bytes: &[u8]) {
    measured(wire, |wire| wire.extend(bytes));
}

/// Writes what `inner` writes, and before it how much that is.
fn measured(wire: &mut Vec<u8>, inner: impl FnOnce(&mut Vec<u8>)) {
    let start = wire.len();
    wire.extend([0; 4]);
    inner(wire);
    let count = u32::try_from(wire.len() - start - 4).expect("less than 4 GiB");
    wire[start..start + 4].copy_from_slice(&count.to_be_bytes());
}

fn write_table(wire: &mut Vec<u8>, table: &FieldTable) {
    for (name, value) in table {
        write_short(wire, name.as_str());
        write_value(wire, value);
    }
}

pub(crate) fn write_value(wire: &mut Vec<u8>, value: &AMQPValue) {
    wire.push(u8::try_from(value.get_type().get_id()).expect("a letter"));
    match value {
        AMQPValue::Boolean(flag) => wire.push(u8::from(*flag)),
        AMQPValue::ShortShortInt(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::ShortShortUInt(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::ShortInt(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::ShortUInt(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::LongInt(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::LongUInt(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::LongLongInt(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::Float(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::Double(number) => wire.extend(number.to_be_bytes()),
        AMQPValue::DecimalValue(decimal) => {
            wire.push(decimal.scale);
            wire.extend(decimal.value.to_be_bytes());
        }
        AMQPValue::ShortString(text) => write_short(wire, text.as_str()),
        AMQPValue::LongString(text) => write_long(wire, text.as_bytes()),
        AMQPValue::FieldArray(items) => measured(wire, |wire| {
            for item in items.as_slice() {
                write_value(wire, item);
            }
        }),
        AMQPValue::Timestamp(seconds) => wire.extend(seconds.to_be_bytes()),
        AMQPValue::FieldTable(table) => measured(wire, |wire| write_table(wire, table)),
        AMQPValue::ByteArray(bytes) => write_long(wire, bytes.as_slice()),
        AMQPValue::Void => {}
    }
}
