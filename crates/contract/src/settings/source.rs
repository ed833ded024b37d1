//! Where values come from: annotations, environment variables, flags, or several of them one above the other.

use super::{Naming, Setting};
use std::collections::BTreeMap;

/// Where values come from.
pub trait Source {
    /// The value as it was written; `None` when it was not.
    fn get(&self, setting: &Setting) -> Option<String>;

    /// The setting's name as it is written here, for sentences about it.
    fn name(&self, setting: &Setting) -> String;
}

/// Annotations of a workload, by their full names.
#[derive(Debug, Clone, Default)]
pub struct Annotations(BTreeMap<String, String>);

impl Annotations {
    /// Takes all annotations; those of others are left alone.
    pub fn new(annotations: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(annotations.into_iter().collect())
    }
}

impl Source for Annotations {
    fn get(&self, setting: &Setting) -> Option<String> {
        self.0.get(&setting.annotation()).cloned()
    }

    fn name(&self, setting: &Setting) -> String {
        setting.annotation()
    }
}

/// Environment variables, given by the caller. One that is empty counts as not set, because that is how shells and
/// charts leave a variable out.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes all variables; those of others are left alone.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl Source for Environment {
    fn get(&self, setting: &Setting) -> Option<String> {
        let value = self.0.get(&setting.env()).filter(|value| !value.is_empty())?;
        // For a Service named "kubedaemon" Kubernetes itself sets KUBEDAEMON_PORT=tcp://10.0.0.1:80 in every pod of
        // the namespace (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
        let service_link = setting.name == super::PORT.name && value.contains("://");
        (!service_link).then(|| value.clone())
    }

    fn name(&self, setting: &Setting) -> String {
        setting.env()
    }
}

/// Flags of a command line, by the settings' names without the dashes.
#[derive(Debug, Clone, Default)]
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Takes the values of the flags that were given: `("max-attempts", "3")`.
    pub fn new(flags: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(flags.into_iter().collect())
    }
}

impl Source for Flags {
    fn get(&self, setting: &Setting) -> Option<String> {
        self.0.get(setting.name).cloned()
    }

    fn name(&self, setting: &Setting) -> String {
        setting.flag()
    }
}

/// Several sources: the first that has a value wins.
#[derive(Clone, Copy)]
pub struct Layered<'a>(pub &'a [&'a dyn Source]);

impl Layered<'_> {
    fn deciding(&self, setting: &Setting) -> Option<&dyn Source> {
        self.0
            .iter()
            .copied()
            .find(|source| source.get(setting).is_some())
    }
}

impl Source for Layered<'_> {
    fn get(&self, setting: &Setting) -> Option<String> {
        self.0.iter().find_map(|source| source.get(setting))
    }

    /// The name in the source that has the value; when none has, in the first.
    fn name(&self, setting: &Setting) -> String {
        match self.deciding(setting).or(self.0.first().copied()) {
            Some(source) => source.name(setting),
            None => Naming::Flag.write(setting.name),
        }
    }
}

impl std::fmt::Debug for Layered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Layered").field(&self.0.len()).finish()
    }
}
