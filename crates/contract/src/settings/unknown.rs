//! Names that look like settings and are none.

use super::{Naming, SETTINGS};
use std::fmt;

/// A name with our prefix that nothing knows. Displays as one sentence with the nearest known name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The name as the user wrote it.
    pub name: String,
    /// The nearest known name, when one is near.
    pub suggestion: Option<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = crate::show::quoted(&self.name);
        match &self.suggestion {
            Some(suggestion) => write!(
                f,
                "{name} is not known and has no effect: did you mean {suggestion}?"
            ),
            None => write!(f, "{name} is not known and has no effect"),
        }
    }
}

/// The known name that is nearest to `unknown`, when one is near enough to be meant.
pub fn suggest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Jaro-Winkler favours a common beginning and forgives much in long names; below this similarity what it
    // proposes is no longer recognisable. It fails short names, where one slip ("lgo") changes most of the name.
    const NEAR: f64 = 0.8;
    let unknown = unknown.to_lowercase();
    let nearness = |name: &str| {
        let one_slip = strsim::osa_distance(&unknown, name) <= 1;
        let similarity = strsim::jaro_winkler(&unknown, name);
        (one_slip || similarity >= NEAR).then(|| similarity + f64::from(u8::from(one_slip)))
    };
    known
        .into_iter()
        .filter_map(|name| Some((nearness(&name.to_lowercase())?, name)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Those of `names` that begin with our prefix and are neither a setting nor one of `also`, a component's own names.
///
/// Variables that Kubernetes sets for Services whose name begins with `kubedaemon` are not reported.
pub fn unknown<'a>(naming: Naming, names: impl IntoIterator<Item = &'a str>, also: &[&str]) -> Vec<Unknown> {
    let known: Vec<String> = SETTINGS
        .iter()
        .map(|setting| naming.write(setting.name))
        .collect();
    let known: Vec<&str> = known
        .iter()
        .map(String::as_str)
        .chain(also.iter().copied())
        .collect();
    names
        .into_iter()
        .filter(|name| naming.has_prefix(name) && !known.contains(name))
        .filter(|name| naming != Naming::Env || !is_service_link(name))
        .map(|name| Unknown {
            name: name.to_owned(),
            suggestion: nearest(naming, name, &known),
        })
        .collect()
}

/// Compares without the prefix, which would make all names look alike.
fn nearest(naming: Naming, name: &str, known: &[&str]) -> Option<String> {
    let prefix = naming.prefix();
    let stems = known.iter().filter_map(|known| known.strip_prefix(prefix));
    suggest(name.strip_prefix(prefix)?, stems).map(|stem| format!("{prefix}{stem}"))
}

/// Whether Kubernetes sets such a variable for a Service:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_service_link(variable: &str) -> bool {
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.ends_with("_PORT")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            variable
                .split_once("_PORT_")
                .is_some_and(|(_, port)| port.contains(protocol))
        })
}
