//! Header fields as they were received, looked up without being copied: of an answer few are of interest.

use http::HeaderMap;

/// A field.
pub use httparse::Header as Field;

/// The fields of an answer, in their order.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a [Field<'a>]);

impl<'a> Fields<'a> {
    /// These.
    pub fn new(fields: &'a [Field<'a>]) -> Self {
        Self(fields)
    }

    /// Those of a request that was received by a server.
    pub fn of(headers: &HeaderMap) -> Vec<Field<'_>> {
        let fields = headers.iter();
        fields
            .map(|(name, value)| Field {
                name: name.as_str(),
                value: value.as_bytes(),
            })
            .collect()
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = &'a Field<'a>> {
        self.0.iter()
    }

    /// The value of the first of this name, in whatever case (RFC 9110 §5.1).
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        let is_it = |field: &&Field<'_>| field.name.eq_ignore_ascii_case(name);
        self.0.iter().find(is_it).map(|field| field.value)
    }

    /// The same as text; `None` as well when it is not visible ASCII with blanks.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(text)
    }
}

/// A value as text, when it is visible ASCII with blanks.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    std::str::from_utf8(value).ok().filter(|_| is_text)
}
