//! Durations and sizes: what is read, what is refused, and that what is written is read back.

use contract::quantity::{format_bytes, format_duration, parse_bytes, parse_duration};
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn durations_are_read_as_go_reads_them() {
    let rows: &[(&str, Duration)] = &[
        ("0", Duration::ZERO),
        ("0s", Duration::ZERO),
        ("0h0m", Duration::ZERO),
        ("300ms", Duration::from_millis(300)),
        ("30s", Duration::from_secs(30)),
        ("1m30s", Duration::from_secs(90)),
        ("1.5h", Duration::from_mins(90)),
        (".5s", Duration::from_millis(500)),
        ("1.s", Duration::from_secs(1)),
        ("90m", Duration::from_mins(90)),
        ("1h1h", Duration::from_hours(2)),
        ("10us", Duration::from_micros(10)),
        ("10\u{b5}s", Duration::from_micros(10)),
        ("10\u{3bc}s", Duration::from_micros(10)),
        ("7ns", Duration::from_nanos(7)),
        ("0.3333333333333333333333s", Duration::from_nanos(333_333_333)),
        (
            "9223372036854775807ns",
            Duration::from_nanos(9_223_372_036_854_775_807),
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(parse_duration(text).as_ref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_wrong_duration_is_told_in_one_sentence() {
    let rows: &[(&str, &str)] = &[
        ("60", r#""60" has no unit"#),
        ("1m30", r#""1m30" has no unit"#),
        ("", r#""" is empty"#),
        ("-5s", r#""-5s" is negative"#),
        ("5d", r#""5d" has a unit that is none of ns, us, ms, s, m, h"#),
        ("5 s", r#""5 s" has a unit that is none of ns, us, ms, s, m, h"#),
        ("5S", r#""5S" has a unit that is none of ns, us, ms, s, m, h"#),
        ("soon", r#""soon" is not a duration"#),
        (".s", r#"".s" is not a duration"#),
        (
            "9223372036854775808ns",
            r#""9223372036854775808ns" is longer than can be counted"#,
        ),
        (
            "99999999999999999999999999999999999999999h",
            r" is longer than can be counted",
        ),
    ];
    for (text, expected) in rows {
        let error = parse_duration(text).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{text}: {error}");
    }
}

#[test]
fn durations_are_written_short() {
    let rows: &[(Duration, &str)] = &[
        (Duration::ZERO, "0s"),
        (Duration::from_nanos(7), "7ns"),
        (Duration::from_nanos(1_500), "1.5us"),
        (Duration::from_millis(300), "300ms"),
        (Duration::from_micros(1_050), "1.05ms"),
        (Duration::from_mins(1), "1m"),
        (Duration::from_secs(90), "1m30s"),
        (Duration::from_millis(1_500), "1.5s"),
        (Duration::from_secs(3_605), "1h5s"),
        (Duration::from_hours(24), "24h"),
    ];
    for (duration, expected) in rows {
        assert_eq!(format_duration(*duration), *expected);
    }
}

#[test]
fn sizes_are_read_as_kubernetes_reads_them() {
    let rows: &[(&str, u64)] = &[
        ("0", 0),
        ("4096", 4096),
        ("64Ki", 65_536),
        ("1Mi", 1_048_576),
        ("1.5Mi", 1_572_864),
        ("500M", 500_000_000),
        ("1k", 1_000),
        ("1.0", 1),
        ("15Ei", 15 << 60),
        ("18446744073709551615", u64::MAX),
    ];
    for (text, expected) in rows {
        assert_eq!(parse_bytes(text).as_ref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_wrong_size_is_told_in_one_sentence() {
    let rows: &[(&str, &str)] = &[
        ("", "is empty"),
        ("-1", "is negative"),
        ("lots", "is not a size"),
        (
            "64KB",
            "has a unit that is none of k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei",
        ),
        (
            "64K",
            "has a unit that is none of k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei",
        ),
        (
            "100m",
            "has a unit that is none of k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei",
        ),
        ("0.5", "is not a whole number of bytes"),
        ("0.1Ki", "is not a whole number of bytes"),
        ("16Ei", "is larger than can be counted"),
        ("18446744073709551616", "is larger than can be counted"),
    ];
    for (text, why) in rows {
        assert_eq!(
            parse_bytes(text).unwrap_err().to_string(),
            format!("\"{text}\" {why}")
        );
    }
}

#[test]
fn sizes_are_written_in_the_largest_whole_unit() {
    for (bytes, expected) in [
        (0, "0"),
        (1, "1"),
        (65_536, "64Ki"),
        (1 << 20, "1Mi"),
        (500_000_000, "500M"),
        (1_025, "1025"),
    ] {
        assert_eq!(format_bytes(bytes), expected);
    }
}

proptest! {
    #[test]
    fn a_duration_that_is_written_is_read_back(nanos in 0..=i64::MAX as u64) {
        let duration = Duration::from_nanos(nanos);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn a_short_duration_that_is_written_is_read_back(nanos in 0..10_000_000_000_u64) {
        let duration = Duration::from_nanos(nanos);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn any_duration_can_be_written(seconds: u64, nanos in 0..1_000_000_000_u32) {
        prop_assert!(!format_duration(Duration::new(seconds, nanos)).is_empty());
    }

    #[test]
    fn a_size_that_is_written_is_read_back(bytes: u64) {
        prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
    }

    #[test]
    fn a_round_size_that_is_written_is_read_back(count in 0..1024_u64, power in 0..6_u32, base in prop::sample::select(vec![1000_u64, 1024])) {
        let bytes = count * base.pow(power);
        prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
    }

    #[test]
    fn anything_may_be_given_to_the_parsers(text in ".{0,40}", like in "[-+]?[0-9.]{0,25}[a-zA-Zµ]{0,3}[0-9.]{0,25}[a-zµ]{0,3}") {
        for text in [text, like] {
            parse_duration(&text).ok();
            parse_bytes(&text).ok();
        }
    }
}
