//! Cuts what a worker process writes into lines that can be shown one by one, whatever it writes.

/// The longest line that is shown whole, in bytes. A longer one is cut into several, so that a worker that writes a
/// gigabyte without a line feed costs no more than this.
pub(crate) const LINE_LIMIT: usize = 8 * 1024;

/// Collects bytes and gives them back as lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and returns the lines that they complete, without their line feed. Bytes that are not
    /// UTF-8 become replacement characters.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.extend(&chunk[..end], &mut lines);
            lines.push(show(&std::mem::take(&mut self.rest)));
            chunk = &chunk[end + 1..];
        }
        self.extend(chunk, &mut lines);
        lines
    }

    /// The last line, when the stream ended without a line feed.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| show(&std::mem::take(&mut self.rest)))
    }

    fn extend(&mut self, mut bytes: &[u8], lines: &mut Vec<String>) {
        while self.rest.len() + bytes.len() > LINE_LIMIT {
            let (now, later) = bytes.split_at(LINE_LIMIT - self.rest.len());
            self.rest.extend_from_slice(now);
            let cut = character_boundary(&self.rest);
            let tail = self.rest.split_off(cut);
            lines.push(show(&std::mem::replace(&mut self.rest, tail)));
            bytes = later;
        }
        self.rest.extend_from_slice(bytes);
    }
}

/// Where to cut `bytes` so that no UTF-8 character is torn: at most three bytes before the end.
fn character_boundary(bytes: &[u8]) -> usize {
    let is_start = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    let tail = bytes.len().saturating_sub(4);
    match bytes[tail..].iter().rposition(is_start) {
        Some(start) if bytes[tail + start] >= 0b1100_0000 && tail + start > 0 => tail + start,
        _ => bytes.len(),
    }
}

/// A progress bar redraws its line with carriage returns: what it drew last is what is shown.
fn show(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    text.rsplit('\r').next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_bytes_arrive() {
        let text = "first\nsecond with ünïcode\r\n\nlast without feed";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen: Vec<String> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| lines.push(chunk))
                .collect();
            seen.extend(lines.finish());
            assert_eq!(
                seen,
                ["first", "second with ünïcode", "", "last without feed"],
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn a_line_without_end_is_cut_between_characters() {
        let mut lines = Lines::default();
        let text = "€".repeat(LINE_LIMIT);
        let mut seen = lines.push(text.as_bytes());
        seen.extend(lines.finish());
        assert!(seen.len() > 1);
        assert!(
            seen.iter()
                .all(|line| line.len() <= LINE_LIMIT && line.chars().all(|c| c == '€'))
        );
        assert_eq!(seen.concat(), text);
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\xff\xfeb\n"), ["a\u{fffd}\u{fffd}b"]);
        let endless = vec![0b1000_0000; 3 * LINE_LIMIT];
        assert!(lines.push(&endless).len() >= 2);
    }

    #[test]
    fn a_redrawn_line_shows_its_last_state() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b" 10%\r 50%\r100%\r\n"), ["100%"]);
    }
}
