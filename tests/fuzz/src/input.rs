//! Bytes taken apart into values, so that every input means something.

/// What is left of an input. Whatever is asked for there is an answer, of zeros when nothing is left.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// The next `count` bytes, or as many as there are.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next bytes as they are on a wire, in network byte order.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn long(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn long_long(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A length in one byte, and as many bytes.
    pub(crate) fn short_bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        self.bytes(count)
    }

    /// A length in four bytes, and as many bytes.
    pub(crate) fn long_bytes(&mut self) -> &'a [u8] {
        let count = usize::try_from(self.long()).unwrap_or(usize::MAX);
        self.bytes(count)
    }
}

/// The input as text; `None` when it is none.
pub(crate) fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// Lines of `name=value`; a line without `=` is a name with an empty value.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}
