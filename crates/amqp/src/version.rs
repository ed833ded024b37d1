//! What a broker is, and what differs between versions of RabbitMQ for settling. Pure.
//!
//! The facts are those of `docs/reference/rabbitmq-versions.md`; `sidecar/tests/versions.rs` asks a real broker for each.

use lapin::protocol::AMQPClass;
use lapin::protocol::connection::AMQPMethod;
use lapin::types::{AMQPValue, FieldTable};
use std::fmt;

/// The name under which RabbitMQ introduces itself.
const RABBITMQ: &str = "RabbitMQ";
/// As much of a name is kept; more is none.
const LONGEST_NAME: usize = 64;

/// The version of a broker. Ordered as versions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second one; 0 where there is none.
    pub minor: u32,
    /// The third one; 0 where there is none.
    pub patch: u32,
}

/// From here on a quorum queue gives messages up by itself.
const DEFAULT_LIMIT_SINCE: Version = Version::new(4, 0, 0);
/// From here on `basic.nack` does not count, and a consumer timeout ends the consumer alone.
const RETURNS_ARE_FREE_SINCE: Version = Version::new(4, 3, 0);
/// Deliveries that go back before the message is given up.
const DEFAULT_LIMIT: u32 = 20;

impl Version {
    /// A version of three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `4.3.6`, also with something behind it such as `-rc.1`; `None` when it does not begin with a number.
    pub fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+', '~', ' ']).next()?;
        let mut numbers = core.splitn(3, '.').map(|part| {
            let digits = part
                .find(|letter: char| !letter.is_ascii_digit())
                .unwrap_or(part.len());
            part[..digits].parse::<u32>().ok()
        });
        let major = numbers.next()??;
        let mut next = || numbers.next().flatten().unwrap_or(0);
        Some(Self::new(major, next(), next()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// What answers at the broker's address, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Such as `RabbitMQ`.
    pub product: String,
    /// Of that product.
    pub version: Version,
}

impl Server {
    /// Reads the payload of `connection.start`, which lapin keeps to itself. `None` for any other method, and when the
    /// broker does not say what it is in words that can be read.
    pub(crate) fn read(method: &[u8]) -> Option<Self> {
        let (_, AMQPClass::Connection(AMQPMethod::Start(start))) =
            lapin::protocol::parse_class(method).ok()?
        else {
            return None;
        };
        let product = text(&start.server_properties, "product")?;
        let version = Version::parse(&text(&start.server_properties, "version")?)?;
        Some(Self { product, version })
    }

    /// The version, when it is RabbitMQ's own; what holds for others is not known.
    pub fn rabbitmq(&self) -> Option<Version> {
        (self.product == RABBITMQ).then_some(self.version)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.version)
    }
}

fn text(properties: &FieldTable, name: &str) -> Option<String> {
    let Some(AMQPValue::LongString(text)) = properties.inner().get(name) else {
        return None;
    };
    let text = std::str::from_utf8(text.as_bytes()).ok()?;
    let is_plain = text
        .chars()
        .all(|letter| letter.is_ascii_graphic() || letter == ' ');
    (text.len() <= LONGEST_NAME && is_plain).then(|| text.to_owned())
}

/// What the sidecar means by a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// The worker said yes.
    Accept,
    /// Another attempt later, or a dead letter: a copy is confirmed first.
    CopyThenAcknowledge,
    /// Not now, and nobody's fault: a drain, or a worker that cannot be reached.
    GiveBack,
    /// None: the channel or the connection is gone with the delivery.
    LostChannel,
}

impl Intent {
    /// Every intent, for tables and tests.
    pub const ALL: [Self; 4] = [
        Self::Accept,
        Self::CopyThenAcknowledge,
        Self::GiveBack,
        Self::LostChannel,
    ];
}

/// What is said to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `basic.ack`.
    Ack,
    /// `basic.nack` with requeue. Never `basic.reject`, which counts on every version.
    NackRequeue,
    /// Nothing can be said.
    Nothing,
}

/// How an intent is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settling {
    /// What is said.
    pub method: Method,
    /// Whether it counts towards the delivery limit of a quorum queue.
    pub counts: bool,
}

/// What a consumer timeout ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutEnds {
    /// The channel: everything in flight on it comes again.
    Channel,
    /// The consumer: what else is in flight is settled as usual.
    Consumer,
}

