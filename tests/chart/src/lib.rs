//! For tests only: what the Helm chart renders.
//!
//! | need | use |
//! |---|---|
//! | Helm, as `tools/helm` builds it | [`helm`] |
//! | what the chart makes of values | [`Rendering`], [`render`] |
//! | the table of values in the chart's README | [`values_table`] |
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The namespace that renderings are for.
pub const NAMESPACE: &str = "kubedaemon-system";

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of the tree, by its path from the root.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs Helm from the root of the tree with no cluster, and gives what it printed on standard output.
///
/// # Errors
/// What it printed, when it failed.
pub fn helm(arguments: &[&str]) -> Result<String, String> {
    helm_on(Path::new("/nonexistent"), arguments)
}

/// As [`helm`], with a cluster.
///
/// # Errors
/// What it printed, when it failed.
pub fn helm_on(kubeconfig: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(root().join("tools/helm"))
        .args(arguments)
        .current_dir(root())
        .env("KUBECONFIG", kubeconfig)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(said + &String::from_utf8_lossy(&output.stderr))
    }
}

/// Values that the chart is tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendering {
    /// No value is given.
    Defaults,
    /// Everything is on and every value is another one.
    Everything,
    /// Only one namespace is worked for.
    OneNamespace,
}

impl Rendering {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Defaults, Self::Everything, Self::OneNamespace];

    /// The name of its files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::Everything => "everything",
            Self::OneNamespace => "one-namespace",
        }
    }

    /// The file with its values, by its path from the root of the tree.
    pub fn values(self) -> String {
        format!("tests/chart/values/{}.yaml", self.as_str())
    }

    /// What the chart renders.
    pub fn manifest(self) -> String {
        render(&["--values", &self.values()]).unwrap_or_else(|error| panic!("{}: {error}", self.as_str()))
    }

    /// What the chart renders, object by object.
    pub fn objects(self) -> Vec<Value> {
        objects(&self.manifest())
    }
}

/// What the chart renders with these further arguments of `helm template`.
///
/// # Errors
/// Helm's sentence, when it renders nothing.
pub fn render(arguments: &[&str]) -> Result<String, String> {
    let command = [
        "template",
        "kubedaemon",
        "charts/kubedaemon",
        "--namespace",
        NAMESPACE,
    ];
    helm(&[&command, arguments].concat())
}

/// The documents of a YAML text.
pub fn objects(yaml: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}"));
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// The table of `values.yaml` for people: each value with its default and the comment that begins with `# --`.
/// Panics for a value that has no such comment.
pub fn values_table(values: &str) -> String {
    let mut table = String::from("| Value | Default | Meaning |\n|---|---|---|\n");
    let defaults = &objects(values)[0];
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut comment = String::new();
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(begun) = text.strip_prefix("# -- ") {
            begun.clone_into(&mut comment);
        } else if let Some(more) = text.strip_prefix("# ") {
            write!(comment, " {more}").unwrap();
        } else if let Some((key, _)) = text.split_once(':') {
            path.retain(|(depth, _)| *depth < indent);
            path.push((indent, key));
            if comment.is_empty() {
                continue;
            }
            let default = path.iter().fold(defaults, |value, (_, key)| &value[*key]);
            let name = path.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(".");
            writeln!(table, "| `{name}` | `{default}` | {comment} |").unwrap();
            comment.clear();
        }
    }
    table
}
