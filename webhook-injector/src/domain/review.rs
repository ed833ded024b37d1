//! `AdmissionReview` of `admission.k8s.io/v1`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>): what we need of the
//! request, and the answer.

use super::admission::{Admission, DenyReason, Outcome};
use super::patch::document;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const VERSION: &str = "admission.k8s.io/v1";

/// The longest warning; longer ones may be cut off anywhere by Kubernetes.
const MAX_WARNING_CHARS: usize = 256;

/// What we need of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Repeated in the answer.
    pub uid: String,
    /// What is done with the object.
    pub operation: Operation,
    /// What kind of object it is.
    pub kind: Kind,
    /// Whether only a part of the object is asked for, as in `deployments/scale`.
    pub is_subresource: bool,
    /// The object as it would be stored; every field of it.
    pub object: Value,
}

/// What is done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// Anything else.
    Other,
}

impl Operation {
    /// The operation in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Other => "other",
        }
    }
}

/// The kinds of objects that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `v1` Pod.
    Pod,
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// Any other.
    Other,
}

impl Kind {
    /// The kind as Kubernetes writes it, or `other`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::Other => "other",
        }
    }

    fn read(kind: &Value) -> Self {
        let part = |name| kind.get(name).and_then(Value::as_str).unwrap_or_default();
        match (part("group"), part("kind")) {
            ("", "Pod") => Self::Pod,
            ("apps", "Deployment") => Self::Deployment,
            ("apps", "StatefulSet") => Self::StatefulSet,
            _ => Self::Other,
        }
    }
}

/// Why there is no request to decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecodable {
    /// It is no review at all, so that no review can be the answer. One sentence.
    NoReview(String),
    /// It is a review that can be answered: with a refusal.
    Answerable {
        /// Repeated in the answer.
        uid: String,
        /// What is wrong, in one sentence.
        sentence: String,
    },
}

/// Reads a review.
///
/// # Errors
/// When it is none, or has no object where it must have one.
pub fn decode(body: &[u8]) -> Result<Request, Undecodable> {
    let no_review = |why: &str| {
        Undecodable::NoReview(format!(
            "the body {why}: send an AdmissionReview of {VERSION} as JSON"
        ))
    };
    // The parser's own words may repeat parts of the body.
    let mut review: Value = serde_json::from_slice(body)
        .map_err(|error| no_review(&format!("is no JSON ({:?})", error.classify())))?;
    let is = |name, value| review.get(name).and_then(Value::as_str) == Some(value);
    if !is("kind", "AdmissionReview") || !is("apiVersion", VERSION) {
        return Err(no_review("is no such review"));
    }
    let Some(request) = review.get_mut("request") else {
        return Err(no_review("has no request"));
    };
    let uid = match request.get("uid").and_then(Value::as_str) {
        Some(uid) if !uid.is_empty() => uid.to_owned(),
        _ => return Err(no_review("has no request.uid")),
    };
    let text = |name| request.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        _ => Operation::Other,
    };
    let is_subresource = !text("subResource").is_empty();
    let kind = Kind::read(request.get("kind").unwrap_or(&Value::Null));
    let object = request.get_mut("object").map(Value::take).unwrap_or_default();
    if operation != Operation::Other && !object.is_object() {
        return Err(Undecodable::Answerable {
            uid,
            sentence: "request.object is missing: write the object that is asked about".to_owned(),
        });
    }
    Ok(Request {
        uid,
        operation,
        kind,
        is_subresource,
        object,
    })
}

/// The refusal of what is not as Kubernetes writes it.
pub(crate) fn unreadable(sentence: &str) -> Admission {
    Outcome::Deny(DenyReason::Unreadable, vec![sentence.to_owned()]).into()
}

/// The answer to the request with this `uid`.
pub fn encode(uid: &str, admission: &Admission) -> Value {
    let mut response = json!({"uid": uid, "allowed": true});
    match &admission.outcome {
        Outcome::Patch(_, operations) => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(document(operations).to_string()));
        }
        Outcome::Skip(_) => {}
        Outcome::Deny(_, sentences) => {
            response["allowed"] = json!(false);
            response["status"] = json!({
                "status": "Failure",
                "reason": "Invalid",
                "code": 422,
                "message": sentences.join("; "),
            });
        }
    }
    if !admission.warnings.is_empty() {
        response["warnings"] = admission
            .warnings
            .iter()
            .map(|w| json!(short(&w.to_string())))
            .collect();
    }
    json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response})
}

fn short(sentence: &str) -> String {
    if sentence.chars().count() <= MAX_WARNING_CHARS {
        return sentence.to_owned();
    }
    let mut short: String = sentence.chars().take(MAX_WARNING_CHARS - 1).collect();
    short.push('…');
    short
}
