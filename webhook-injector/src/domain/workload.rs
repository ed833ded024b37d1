//! Workloads: annotations on a Deployment or a StatefulSet itself are copied onto its pod template, because pods get
//! their annotations from there. So `kubectl annotate deployment` is enough.
//!
//! Only what a sidecar acts on is copied: a change of the template replaces every pod, and `max-replicas` is no
//! reason for that. What was copied is noted on the template together with what had stood there, and taken back when
//! it goes from the workload.

use super::admission::{Admission, DenyReason, Outcome, PatchReason, SkipReason};
use super::model::{Decision, judge};
use super::patch::{Operation, pointer};
use super::pod::{Injection, has_our_annotations};
use super::review::unreadable;
use super::sidecar;
use crate::manifest::PodShape;
use contract::annotations::{COPIED, INJECT};
use contract::settings::{Component, Setting, used_by};
use serde_json::{Map, Value, json};

const TEMPLATE: &str = "/spec/template";
const METADATA: &str = "/spec/template/metadata";
const ANNOTATIONS: &str = "/spec/template/metadata/annotations";

/// Decides on a Deployment or a StatefulSet that is made or changed.
pub fn decide(object: &Value, injection: &Injection) -> Admission {
    if object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null())
    {
        return Outcome::Skip(SkipReason::Deleting).into();
    }
    if !has_our_annotations(object, "/metadata/annotations") && !has_our_annotations(object, ANNOTATIONS) {
        return Outcome::Skip(SkipReason::AnnotationAbsent).into();
    }
    if !object.pointer(TEMPLATE).is_some_and(Value::is_object) {
        return unreadable("spec.template is missing: write a pod template");
    }
    let mut shape = match PodShape::of_workload(object) {
        Ok(shape) => shape,
        Err(sentence) => return unreadable(&sentence),
    };
    let none = Map::new();
    let members = |path| object.pointer(path).and_then(Value::as_object).unwrap_or(&none);
    let (own, there) = (members("/metadata/annotations"), members(ANNOTATIONS));
    let target = target(own, there);
    // What is about to be taken back is not judged.
    shape
        .annotations
        .retain(|name, _| own.contains_key(name) || target.contains_key(name));
    for (name, value) in &target {
        if let (false, Value::String(value)) = (own.contains_key(name), value) {
            shape.annotations.insert(name.clone(), value.clone());
        }
    }
    let mut warnings = Vec::new();
    let left_alone = match judge(
        &shape.annotations,
        &shape.containers,
        shape.termination_grace_period,
    ) {
        Decision::Deny(problems) => return DenyReason::bad_annotations(&problems),
        Decision::Skip(reason) => reason.into(),
        Decision::Inject(plan) => {
            if let Some(sentence) = sidecar::port_taken(&plan, &shape.containers) {
                return Outcome::Deny(DenyReason::PortTaken, vec![sentence]).into();
            }
            warnings = sidecar::warnings(&plan, &shape, injection);
            SkipReason::AlreadyCopied
        }
    };
    let operations = difference(object, there, target);
    let outcome = if operations.is_empty() {
        Outcome::Skip(left_alone)
    } else {
        Outcome::Patch(PatchReason::AnnotationsCopied, operations)
    };
    Admission { outcome, warnings }
}

/// The template's annotations as they should be, from those of the workload and those that are there.
fn target(own: &Map<String, Value>, there: &Map<String, Value>) -> Map<String, Value> {
    // Somebody may have written nonsense there; then nothing counts as copied.
    let copied: Map<String, Value> = there
        .get(COPIED)
        .and_then(Value::as_str)
        .and_then(|noted| serde_json::from_str(noted).ok())
        .unwrap_or_default();
    let mut target = there.clone();
    let mut noted = Map::new();
    for name in names() {
        match (own.get(&name), copied.get(&name)) {
            (Some(value), None) if there.get(&name) == Some(value) => {}
            (Some(value), before) => {
                let before = before.or_else(|| there.get(&name)).cloned().unwrap_or_default();
                noted.insert(name.clone(), before);
                target.insert(name, value.clone());
            }
            (None, Some(Value::String(before))) => {
                target.insert(name, json!(before));
            }
            (None, Some(_)) => {
                target.remove(&name);
            }
            (None, None) => {}
        }
    }
    if noted.is_empty() {
        target.remove(COPIED);
    } else {
        target.insert(COPIED.to_owned(), json!(Value::Object(noted).to_string()));
    }
    target
}

/// What reaches the pods.
fn names() -> impl Iterator<Item = String> {
    used_by(Component::Sidecar)
        .map(Setting::annotation)
        .chain([INJECT.to_owned()])
}

fn difference(object: &Value, there: &Map<String, Value>, target: Map<String, Value>) -> Vec<Operation> {
    if *there == target {
        return Vec::new();
    }
    let exists = |path| object.pointer(path).is_some_and(Value::is_object);
    if !exists(METADATA) {
        let value = json!({"annotations": target});
        return vec![Operation::set(object, METADATA.to_owned(), value)];
    }
    if !exists(ANNOTATIONS) {
        return vec![Operation::set(
            object,
            ANNOTATIONS.to_owned(),
            Value::Object(target),
        )];
    }
    let mut operations: Vec<Operation> = there
        .keys()
        .filter(|name| !target.contains_key(*name))
        .map(|name| Operation::Remove {
            path: pointer(ANNOTATIONS, name),
        })
        .collect();
    operations.extend(
        target
            .into_iter()
            .filter(|(name, value)| there.get(name) != Some(value))
            .map(|(name, value)| Operation::set(object, pointer(ANNOTATIONS, &name), value)),
    );
    operations
}
