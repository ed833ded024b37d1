//! One field of an object together with the path to it, so that whatever is wrong can say where.

use serde_json::Value;
use std::ops::RangeInclusive;

/// A field that may be absent. `null` counts as absent, as it does for Kubernetes.
#[derive(Clone)]
pub(super) struct Field<'a> {
    value: Option<&'a Value>,
    path: String,
}

/// What is wrong, as a sentence that begins with the path.
pub(super) type Wrong = String;

impl<'a> Field<'a> {
    pub(super) fn root(object: &'a Value) -> Self {
        Self {
            value: Some(object),
            path: String::new(),
        }
    }

    fn new(value: Option<&'a Value>, path: String) -> Self {
        Self {
            value: value.filter(|value| !value.is_null()),
            path,
        }
    }

    /// A member of this object: `get("spec")`.
    pub(super) fn get(&self, key: &str) -> Self {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        Self::new(self.value.and_then(|value| value.get(key)), path)
    }

    /// A member of a member: `at(&["spec", "template"])`.
    pub(super) fn at(&self, keys: &[&str]) -> Self {
        keys.iter().fold(self.clone(), |field, key| field.get(key))
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// The elements of this list; none when it is absent.
    pub(super) fn list(&self) -> Result<Vec<Self>, Wrong> {
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items
                .iter()
                .enumerate()
                .map(|(i, item)| Self::new(Some(item), format!("{}[{i}]", self.path)))
                .collect()),
            Some(_) => Err(self.wrong("is not a list", "a list")),
        }
    }

    /// The members of this object by name; none when it is absent.
    pub(super) fn members(&self) -> Result<Vec<(&'a str, Self)>, Wrong> {
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Object(members)) => Ok(members
                .iter()
                .map(|(key, value)| {
                    (
                        key.as_str(),
                        Self::new(Some(value), format!("{}[{key}]", self.path)),
                    )
                })
                .collect()),
            Some(_) => Err(self.wrong("is not an object", "names with values")),
        }
    }

    /// A string; `None` when it is absent.
    pub(super) fn string(&self) -> Result<Option<String>, Wrong> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            // Kubernetes refuses these too. What was written is not known: "off" and 0x10 have become false and 16.
            Some(Value::Number(_) | Value::Bool(_)) => Err(self.wrong("is not a string", "it in quotes")),
            Some(_) => Err(self.wrong("is not a string", "a string")),
        }
    }

    /// The strings of this list; none when it is absent.
    pub(super) fn strings(&self) -> Result<Vec<String>, Wrong> {
        self.list()?
            .into_iter()
            .map(|item| item.string().map(Option::unwrap_or_default))
            .collect()
    }

    /// A whole number in the range; `None` when it is absent.
    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Result<Option<u32>, Wrong> {
        let Some(value) = self.value else { return Ok(None) };
        match value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| range.contains(number))
        {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(
                "is not accepted",
                &format!("a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// `<path> is missing: write <accepted>`.
    pub(super) fn missing(&self, accepted: &str) -> Wrong {
        format!("{} is missing: write {accepted}", self.path)
    }

    fn wrong(&self, why: &str, accepted: &str) -> Wrong {
        let shown = match self.value {
            Some(value @ (Value::Number(_) | Value::Bool(_))) => format!("{} is {value}, which", self.path),
            Some(Value::String(text)) => {
                let short: String = text.chars().take(80).collect();
                format!("{} is {short:?}, which", self.path)
            }
            // An object or a list may be long, and may hold what should not be repeated.
            _ => self.path.clone(),
        };
        format!("{shown} {why}: write {accepted}")
    }
}
