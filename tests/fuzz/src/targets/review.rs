//! Admission reviews, to the answer and its patch.

use crate::Target;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::pods::DRAINED_PATH;
use contract::settings::Naming;
use serde_json::Value;
use webhook_injector::domain::pod::{Injection, SecretKey};
use webhook_injector::pipeline::answer;

pub(crate) const TARGET: Target = Target {
    name: "review",
    what: "admission reviews: the same uid, a patch that applies and is the last, others' objects left alone",
    run,
};

fn run(input: &[u8]) {
    let injection = Injection {
        image: "example.org/sidecar:1".to_owned(),
        broker_secret: Some(SecretKey {
            name: "kubedaemon-broker".to_owned(),
            key: "url".to_owned(),
        }),
        drained_path: Some(DRAINED_PATH.to_owned()),
        drain_key: Some("public-key".to_owned()),
    };
    let Ok(body) = answer(input, &injection) else {
        return;
    };
    let mut review: Value = serde_json::from_slice(input).expect("only JSON is answered with a review");
    let response = response(&body, &review);
    let object = review["request"]["object"].clone();
    if object.is_object() && !is_ours(&object) {
        assert_eq!(
            (&response["allowed"], response.get("patch")),
            (&Value::Bool(true), None)
        );
    }
    if response["allowed"] == false {
        let message = response["status"]["message"].as_str().expect("a sentence");
        assert!(!message.is_empty() && response.get("patch").is_none());
        return;
    }
    let Some(patch) = response.get("patch") else {
        return;
    };
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD.decode(patch.as_str().expect("text")).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch");
    assert!(!patch.0.is_empty(), "an empty patch");
    let changed = &mut review["request"]["object"];
    json_patch::patch(changed, &patch).expect("a patch that applies");
    assert_ne!(*changed, object, "a patch that changes nothing");
    let again = answer(review.to_string().as_bytes(), &injection).expect("a review");
    let again = self::response(&again, &review);
    assert_eq!(again["allowed"], true, "what we made of it is refused: {again}");
    assert_eq!(again.get("patch"), None, "changed twice");
}

/// The response, which belongs to the request.
fn response(answer: &[u8], review: &Value) -> Value {
    let mut answer: Value = serde_json::from_slice(answer).expect("the answer is JSON");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = answer["response"].take();
    assert_eq!(response["uid"], review["request"]["uid"]);
    assert!(response["allowed"].is_boolean());
    for warning in response["warnings"].as_array().into_iter().flatten() {
        assert!(warning.as_str().expect("text").chars().count() <= 256);
    }
    response
}

/// Whether anything on the object, or on the template of its pods, is an annotation of ours.
fn is_ours(object: &Value) -> bool {
    ["/metadata/annotations", "/spec/template/metadata/annotations"]
        .into_iter()
        .filter_map(|path| object.pointer(path)?.as_object())
        .flat_map(serde_json::Map::keys)
        .any(|name| Naming::Annotation.has_prefix(name))
}
