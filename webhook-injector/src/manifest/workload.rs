//! What is known of a workload: its annotations and how its containers are started.

use super::field::{Field, Wrong};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where an object lives that names no namespace.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// The kinds of objects that can be workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl Kind {
    /// The kind as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// The kind of an object; `None` when it is another one, or one of the same name from another API group.
    pub(super) fn of(object: &Value, kind: &str) -> Option<Self> {
        let group = object
            .get("apiVersion")
            .and_then(Value::as_str)
            .and_then(|version| version.split_once('/'));
        if group.is_some_and(|(group, _)| group != "apps") {
            return None;
        }
        [Self::Deployment, Self::StatefulSet]
            .into_iter()
            .find(|known| known.as_str() == kind)
    }
}

/// A Deployment or StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which of the two.
    pub kind: Kind,
    /// `default` when the manifest names none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The annotations of the pod template and those of the workload itself. Where both have one, the workload's own
    /// wins: it is what `kubectl annotate deployment` changes.
    pub annotations: BTreeMap<String, String>,
    /// `spec.replicas`; Kubernetes takes 1 when it is absent.
    pub replicas: Option<u32>,
    /// The containers of the pod template, without init containers.
    pub containers: Vec<Container>,
    /// `terminationGracePeriodSeconds`; Kubernetes takes 30 s when it is absent.
    pub termination_grace_period: Option<Duration>,
}

impl fmt::Display for Workload {
    /// `Deployment default/orders`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// One container, as far as it matters for starting it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image; empty when the manifest names none.
    pub image: String,
    /// What replaces the image's entrypoint; empty when the image's own is used.
    pub command: Vec<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// The variables of `env`, in order, then one entry for each element of `envFrom`.
    pub env: Vec<EnvVar>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// Every TCP `containerPort`, in order.
    pub ports: Vec<u16>,
}

/// One environment variable of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name; the prefix of the names, often empty, when it stands for an element of `envFrom`.
    pub name: String,
    /// Its value or where the value comes from.
    pub value: EnvValue,
}

/// The value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// As written; `$(NAME)` in it is not expanded.
    Plain(String),
    /// Only a cluster knows it. The text says where it comes from, as in `secretKeyRef db/password`.
    FromCluster(String),
}

/// What matters of a pod, or of the pods that a workload makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodShape {
    /// Annotations; those of the workload itself win over those of its pod template.
    pub annotations: BTreeMap<String, String>,
    /// The containers, without init containers.
    pub containers: Vec<Container>,
    /// `terminationGracePeriodSeconds`; Kubernetes takes 30 s when it is absent.
    pub termination_grace_period: Option<Duration>,
}

impl PodShape {
    /// Reads a `v1` Pod as it arrives for admission.
    ///
    /// # Errors
    /// One sentence that begins with the path of what cannot be used.
    pub fn of_pod(object: &Value) -> Result<Self, String> {
        let object = Field::root(object);
        Self::read(&[object.at(&["metadata", "annotations"])], &object.get("spec"))
    }

    /// Reads the pods of a Deployment or a StatefulSet.
    ///
    /// # Errors
    /// One sentence that begins with the path of what cannot be used.
    pub fn of_workload(object: &Value) -> Result<Self, String> {
        Self::of_template(&Field::root(object))
    }

    fn of_template(object: &Field<'_>) -> Result<Self, Wrong> {
        let template = object.at(&["spec", "template"]);
        let annotations = [
            template.at(&["metadata", "annotations"]),
            object.at(&["metadata", "annotations"]),
        ];
        Self::read(&annotations, &template.get("spec"))
    }

