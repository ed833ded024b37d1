//! JSON Patch (RFC 6902), as far as we write it: `add`, `replace` and `remove`, each of one place.

use serde_json::{Value, json};

/// One step of a patch.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Sets a member that is absent, or appends to a list when the path ends in `-`.
    Add {
        /// A JSON pointer (RFC 6901).
        path: String,
        /// What is set.
        value: Value,
    },
    /// Sets a member that exists.
    Replace {
        /// A JSON pointer (RFC 6901).
        path: String,
        /// What is set.
        value: Value,
    },
    /// Removes a member that exists.
    Remove {
        /// A JSON pointer (RFC 6901).
        path: String,
    },
}

impl Operation {
    /// Sets a member whether it is there or not.
    pub(super) fn set(object: &Value, path: String, value: Value) -> Self {
        match object.pointer(&path) {
            Some(_) => Self::Replace { path, value },
            None => Self::Add { path, value },
        }
    }

    /// As RFC 6902 writes it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Add { path, value } => json!({"op": "add", "path": path, "value": value}),
            Self::Replace { path, value } => json!({"op": "replace", "path": path, "value": value}),
            Self::Remove { path } => json!({"op": "remove", "path": path}),
        }
    }
}

/// The whole patch as a JSON document.
pub fn document(operations: &[Operation]) -> Value {
    operations.iter().map(Operation::to_json).collect()
}

/// A JSON pointer to a member of the object at `parent`; the name may hold `/` and `~` (RFC 6901, section 3).
pub(super) fn pointer(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(pointer("/a", "kubedaemon.io/queue"), "/a/kubedaemon.io~1queue");
        assert_eq!(pointer("", "~/"), "/~0~1");
    }

    #[test]
    fn set_replaces_what_is_there() {
        let object = json!({"a": 1});
        let operations = [
            Operation::set(&object, "/a".to_owned(), json!(2)),
            Operation::set(&object, "/b".to_owned(), json!(3)),
        ];
        assert_eq!(
            document(&operations),
            json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "add", "path": "/b", "value": 3}])
        );
    }
}
