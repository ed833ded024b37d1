//! What is wrong with a value, as a sentence.

use crate::show::quoted;
use std::fmt;

/// One thing that is wrong. Displays as one sentence: the name as the user wrote it, the value without any
/// password, what is wrong with it, and the accepted form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name as the user wrote it: an annotation, a variable or a flag.
    pub name: String,
    sentence: String,
}

impl Problem {
    /// `<name> is "<value>", which <why>: write <accepted>`. The value is quoted, shortened and shown as given.
    pub fn wrong(name: impl Into<String>, value: &str, why: &str, accepted: &str) -> Self {
        let name = name.into();
        let sentence = format!("{name} is {}, which {why}: write {accepted}", quoted(value));
        Self { name, sentence }
    }

    /// `<name> is missing: write <accepted>`.
    pub fn missing(name: impl Into<String>, accepted: &str) -> Self {
        let name = name.into();
        let sentence = format!("{name} is missing: write {accepted}");
        Self { name, sentence }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong, at least one. Displays one sentence a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