    /// Of the annotations the last ones win.
    fn read(annotations: &[Field<'_>], spec: &Field<'_>) -> Result<Self, Wrong> {
        let mut merged = BTreeMap::new();
        for annotations in annotations {
            merged.extend(strings_by_name(annotations)?);
        }
        let grace = spec.get("terminationGracePeriodSeconds").number(0..=u32::MAX)?;
        Ok(Self {
            annotations: merged,
            containers: spec
                .get("containers")
                .list()?
                .iter()
                .map(container)
                .collect::<Result<_, _>>()?,
            termination_grace_period: grace.map(|seconds| Duration::from_secs(u64::from(seconds))),
        })
    }
}

pub(super) fn read(kind: Kind, object: &Field<'_>) -> Result<Workload, Wrong> {
    let name = object.at(&["metadata", "name"]);
    let shape = PodShape::of_template(object)?;
    Ok(Workload {
        kind,
        namespace: object
            .at(&["metadata", "namespace"])
            .string()?
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        name: name
            .string()?
            .filter(|name| !name.is_empty())
            .ok_or_else(|| name.missing("a name"))?,
        annotations: shape.annotations,
        replicas: object
            .at(&["spec", "replicas"])
            .number(0..=i32::MAX.unsigned_abs())?,
        containers: shape.containers,
        termination_grace_period: shape.termination_grace_period,
    })
}

/// Whether the object or its pod template carries an annotation of ours.
pub(super) fn has_our_annotations(object: &Field<'_>) -> bool {
    [
        object.at(&["metadata", "annotations"]),
        object.at(&["spec", "template", "metadata", "annotations"]),
    ]
    .iter()
    .filter_map(|field| field.members().ok())
    .flatten()
    .any(|(name, _)| contract::settings::Naming::Annotation.has_prefix(name))
}

fn strings_by_name(field: &Field<'_>) -> Result<BTreeMap<String, String>, Wrong> {
    field
        .members()?
        .into_iter()
        .map(|(name, value)| Ok((name.to_owned(), value.string()?.unwrap_or_default())))
        .collect()
}

fn container(field: &Field<'_>) -> Result<Container, Wrong> {
    let name = field.get("name");
    let mut env = field
        .get("env")
        .list()?
        .iter()
        .map(variable)
        .collect::<Result<Vec<_>, _>>()?;
    for source in field.get("envFrom").list()? {
        env.push(variables_from(&source)?);
    }
    let ports = field
        .get("ports")
        .list()?
        .iter()
        .map(port)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Container {
        name: name.string()?.ok_or_else(|| name.missing("a name"))?,
        image: field.get("image").string()?.unwrap_or_default(),
        command: field.get("command").strings()?,
        args: field.get("args").strings()?,
        env,
        working_dir: field.get("workingDir").string()?,
        ports: ports.into_iter().flatten().collect(),
    })
}

/// The port's number; `None` for one that is not TCP, which HTTP cannot be spoken on.
fn port(field: &Field<'_>) -> Result<Option<u16>, Wrong> {
    let number = field.get("containerPort");
    let port = number
        .number(1..=u32::from(u16::MAX))?
        .and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| number.missing("a whole number from 1 to 65535"))?;
    let protocol = field.get("protocol").string()?;
    Ok(protocol.is_none_or(|protocol| protocol == "TCP").then_some(port))
}

fn variable(field: &Field<'_>) -> Result<EnvVar, Wrong> {
    let name = field.get("name");
    let source = field.get("valueFrom");
    let value = if source.is_absent() {
        EnvValue::Plain(field.get("value").string()?.unwrap_or_default())
    } else {
        EnvValue::FromCluster(reference(&source)?)
    };
    Ok(EnvVar {
        name: name.string()?.ok_or_else(|| name.missing("a name"))?,
        value,
    })
}

fn variables_from(field: &Field<'_>) -> Result<EnvVar, Wrong> {
    let name = field.get("prefix").string()?.unwrap_or_default();
    Ok(EnvVar {
        name,
        value: EnvValue::FromCluster(reference(field)?),
    })
}

/// `secretKeyRef db/password`, `configMapRef settings`, `fieldRef metadata.name`.
fn reference(field: &Field<'_>) -> Result<String, Wrong> {
    let Some((kind, source)) = field
        .members()?
        .into_iter()
        .find(|(kind, _)| kind.ends_with("Ref"))
    else {
        return Ok("an unknown source".to_owned());
    };
    let parts = ["name", "key", "fieldPath", "resource"]
        .iter()
        .map(|key| source.get(key).string())
        .collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Ok(format!("{kind} {}", parts.join("/")))
}
