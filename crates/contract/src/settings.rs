//! Every setting, from one table: its names, what is accepted, its default, and how it is read.

mod kind;
mod problem;
mod read;
mod source;
mod table;
mod unknown;

pub use kind::Kind;
pub use problem::{Problem, Problems};
pub use read::{RetryBackoff, Settings, default_prefetch, parse};
pub use source::{Annotations, Environment, Flags, Layered, Source};
pub use table::*;
pub use unknown::{Unknown, suggest, unknown};

use std::fmt;

/// One row of [`SETTINGS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The stem that all of its names share, as in `max-attempts`.
    pub name: &'static str,
    /// What kind of value it takes, and in which range.
    pub kind: Kind,
    /// The default as it would be written; `None` when there is no fixed one, see [`default_note`](Self::default_note).
    pub default: Option<&'static str>,
    /// What applies when there is no fixed default, in words.
    pub default_note: &'static str,
    /// What it does, in one sentence.
    pub sentence: &'static str,
    /// When to change it.
    pub when: &'static str,
    /// Which components act on it.
    pub components: &'static [Component],
}

impl Setting {
    /// Its annotation: `kubedaemon.io/max-attempts`.
    pub fn annotation(&self) -> String {
        Naming::Annotation.write(self.name)
    }

    /// Its environment variable: `KUBEDAEMON_MAX_ATTEMPTS`.
    pub fn env(&self) -> String {
        Naming::Env.write(self.name)
    }

    /// Its flag: `--max-attempts`. What a command-line parser calls the long name is [`name`](Self::name).
    pub fn flag(&self) -> String {
        Naming::Flag.write(self.name)
    }

    /// What stands for the value in a usage line: `DURATION`.
    pub fn value_name(&self) -> &'static str {
        self.kind.value_name()
    }

    /// The unit that a value is counted in, in words; empty when it has none.
    pub fn unit(&self) -> &'static str {
        self.kind.unit()
    }

    /// The accepted form, in words: `a whole number from 1 to 1000`.
    pub fn accepted(&self) -> String {
        self.kind.accepted()
    }

    /// The default, in words: `5`, or what applies instead.
    pub fn default_text(&self) -> &'static str {
        self.default.unwrap_or(self.default_note)
    }

    /// The help text of its flag: the sentence, what is accepted, the default, the variable.
    pub fn help(&self) -> String {
        format!(
            "{}: {} [default: {}] [env: {}]",
            self.sentence.trim_end_matches('.'),
            self.accepted(),
            self.default_text(),
            self.env()
        )
    }
}

/// The rows that a component acts on, in the table's order; what its command line offers.
pub fn used_by(component: Component) -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(move |setting| setting.components.contains(&component))
}

/// The row of this name, as in `max-attempts`.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Who acts on a setting. Local mode runs all of them and takes every setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Takes deliveries and posts them to the worker.
    Sidecar,
    /// Samples queues and decides replica counts.
    Autoscaler,
    /// Holds and forwards HTTP calls.
    Activator,
}

impl Component {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Sidecar, Self::Autoscaler, Self::Activator];

    /// Its name in documents and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Autoscaler => "autoscaler",
            Self::Activator => "activator",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The three ways in which a setting's name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `kubedaemon.io/max-attempts`
    Annotation,
    /// `KUBEDAEMON_MAX_ATTEMPTS`
    Env,
    /// `--max-attempts`
    Flag,
}

impl Naming {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Annotation, Self::Env, Self::Flag];

    /// What every such name begins with: `kubedaemon.io/`, `KUBEDAEMON_`, `--`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Annotation => "kubedaemon.io/",
            Self::Env => "KUBEDAEMON_",
            Self::Flag => "--",
        }
    }

    /// Whether a name is meant for us: it begins with the [`prefix`](Self::prefix).
    pub fn has_prefix(self, name: &str) -> bool {
        name.starts_with(self.prefix())
    }

    /// The whole name for a stem: `max-attempts` → `KUBEDAEMON_MAX_ATTEMPTS`.
    pub fn write(self, stem: &str) -> String {
        match self {
            Self::Annotation | Self::Flag => format!("{}{stem}", self.prefix()),
            Self::Env => format!("{}{}", self.prefix(), stem.replace('-', "_").to_ascii_uppercase()),
        }
    }
}
