//! Takes workloads out of manifests: YAML or JSON, one document or several, bare or in a `List`.
//!
//! Only what is needed is looked at; every other field, known or not, is left to Kubernetes.

mod field;
mod workload;

pub use workload::{Container, EnvValue, EnvVar, Kind, PodShape, Workload};

use field::Field;
use serde_json::Value;
use std::fmt;

/// Why a manifest, or one object in it, cannot be used. Displays as one sentence that begins with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{place}: {sentence}")]
pub struct ManifestError {
    /// The file as the user named it.
    pub file: String,
    /// Where in the file, when that is known.
    place: Place,
    sentence: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Unknown,
    Line { line: u64, column: u64 },
    Object(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => Ok(()),
            Self::Line { line, column } => write!(f, ":{line}:{column}"),
            Self::Object(object) => write!(f, ": {object}"),
        }
    }
}

/// Every Deployment and StatefulSet in `text`, in order; objects of other kinds are passed over. `file` is only
/// repeated in sentences.
///
/// An object that cannot be used does not hide the others; text that is no YAML at all gives one error.
pub fn read(file: &str, text: &str) -> Vec<Result<Workload, ManifestError>> {
    let error = |place, sentence| ManifestError {
        file: file.to_owned(),
        place,
        sentence,
    };
    let documents = match parse(text) {
        Ok(documents) => documents,
        Err((place, sentence)) => return vec![Err(error(place, sentence))],
    };
    let mut found = Vec::new();
    for (i, document) in documents.iter().enumerate() {
        let name = format!("document {}", i + 1);
        collect(document, &name, &mut found);
    }
    found
        .into_iter()
        .map(|found| found.map_err(|(object, sentence)| error(Place::Object(object), sentence)))
        .collect()
}

fn parse(text: &str) -> Result<Vec<Value>, (Place, String)> {
    // A snippet of the source would make the sentence a page.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let place = error.location().map_or(Place::Unknown, |at| Place::Line {
            line: at.line(),
            column: at.column(),
        });
        (
            place,
            format!(
                "cannot be read as YAML or JSON: {}",
                one_line(&error.render_with_formatter(&serde_saphyr::UserMessageFormatter))
            ),
        )
    })
}

/// The parser's own words on one line, and without the place, which stands in front.
fn one_line(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    message.split(" at line ").next().unwrap_or_default().to_owned()
}

type Found = Result<Workload, (String, String)>;

fn collect(object: &Value, name: &str, found: &mut Vec<Found>) {
    let Some(kind) = object.get("kind").and_then(Value::as_str) else {
        found.push(Err((
            name.to_owned(),
            "is not a Kubernetes object: write one with apiVersion and kind".to_owned(),
        )));
        return;
    };
    // "List", and what some tools write: "DeploymentList".
    if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), object.get("items")) {
        for (i, item) in items.iter().enumerate() {
            collect(item, &format!("{name}, item {}", i + 1), found);
        }
        return;
    }
    let field = Field::root(object);
    match Kind::of(object, kind) {
        Some(kind) => found.push(
            workload::read(kind, &field)
                .map_err(|sentence| (describe(object, kind.as_str(), name), sentence)),
        ),
        None if runs_pods(kind) && workload::has_our_annotations(&field) => found.push(Err((
            describe(object, kind, name),
            "has kubedaemon.io annotations, which only work on a Deployment or a StatefulSet".to_owned(),
        ))),
        None => {}
    }
}

/// Other kinds that run pods: an annotation on one of them is a mistake worth telling.
fn runs_pods(kind: &str) -> bool {
    matches!(kind, "DaemonSet" | "ReplicaSet" | "Job" | "CronJob" | "Pod")
}

/// `Deployment default/orders`, or the document's number when it has no name.
fn describe(object: &Value, kind: &str, document: &str) -> String {
    let metadata = |key| {
        object
            .pointer(&format!("/metadata/{key}"))
            .and_then(Value::as_str)
    };
    match metadata("name") {
        Some(name) => format!(
            "{kind} {}/{name}",
            metadata("namespace").unwrap_or(workload::DEFAULT_NAMESPACE)
        ),
        None => format!("{document} ({kind})"),
    }
}
