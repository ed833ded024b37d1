//! How a value that somebody wrote is shown in a sentence.

/// Longest part of a value, in characters, that is repeated in a sentence.
const MAX_SHOWN: usize = 80;

/// The value in quotes, on one line and of bounded length, so that a wrong value cannot flood or forge a log.
pub(crate) fn quoted(value: &str) -> String {
    let mut shown: String = value
        .chars()
        .take(MAX_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn stays_on_one_line_and_short() {
        assert_eq!(quoted("a\nb\"c"), r#""a\nb\"c""#);
        assert_eq!(quoted(&"x".repeat(10_000)).chars().count(), 80 + 3);
    }
}
