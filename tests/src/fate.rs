//! Which answer a message gets, as a function of the seed, its id and the attempt: the worker plays it, the oracle
//! knows it.

use std::time::Duration;

/// How a message is to end when nothing but the worker's answers decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Some attempt is accepted.
    Accepted,
    /// It is dead-lettered.
    DeadLettered,
}

/// What the worker does with one POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// Answers with this status and, if any, these headers and body.
    Answer(u16, Option<(&'static str, &'static str)>, &'static str),
    /// Never answers.
    Hang,
    /// Announces a longer body than it sends.
    CutShort,
    /// Closes the connection without a byte.
    Drop,
    /// Answers 200 after a while.
    Slow(Duration),
    /// The worker's process dies with everything that it has in hand.
    Crash,
}

const VERDICT_JSON: (&str, &str) = ("content-type", "application/vnd.kubedaemon.verdict+json");

/// A row of the contract, drawn for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// 2xx, at once.
    Yes(u16),
    /// 2xx, later.
    YesSlowly,
    /// Explicit yes by header on a 500.
    YesByHeader,
    /// Explicit yes by JSON.
    YesByJson,
    /// This, once, and then 200.
    Once(Play),
    /// Retry-After on every other POST, and then 200.
    Throttled(u16),
    /// A 4xx.
    No(u16),
    /// A redirect.
    Redirect,
    /// Explicit no by header on a 200.
    NoByHeader,
    /// A 5xx at every attempt.
    Poison,
    /// The end of the worker's process at every attempt.
    Killer,
}

/// Which rows there are, and how large messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Every row of the contract; from nothing to a mebibyte.
    Everything,
    /// Yes, no and retries that end soon; small. For runs with hundreds of restarts.
    Quick,
    /// A few that can never be done among many that can; small.
    Poisonous,
    /// The same, and a few of them end the worker.
    Deadly,
}

impl Mix {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Everything, Self::Quick, Self::Poisonous, Self::Deadly];

    /// The word by which a worker is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Quick => "quick",
            Self::Poisonous => "poisonous",
            Self::Deadly => "deadly",
        }
    }

    /// Draws the row of a message.
    pub fn row(self, seed: u64, id: &str) -> Row {
        match self {
            Self::Everything => row(seed, id),
            Self::Quick => quick_row(seed, id),
            Self::Poisonous => poisonous_row(seed, id),
            Self::Deadly => match hash(seed, id) % 1000 {
                30..32 => Row::Killer,
                _ => poisonous_row(seed, id),
            },
        }
    }

    /// The length of a message's body.
    pub fn body_bytes(self, seed: u64, id: &str) -> usize {
        match self {
            Self::Everything => body_bytes(seed, id),
            Self::Quick | Self::Poisonous | Self::Deadly => body_bytes(seed, id) % 300,
        }
    }
}

fn quick_row(seed: u64, id: &str) -> Row {
    match hash(seed, id) % 1000 {
        0..500 => Row::Yes(200),
        500..700 => Row::YesSlowly,
        700..800 => Row::Once(Play::Answer(500, None, "not now")),
        800..950 => Row::No(422),
        _ => Row::Poison,
    }
}

/// 2 % fail every time, 1 % are refused.
fn poisonous_row(seed: u64, id: &str) -> Row {
    match hash(seed, id) % 1000 {
        0..20 => Row::Poison,
        20..30 => Row::No(422),
        30..300 => Row::YesSlowly,
        _ => Row::Yes(200),
    }
}

/// Draws the row of a message among all: each has its share, most are ordinary.
pub fn row(seed: u64, id: &str) -> Row {
    match hash(seed, id) % 1000 {
        0..300 => Row::Yes(200),
        300..500 => Row::Yes(204),
        500..600 => Row::YesSlowly,
        600..640 => Row::YesByHeader,
        640..680 => Row::YesByJson,
        680..760 => Row::Once(Play::Answer(500, None, "not now")),
        760..780 => Row::Once(Play::Answer(408, None, "")),
        780..800 => Row::Once(Play::Answer(425, None, "")),
        800..820 => Row::Once(Play::Answer(429, None, "")),
        820..840 => Row::Once(Play::Answer(200, Some(("x-message-verdict", "retry")), "")),
        840..842 => Row::Once(Play::Hang),
        842..860 => Row::Once(Play::CutShort),
        860..880 => Row::Once(Play::Drop),
        880..900 => Row::Throttled(429),
        900..920 => Row::Throttled(503),
        920..940 => Row::No(400),
        940..960 => Row::No(422),
        960..970 => Row::Redirect,
        970..990 => Row::NoByHeader,
        _ => Row::Poison,
    }
}

impl Row {
    /// How a message with this row ends.
    pub fn fate(self) -> Fate {
        match self {
            Self::Yes(_)
            | Self::YesSlowly
            | Self::YesByHeader
            | Self::YesByJson
            | Self::Once(_)
            | Self::Throttled(_) => Fate::Accepted,
            Self::No(_) | Self::Redirect | Self::NoByHeader | Self::Poison | Self::Killer => {
                Fate::DeadLettered
            }
        }
    }

    /// What the worker does at this attempt (1-based); `calls` counts all its POSTs.
    pub fn play(self, attempt: u32, calls: u64) -> Play {
        let yes = Play::Answer(200, None, "");
        match self {
            Self::Yes(status) => Play::Answer(status, None, ""),
            Self::YesSlowly => Play::Slow(Duration::from_millis(5)),
            Self::YesByHeader => Play::Answer(500, Some(("x-message-verdict", "ack")), ""),
            Self::YesByJson => Play::Answer(404, Some(VERDICT_JSON), r#"{"status":"ACK"}"#),
            Self::Once(play) if attempt == 1 => play,
            Self::Throttled(status) if calls.is_multiple_of(2) => {
                Play::Answer(status, Some(("retry-after", "0")), "later")
            }
            Self::Once(_) | Self::Throttled(_) => yes,
            Self::No(status) => Play::Answer(status, None, "no"),
            Self::Redirect => Play::Answer(307, Some(("location", "/elsewhere")), ""),
            Self::NoByHeader => Play::Answer(200, Some(("x-message-verdict", "reject")), ""),
            Self::Poison => Play::Answer(500, None, "poison"),
            Self::Killer => Play::Crash,
        }
    }
}

/// The body's length: mixed, from nothing to a mebibyte.
pub fn body_bytes(seed: u64, id: &str) -> usize {
    let draw = usize::try_from(hash(!seed, id) >> 20).unwrap_or(0);
    match draw % 1000 {
        0..50 => 0,
        50..700 => draw % 500,
        700..980 => 500 + draw % 7_500,
        980..999 => 8_000 + draw % 56_000,
        _ => 1024 * 1024,
    }
}

/// FNV-1a with a seed and a finisher: the same on every machine, good enough to spread ids.
pub fn hash(seed: u64, text: &str) -> u64 {
    hash_bytes(seed, text.as_bytes())
}

/// The same of bytes; also the checksum of bodies.
pub fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}
