//! The bytes of the head of a request (RFC 9112 §3 and §5).

use crate::domain::journal::rfc3339;
use http::Uri;
use std::io::Write as _;
use std::time::Duration;

/// A head that is being written, field after field. The end of each is that of a line: nothing that is written in between
/// can be one.
pub(super) struct Head<'a>(&'a mut Vec<u8>);

impl<'a> Head<'a> {
    /// One that has begun.
    pub(super) fn of(bytes: &'a mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The line of a `POST`, and its host.
    pub(super) fn begin(bytes: &'a mut Vec<u8>, path: &Uri, host: &str) -> Self {
        let path = path.path_and_query().map_or("/", |path| path.as_str());
        for part in ["POST ", path, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        let mut head = Self(bytes);
        head.text("host", host);
        head
    }

    /// Its bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes back what was written since it had this length.
    pub(super) fn cut(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// A field with any text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.value(text);
        self.line();
    }

    /// A field whose name somebody else chose, after a prefix. What is no token character (RFC 9110 §5.6.2) becomes a dash.
    pub(super) fn named(&mut self, prefix: &str, name: &str, text: &str) {
        self.0.extend_from_slice(prefix.as_bytes());
        self.0.extend(name.chars().map(|c| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase() as u8,
            '-' | '_' | '.' | '!' | '#' | '$' | '&' | '\'' | '*' | '+' | '^' | '`' | '|' | '~' => c as u8,
            _ => b'-',
        }));
        self.0.extend_from_slice(b": ");
        self.value(text);
        self.line();
    }

    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.0
            .extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.line();
    }

    /// A field with a text that is visible ASCII, followed by a number.
    pub(super) fn text_and_number(&mut self, name: &str, text: &str, number: u64) {
        self.name(name);
        self.0.extend_from_slice(text.as_bytes());
        self.0
            .extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.line();
    }

    pub(super) fn stamp(&mut self, name: &str, since_epoch: Duration) {
        self.name(name);
        let _infallible = write!(self.0, "{}", rfc3339(since_epoch));
        self.line();
    }

    pub(super) fn end(self) {
        self.0.extend_from_slice(b"\r\n");
    }

    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
    }

    fn line(&mut self) {
        self.0.extend_from_slice(b"\r\n");
    }

    /// Visible ASCII with inner blanks passes unchanged. Anything else is percent-encoded (the percent sign too), so that
    /// line feeds cannot end a field and no byte is lost.
    fn value(&mut self, text: &str) {
        // All bytes, and not up to the first that is another: the compiler then looks at many at once.
        let is_visible = text
            .bytes()
            .fold(true, |all, byte| all & matches!(byte, b' '..=b'~'));
        if is_visible && !text.starts_with(' ') && !text.ends_with(' ') {
            self.0.extend_from_slice(text.as_bytes());
            return;
        }
        for byte in text.bytes() {
            if matches!(byte, b'!'..=b'~') && byte != b'%' {
                self.0.push(byte);
            } else {
                let _infallible = write!(self.0, "%{byte:02X}");
            }
        }
    }
}
