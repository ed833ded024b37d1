//! Reviews without a network, and what is in their answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::pods::DRAINED_PATH;
use serde_json::{Value, json};
use webhook_injector::domain::pod::{Injection, SecretKey};
use webhook_injector::pipeline;

pub(crate) fn injection() -> Injection {
    Injection {
        image: "example.org/sidecar:1".to_owned(),
        broker_secret: Some(SecretKey {
            name: "kubedaemon-broker".to_owned(),
            key: "url".to_owned(),
        }),
        drained_path: Some(DRAINED_PATH.to_owned()),
        drain_key: Some("public-key".to_owned()),
    }
}

pub(crate) fn review(operation: &str, object: &Value) -> Value {
    let group = if object["kind"] == "Pod" { "" } else { "apps" };
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": operation,
            "kind": {"group": group, "version": "v1", "kind": object["kind"]},
            "object": object,
        }
    })
}

pub(crate) fn answer(review: &Value, injection: &Injection) -> Value {
    let body = pipeline::answer(review.to_string().as_bytes(), injection).unwrap();
    let mut answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].take()
}

pub(crate) fn patch_of(response: &Value) -> Option<Value> {
    let patch = STANDARD.decode(response.get("patch")?.as_str()?).unwrap();
    assert_eq!(response["patchType"], "JSONPatch");
    assert_eq!(response["allowed"], true);
    Some(serde_json::from_slice(&patch).unwrap())
}

pub(crate) fn patched(object: &Value, patch: &Value) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

pub(crate) fn pod(annotations: &Value, spec: &Value) -> Value {
    json!({"kind": "Pod", "metadata": {"annotations": annotations}, "spec": spec})
}

pub(crate) fn queue() -> Value {
    json!({"kubedaemon.io/queue": "orders"})
}