impl Version {
    /// How an intent is carried out, and whether that counts.
    pub fn settling(self, intent: Intent) -> Settling {
        let (method, counts) = match intent {
            Intent::Accept | Intent::CopyThenAcknowledge => (Method::Ack, false),
            Intent::GiveBack => (Method::NackRequeue, self < RETURNS_ARE_FREE_SINCE),
            Intent::LostChannel => (Method::Nothing, true),
        };
        Settling { method, counts }
    }

    /// After how many deliveries that went back a quorum queue gives a message up if nobody says otherwise.
    pub fn default_delivery_limit(self) -> Option<u32> {
        (self >= DEFAULT_LIMIT_SINCE).then_some(DEFAULT_LIMIT)
    }

    /// What happens to the consumer of a quorum queue that holds a message for too long.
    pub fn consumer_timeout_ends(self) -> TimeoutEnds {
        if self < RETURNS_ARE_FREE_SINCE {
            TimeoutEnds::Channel
        } else {
            TimeoutEnds::Consumer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_brokers_write_them() {
        let cases = [
            ("3.10.8", Some((3, 10, 8))),
            ("4.3.6", Some((4, 3, 6))),
            ("4.0.0-rc.1", Some((4, 0, 0))),
            ("4.1.0+12.gabc", Some((4, 1, 0))),
            ("4.3.6~deb1", Some((4, 3, 6))),
            ("4", Some((4, 0, 0))),
            ("4.2", Some((4, 2, 0))),
            ("4.2.x", Some((4, 2, 0))),
            ("4.2.1beta", Some((4, 2, 1))),
            ("", None),
            ("v4.2", None),
            ("%%VSN%%", None),
            ("99999999999.1.1", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(major, minor, patch)| Version::new(major, minor, patch));
            assert_eq!(Version::parse(text), expected, "{text}");
        }
        assert!(Version::new(3, 13, 7) < Version::new(4, 0, 0));
        assert!(Version::new(4, 10, 0) > Version::new(4, 9, 9));
    }

    #[test]
    fn the_table_of_settling() {
        let of = |version: &str| Version::parse(version).unwrap();
        // Version, default limit, whether giving back counts, what a timeout ends.
        let rows = [
            ("3.10.8", None, true, TimeoutEnds::Channel),
            ("3.13.7", None, true, TimeoutEnds::Channel),
            ("4.0.0", Some(20), true, TimeoutEnds::Channel),
            ("4.2.9", Some(20), true, TimeoutEnds::Channel),
            ("4.3.0", Some(20), false, TimeoutEnds::Consumer),
            ("5.0.0", Some(20), false, TimeoutEnds::Consumer),
        ];
        for (version, limit, counts, ends) in rows {
            let version = of(version);
            assert_eq!(version.default_delivery_limit(), limit, "{version}");
            assert_eq!(version.consumer_timeout_ends(), ends, "{version}");
            for intent in Intent::ALL {
                let (method, counts) = match intent {
                    Intent::Accept | Intent::CopyThenAcknowledge => (Method::Ack, false),
                    Intent::GiveBack => (Method::NackRequeue, counts),
                    Intent::LostChannel => (Method::Nothing, true),
                };
                assert_eq!(
                    version.settling(intent),
                    Settling { method, counts },
                    "{version} {intent:?}"
                );
            }
        }
    }

    fn start(product: &[u8], version: &[u8]) -> Vec<u8> {
        let long = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let entry = |name: &[u8], value: &[u8]| {
            [&[u8::try_from(name.len()).unwrap()], name, b"S", &long(value)].concat()
        };
        let table = [entry(b"product", product), entry(b"version", version)].concat();
        [
            &[0, 10, 0, 10, 0, 9][..],
            &long(&table),
            &long(b"PLAIN"),
            &long(b"en_US"),
        ]
        .concat()
    }

    #[test]
    fn a_broker_is_known_by_its_first_word() {
        let server = Server::read(&start(b"RabbitMQ", b"4.3.6")).unwrap();
        assert_eq!(server.to_string(), "RabbitMQ 4.3.6");
        assert_eq!(server.rabbitmq(), Some(Version::new(4, 3, 6)));
        let other = Server::read(&start(b"LavinMQ", b"2.0.0")).unwrap();
        assert_eq!(other.rabbitmq(), None);
        for method in [
            start(b"RabbitMQ", b"unknown"),
            start(b"Rabbit\nMQ", b"4.3.6"),
            start(&[b'x'; 65], b"4.3.6"),
            start(b"\xFF", b"4.3.6"),
            start(b"RabbitMQ", b"4.3.6")[..20].to_vec(),
            vec![0, 10, 0, 41, 0],
            Vec::new(),
        ] {
            assert_eq!(Server::read(&method), None);
        }
    }
}
