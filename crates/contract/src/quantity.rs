//! Durations and sizes as Kubernetes writes them: Go's durations (`1m30s`) and resource quantities (`64Mi`).

use crate::show::quoted;
use std::time::Duration;

/// Why a duration or a size cannot be understood. Displays as one sentence with the value in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value} {why}")]
pub struct QuantityError {
    /// What was written, quoted and shortened.
    value: String,
    why: &'static str,
}

impl QuantityError {
    fn new(value: &str, why: &'static str) -> Self {
        Self {
            value: quoted(value),
            why,
        }
    }

    /// What is wrong, as the rest of a sentence that begins with the value: `has no unit`.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

/// Nanoseconds in one of each unit. Longer names first, so that `ms` is not taken for `m`.
const DURATION_UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration that can be written, in nanoseconds: Go keeps durations in a signed 64-bit integer.
const MAX_DURATION_NANOS: u128 = i64::MAX as u128;

const DURATION_NOT: &str = "is not a duration";
const DURATION_TOO_LONG: &str = "is longer than can be counted";

/// Reads a duration in Go's form: `300ms`, `1m30s`, `1.5h`. `0` needs no unit.
///
/// Fractions beyond a nanosecond are cut off, as Go does. Source: <https://pkg.go.dev/time#ParseDuration>.
///
/// # Errors
/// When a unit is missing or unknown, the duration is negative, longer than about 292 years, or no duration at all.
pub fn parse_duration(s: &str) -> Result<Duration, QuantityError> {
    let fail = |why| QuantityError::new(s, why);
    if s == "0" {
        return Ok(Duration::ZERO);
    }
    if s.is_empty() {
        return Err(fail("is empty"));
    }
    if s.starts_with('-') {
        return Err(fail("is negative"));
    }
    let mut total: u128 = 0;
    let mut rest = s;
    while !rest.is_empty() {
        let (number, after) = Number::take(rest).ok_or_else(|| fail(DURATION_NOT))?;
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        if unit.is_empty() {
            return Err(fail("has no unit"));
        }
        let (_, nanos) = DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| fail("has a unit that is none of ns, us, ms, s, m, h"))?;
        let part = number.times(*nanos).ok_or_else(|| fail(DURATION_TOO_LONG))?.0;
        total = total
            .checked_add(part)
            .filter(|t| *t <= MAX_DURATION_NANOS)
            .ok_or_else(|| fail(DURATION_TOO_LONG))?;
        rest = after;
    }
    let nanos = u64::try_from(total).map_err(|_| fail(DURATION_TOO_LONG))?;
    Ok(Duration::from_nanos(nanos))
}

/// Writes a duration so that [`parse_duration`] reads the same back: `1m30s`, `1.5s`, `300ms`, `0s`.
///
/// Unlike Go, units that are zero are left out: `1m`, not `1m0s`.
pub fn format_duration(d: Duration) -> String {
    let nanos = d.subsec_nanos();
    if d.as_secs() == 0 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => with_fraction(u64::from(nanos / 1_000), nanos % 1_000, 3, "us"),
            _ => with_fraction(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6, "ms"),
        };
    }
    let (hours, minutes, seconds) = (d.as_secs() / 3600, d.as_secs() / 60 % 60, d.as_secs() % 60);
    let mut text = String::new();
    for (count, unit) in [(hours, "h"), (minutes, "m")] {
        if count > 0 {
            text.push_str(&with_fraction(count, 0, 0, unit));
        }
    }
    if seconds > 0 || nanos > 0 {
        text.push_str(&with_fraction(seconds, nanos, 9, "s"));
    }
    text
}

/// `whole.fraction` and the unit, without trailing zeros; `digits` is how many digits the fraction stands for.
fn with_fraction(whole: u64, fraction: u32, digits: usize, unit: &str) -> String {
    if fraction == 0 {
        return format!("{whole}{unit}");
    }
    let fraction = format!("{fraction:0digits$}");
    format!("{whole}.{}{unit}", fraction.trim_end_matches('0'))
}

/// Bytes in one of each unit; in each family the largest first.
const BINARY_UNITS: &[(&str, u64)] = &[
    ("Ei", 1 << 60),
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
];
const DECIMAL_UNITS: &[(&str, u64)] = &[
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

/// Reads a size in bytes as a Kubernetes resource quantity: `64Ki`, `1.5Mi`, `500M`, `4096`.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>. Exponents (`1e3`) and
/// milli-bytes (`100m`) are left out: nobody means them for a size.
///
/// # Errors
/// When the unit is unknown, the size is negative, not a whole number of bytes, beyond 64 bits, or no size at all.
pub fn parse_bytes(s: &str) -> Result<u64, QuantityError> {
    let fail = |why| QuantityError::new(s, why);
    if s.is_empty() {
        return Err(fail("is empty"));
    }
    if s.starts_with('-') {
        return Err(fail("is negative"));
    }
    let (number, unit) = Number::take(s).ok_or_else(|| fail("is not a size"))?;
    let bytes = match unit {
        "" => 1,
        unit => BINARY_UNITS
            .iter()
            .chain(DECIMAL_UNITS)
            .find(|(name, _)| *name == unit)
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| fail("has a unit that is none of k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei"))?,
    };
    let too_large = || fail("is larger than can be counted");
    let (whole, exact) = number.times(u128::from(bytes)).ok_or_else(too_large)?;
    if !exact {
        return Err(fail("is not a whole number of bytes"));
    }
    u64::try_from(whole).map_err(|_| too_large())
}

/// Writes a size so that [`parse_bytes`] reads the same back, in the largest unit that needs no fraction: `64Ki`.
pub fn format_bytes(n: u64) -> String {
    BINARY_UNITS
        .iter()
        .chain(DECIMAL_UNITS)
        .find(|(_, bytes)| n > 0 && n.is_multiple_of(*bytes))
        .map_or_else(|| n.to_string(), |(unit, bytes)| format!("{}{unit}", n / bytes))
}

/// A non-negative decimal number, kept as its digits so that no precision is lost.
struct Number<'a> {
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Number<'a> {
    /// Takes a number off the front: `1`, `1.5`, `.5`, `1.`; `None` when there is no digit.
    fn take(s: &'a str) -> Option<(Self, &'a str)> {
        let (whole, rest) = take_digits(s);
        let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), take_digits);
        (!whole.is_empty() || !fraction.is_empty()).then_some((Self { whole, fraction }, rest))
    }

    /// The number times `unit`, rounded down, and whether that is exact; `None` when it is beyond 128 bits.
    fn times(&self, unit: u128) -> Option<(u128, bool)> {
        let whole = if self.whole.is_empty() {
            0
        } else {
            self.whole.parse::<u128>().ok()?
        };
        let digits = self.fraction.trim_end_matches('0');
        // 10^19 times the largest unit (2^60) still fits; digits beyond that are below every unit's resolution.
        let (kept, cut) = digits.split_at(digits.len().min(19));
        let scale = 10_u128.pow(u32::try_from(kept.len()).ok()?);
        let scaled = if kept.is_empty() {
            0
        } else {
            kept.parse::<u128>().ok()?.checked_mul(unit)?
        };
        let (below, exact) = (scaled / scale, scaled % scale == 0 && cut.is_empty());
        Some((whole.checked_mul(unit)?.checked_add(below)?, exact))
    }
}

fn take_digits(s: &str) -> (&str, &str) {
    s.split_at(s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len()))
}
