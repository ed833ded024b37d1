//! From annotations to a decision: inject with these settings, skip for this reason, or deny with these sentences.
//!
//! A workload takes part when it carries any annotation of ours; everything but the queue has a default. A workload
//! that does not take part is never refused, whatever else is in it.

use crate::manifest::{Container, Workload};
use contract::annotations::{ALL, BOOKKEEPING, INJECT};
use contract::quantity::format_duration;
use contract::settings::{
    Annotations, Layered, Naming, PORT, Problem, QUEUE, Setting, Settings, Source, TIMEOUT, Unknown, parse,
    unknown,
};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What happens to a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It gets a sidecar.
    Inject(Box<Plan>),
    /// It is left as it is.
    Skip(SkipReason),
    /// It is refused; at least one sentence.
    Deny(Vec<Problem>),
}

impl Decision {
    /// The decision in one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Inject(_) => "inject",
            Self::Skip(_) => "skip",
            Self::Deny(_) => "deny",
        }
    }
}

/// What a sidecar is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Every setting that is in force.
    pub settings: Settings,
    /// The container that answers `POST /message`: the first of the pod template.
    pub worker: Container,
    /// Whether `kubedaemon.io/inject` is `"true"`: a sidecar is wanted even where there is no queue.
    pub asked_for: bool,
    /// What looks wrong without being refused.
    pub warnings: Vec<Warning>,
}

impl Plan {
    /// Whether pods get a sidecar: to take messages from a queue, or to tell what the worker is called with.
    pub fn has_sidecar(&self) -> bool {
        self.asked_for || self.settings.queue.is_some()
    }
}

/// Why a workload is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// None of its annotations is ours.
    AnnotationAbsent,
    /// `kubedaemon.io/inject` is `"false"`.
    Disabled,
}

impl SkipReason {
    /// All of them.
    pub const ALL: &[Self] = &[Self::AnnotationAbsent, Self::Disabled];

    /// The reason in logs, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnnotationAbsent => "annotation_absent",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnnotationAbsent => f.write_str("it has no kubedaemon.io annotation"),
            Self::Disabled => write!(f, "{INJECT} is \"false\""),
        }
    }
}

/// What looks wrong without being refused. Displays as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// An annotation with our prefix that nothing knows.
    UnknownAnnotation(Unknown),
    /// There is no queue, and nothing says that this is meant.
    NoQueue,
    /// A pod is killed before the worker's time for one message is over.
    GracePeriodTooShort {
        /// `terminationGracePeriodSeconds`.
        grace_period: Duration,
        /// The `timeout` setting.
        timeout: Duration,
    },
}

impl Warning {
    /// The kind of warning in logs, metrics and documents.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownAnnotation(_) => "unknown_annotation",
            Self::NoQueue => "no_queue",
            Self::GracePeriodTooShort { .. } => "grace_period_too_short",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAnnotation(unknown) => unknown.fmt(f),
            Self::NoQueue => write!(
                f,
                "{} is missing, so the worker is only called over HTTP: write {INJECT}: \"true\" if that is meant",
                QUEUE.annotation()
            ),
            Self::GracePeriodTooShort {
                grace_period,
                timeout,
            } => write!(
                f,
                "terminationGracePeriodSeconds is {}, less than the {} that {} gives a message: a message in work \
                 when its pod is stopped may be cut off and delivered again; write more than {}",
                grace_period.as_secs(),
                format_duration(*timeout),
                TIMEOUT.annotation(),
                timeout.as_secs()
            ),
        }
    }
}

/// Decides what happens to a workload.
pub fn decide(workload: &Workload) -> Decision {
    judge(
        &workload.annotations,
        &workload.containers,
        workload.termination_grace_period,
    )
}

/// Decides what happens to a pod with these annotations and containers.
pub(crate) fn judge(
    annotations: &BTreeMap<String, String>,
    containers: &[Container],
    grace_period: Option<Duration>,
) -> Decision {
    if !annotations.keys().any(|name| Naming::Annotation.has_prefix(name)) {
        return Decision::Skip(SkipReason::AnnotationAbsent);
    }
    let mut problems = Vec::new();
    let asked_for = match annotations.get(INJECT).map(String::as_str) {
        Some("false") => return Decision::Skip(SkipReason::Disabled),
        Some("true") => true,
        None => false,
        Some(other) => {
            problems.push(Problem::wrong(
                INJECT,
                other,
                "is neither \"true\" nor \"false\"",
                "one of the two",
            ));
            false
        }
    };
    let worker = containers.first();
    if worker.is_none() {
        problems.push(Problem::missing(
            "spec.template.spec.containers",
            "at least one container",
        ));
    }
    let source = Annotations::new(annotations.clone());
    let container_port = ContainerPort(worker.and_then(|worker| worker.ports.first().copied()));
    match (parse(&Layered(&[&source, &container_port])), worker) {
        (Ok(settings), Some(worker)) if problems.is_empty() => {
            let warnings = warnings(annotations, grace_period, &settings, asked_for);
            Decision::Inject(Box::new(Plan {
                settings,
                worker: worker.clone(),
                asked_for,
                warnings,
            }))
        }
        (Ok(_), _) => Decision::Deny(problems),
        (Err(more), _) => {
            problems.extend(more);
            Decision::Deny(problems)
        }
    }
}

fn warnings(
    annotations: &BTreeMap<String, String>,
    grace_period: Option<Duration>,
    settings: &Settings,
    asked_for: bool,
) -> Vec<Warning> {
    let names = annotations.keys().map(String::as_str);
    let ours = [ALL, BOOKKEEPING].concat();
    let mut warnings: Vec<Warning> = unknown(Naming::Annotation, names, &ours)
        .into_iter()
        .map(Warning::UnknownAnnotation)
        .collect();
    if settings.queue.is_none() && !asked_for {
        warnings.push(Warning::NoQueue);
    }
    let timeout = settings.timeout;
    // Only a grace period that somebody wrote is worth a word: one that is absent says nothing about their intent.
    if let Some(grace_period) = grace_period.filter(|grace| *grace < timeout) {
        warnings.push(Warning::GracePeriodTooShort {
            grace_period,
            timeout,
        });
    }
    warnings
}

/// The port that the worker's container names, in place of the fixed default.
struct ContainerPort(Option<u16>);

impl Source for ContainerPort {
    fn get(&self, setting: &Setting) -> Option<String> {
        self.0
            .filter(|_| setting.name == PORT.name)
            .map(|port| port.to_string())
    }

    fn name(&self, _: &Setting) -> String {
        "spec.template.spec.containers[0].ports[0].containerPort".to_owned()
    }
}
