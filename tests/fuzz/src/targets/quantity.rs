//! Durations and sizes.

use crate::Target;
use crate::input::text;
use contract::quantity::{format_bytes, format_duration, parse_bytes, parse_duration};

pub(crate) const TARGET: Target = Target {
    name: "quantity",
    what: "durations and sizes: what is read is written so that it is read the same",
    run,
};

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    match parse_duration(text) {
        Ok(duration) => {
            let written = format_duration(duration);
            assert_eq!(parse_duration(&written).as_ref(), Ok(&duration), "{written}");
        }
        Err(error) => check_error(&error.to_string()),
    }
    match parse_bytes(text) {
        Ok(bytes) => {
            let written = format_bytes(bytes);
            assert_eq!(parse_bytes(&written).as_ref(), Ok(&bytes), "{written}");
        }
        Err(error) => check_error(&error.to_string()),
    }
}

fn check_error(sentence: &str) {
    assert!(sentence.starts_with('"'), "{sentence}");
    assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
}
