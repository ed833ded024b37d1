//! What an admission can end in: a patch, a skip or a denial, each with its reason, and warnings.

use super::model;
use super::patch::Operation;
use contract::annotations::INJECT;
use contract::settings::{PORT, Problem, QUEUE};
use std::fmt;

/// What is answered to one review.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// What happens to the object.
    pub outcome: Outcome,
    /// Shown to whoever wrote the object.
    pub warnings: Vec<Warning>,
}

/// What happens to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is changed; at least one operation.
    Patch(PatchReason, Vec<Operation>),
    /// It is left as it is.
    Skip(SkipReason),
    /// It is refused; at least one sentence.
    Deny(DenyReason, Vec<String>),
}

impl Outcome {
    /// The decision in one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Patch(..) => "patch",
            Self::Skip(_) => "skip",
            Self::Deny(..) => "deny",
        }
    }

    /// The reason of the decision.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Patch(reason, _) => reason.as_str(),
            Self::Skip(reason) => reason.as_str(),
            Self::Deny(reason, _) => reason.as_str(),
        }
    }
}

impl From<Outcome> for Admission {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            warnings: Vec::new(),
        }
    }
}

/// Why an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchReason {
    /// The pod gets its sidecar.
    Injected,
    /// The pod template gets, or loses again, the annotations of its workload.
    AnnotationsCopied,
}

impl PatchReason {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Injected, Self::AnnotationsCopied];

    /// The reason in logs, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::AnnotationsCopied => "annotations_copied",
        }
    }
}

/// Why an object is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// None of its annotations is ours.
    AnnotationAbsent,
    /// `kubedaemon.io/inject` is `"false"`.
    Disabled,
    /// The pod has no queue, so there is nothing that a sidecar could take messages from, and it does not ask for one
    /// either.
    NoQueue,
    /// The pod has its sidecar already.
    AlreadyInjected,
    /// The pod template has the annotations of its workload already.
    AlreadyCopied,
    /// The pod uses the network of its node.
    HostNetwork,
    /// The pod is the mirror of one that the kubelet runs by itself.
    MirrorPod,
    /// The pod is for Windows nodes.
    WindowsNode,
    /// The object is being deleted.
    Deleting,
    /// The object is neither a Pod nor a Deployment nor a StatefulSet.
    UnsupportedKind,
    /// The object is not being made, and is no workload that is changed.
    UnsupportedOperation,
}

impl SkipReason {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AnnotationAbsent,
        Self::Disabled,
        Self::NoQueue,
        Self::AlreadyInjected,
        Self::AlreadyCopied,
        Self::HostNetwork,
        Self::MirrorPod,
        Self::WindowsNode,
        Self::Deleting,
        Self::UnsupportedKind,
        Self::UnsupportedOperation,
    ];

    /// The reason in logs, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnnotationAbsent => "annotation_absent",
            Self::Disabled => "disabled",
            Self::NoQueue => "no_queue",
            Self::AlreadyInjected => "already_injected",
            Self::AlreadyCopied => "already_copied",
            Self::HostNetwork => "host_network",
            Self::MirrorPod => "mirror_pod",
            Self::WindowsNode => "windows_node",
            Self::Deleting => "deleting",
            Self::UnsupportedKind => "unsupported_kind",
            Self::UnsupportedOperation => "unsupported_operation",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnnotationAbsent => return model::SkipReason::AnnotationAbsent.fmt(f),
            Self::Disabled => return model::SkipReason::Disabled.fmt(f),
            Self::NoQueue => {
                return write!(f, "it has neither {} nor {INJECT}: \"true\"", QUEUE.annotation());
            }
            Self::AlreadyInjected => "it has a sidecar already",
            Self::AlreadyCopied => "its pod template has the annotations already",
            Self::HostNetwork => {
                "hostNetwork is true, so its ports would be the node's and could be taken by another sidecar"
            }
            Self::MirrorPod => "it is a static pod, which the kubelet runs whatever is answered here",
            Self::WindowsNode => "it is for Windows nodes, and the sidecar is built for Linux",
            Self::Deleting => "it is being deleted",
            Self::UnsupportedKind => "it is neither a Pod nor a Deployment nor a StatefulSet",
            Self::UnsupportedOperation => "only what is made, and workloads that are changed, are looked at",
        })
    }
}

impl From<model::SkipReason> for SkipReason {
    fn from(reason: model::SkipReason) -> Self {
        match reason {
            model::SkipReason::AnnotationAbsent => Self::AnnotationAbsent,
            model::SkipReason::Disabled => Self::Disabled,
        }
    }
}

/// Why an object is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyReason {
    /// An annotation of ours has a value that is not accepted.
    BadAnnotation,
    /// A container that is not ours has the name of the sidecar.
    NameTaken,
    /// The worker, or another container, has the port of the sidecar.
    PortTaken,
    /// The review, or the object in it, is not as Kubernetes writes them.
    Unreadable,
}

impl DenyReason {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::BadAnnotation,
        Self::NameTaken,
        Self::PortTaken,
        Self::Unreadable,
    ];

    /// The refusal of what these sentences say.
    pub(super) fn bad_annotations(problems: &[Problem]) -> Admission {
        let sentences = problems.iter().map(ToString::to_string).collect();
        Outcome::Deny(Self::BadAnnotation, sentences).into()
    }

    /// The reason in logs, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadAnnotation => "bad_annotation",
            Self::NameTaken => "name_taken",
            Self::PortTaken => "port_taken",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What looks wrong without being refused. Displays as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// One that manifests get as well.
    Model(model::Warning),
    /// The object has our annotations and yet gets no sidecar.
    NotInjected(SkipReason),
    /// Neither an annotation nor the container says where the worker listens.
    PortAssumed,
    /// Nothing says where the broker is.
    NoBroker,
    /// The worker has a `preStop` hook of its own, which is kept.
    PreStopKept {
        /// The worker's container.
        container: String,
    },
}

impl Warning {
    /// The kind of warning in documents.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Model(warning) => warning.as_str(),
            Self::NotInjected(_) => "not_injected",
            Self::PortAssumed => "port_assumed",
            Self::NoBroker => "no_broker",
            Self::PreStopKept { .. } => "pre_stop_kept",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(warning) => warning.fmt(f),
            Self::NotInjected(reason) => {
                write!(
                    f,
                    "no sidecar, {}: {reason}; {INJECT}: \"false\" says that this is meant",
                    reason.as_str()
                )
            }
            Self::PortAssumed => write!(
                f,
                "no port is named, so the worker is expected on {}: write {} or the container's containerPort",
                PORT.default_text(),
                PORT.annotation()
            ),
            Self::NoBroker => f.write_str(
                "nothing says where the broker is: write kubedaemon.io/broker, or start the injector with \
                 --broker-secret",
            ),
            Self::PreStopKept { container } => write!(
                f,
                "container {container} has a preStop hook of its own, which is kept: it has to wait until the \
                 worker has answered what it works on"
            ),
        }
    }
}
