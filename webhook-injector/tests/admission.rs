//! Reviews from end to end without a network: what is answered, and what comes of the answer.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/reviews.rs"]
mod reviews;

use reviews::{answer, injection, patch_of, patched, pod, queue, review};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use webhook_injector::domain::admission::{DenyReason, PatchReason, SkipReason};
use webhook_injector::domain::pod::Injection;
use webhook_injector::pipeline;

const TEMPLATE: &str = "/spec/template/metadata/annotations";

fn warnings(response: &Value) -> Vec<String> {
    let warnings = response.get("warnings").and_then(Value::as_array).cloned();
    warnings
        .into_iter()
        .flatten()
        .map(|w| w.as_str().unwrap().to_owned())
        .collect()
}

fn plain_spec() -> Value {
    json!({"containers": [{"name": "app", "ports": [{"containerPort": 3000}]}]})
}

/// The decision about an object as `reason` of the pipeline's own types.
fn reason(operation: &str, object: &Value) -> (&'static str, &'static str) {
    let body = review(operation, object).to_string();
    let request = webhook_injector::domain::review::decode(body.as_bytes()).unwrap();
    let outcome = pipeline::decide(&request, &injection()).outcome;
    (outcome.as_str(), outcome.reason())
}

/// A golden file that is missing is written, and fails the test: look at it, then run again.
fn golden(path: &Path, value: &Value) -> bool {
    if !path.exists() {
        fs::write(path, serde_json::to_string_pretty(value).unwrap() + "\n").unwrap();
        return false;
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(*value, expected, "{}", path.display());
    true
}

#[test]
fn every_golden_object_gets_the_patch_beside_it_and_becomes_what_is_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden");
    let (mut checked, mut missing) = (0, 0);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(".object.json") else {
            continue;
        };
        let object: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let response = answer(&review("CREATE", &object), &injection());
        let patch = patch_of(&response).unwrap_or_else(|| panic!("{name}: {response}"));
        assert!(!patch.to_string().contains("s3cret"), "{name} shows a password");
        let changed = patched(&object, &patch);
        for (kind, value) in [("patch", &patch), ("expected", &changed)] {
            missing += u32::from(!golden(&folder.join(format!("{name}.{kind}.json")), value));
        }
        let again = answer(&review("CREATE", &changed), &injection());
        assert_eq!(patch_of(&again), None, "{name}");
        checked += 1;
    }
    assert_eq!((checked, missing), (7, 0));
}

#[test]
fn skip_reasons() {
    let with = |key: &str, value: Value| {
        let mut spec = plain_spec();
        spec[key] = value;
        pod(&queue(), &spec)
    };
    let mut deleting =
        json!({"kind": "Deployment", "metadata": {"annotations": queue()}, "spec": {"template": {}}});
    deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let copied = json!({
        "kind": "Deployment",
        "metadata": {"annotations": queue()},
        "spec": {"template": {"metadata": {"annotations": queue()}, "spec": plain_spec()}},
    });
    let mut injected = pod(&queue(), &plain_spec());
    injected = patched(
        &injected,
        &patch_of(&answer(&review("CREATE", &injected), &injection())).unwrap(),
    );
    let mirror = json!({"kubedaemon.io/queue": "q", "kubernetes.io/config.mirror": "x"});
    let rows = [
        (
            "CREATE",
            pod(&json!({"a": "b"}), &plain_spec()),
            "annotation_absent",
        ),
        (
            "CREATE",
            json!({"kind": "Pod", "spec": plain_spec()}),
            "annotation_absent",
        ),
        (
            "CREATE",
            pod(
                &json!({"kubedaemon.io/queue": "q", "kubedaemon.io/inject": "false"}),
                &plain_spec(),
            ),
            "disabled",
        ),
        (
            "CREATE",
            pod(&json!({"kubedaemon.io/timeout": "5s"}), &plain_spec()),
            "no_queue",
        ),
        ("CREATE", injected, "already_injected"),
        ("UPDATE", copied, "already_copied"),
        ("CREATE", with("hostNetwork", json!(true)), "host_network"),
        ("CREATE", pod(&mirror, &plain_spec()), "mirror_pod"),
        ("CREATE", with("os", json!({"name": "windows"})), "windows_node"),
        (
            "CREATE",
            with("nodeSelector", json!({"kubernetes.io/os": "windows"})),
            "windows_node",
        ),
        ("UPDATE", deleting, "deleting"),
        (
            "CREATE",
            json!({"kind": "DaemonSet", "metadata": {"annotations": queue()}}),
            "unsupported_kind",
        ),
        ("UPDATE", pod(&queue(), &plain_spec()), "unsupported_operation"),
    ];
    for (operation, object, expected) in &rows {
        assert_eq!(reason(operation, object), ("skip", *expected), "{object}");
        let response = answer(&review(operation, object), &injection());
        assert_eq!((&response["allowed"], patch_of(&response)), (&json!(true), None));
    }
    for reason in SkipReason::ALL {
        assert!(!reason.to_string().is_empty());
        assert!(
            rows.iter().any(|row| row.2 == reason.as_str()),
            "{reason:?} has no row"
        );
    }
    assert_eq!(PatchReason::ALL.len(), 2);
    let host = answer(&review("CREATE", &with("hostNetwork", json!(true))), &injection());
    assert!(
        warnings(&host)[0].starts_with("no sidecar, host_network: "),
        "{host}"
    );
}

#[test]
fn every_reason_is_in_the_reference() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/injection.md");
    let page = fs::read_to_string(page).unwrap();
    let skips = SkipReason::ALL.iter().map(|reason| reason.as_str());
    let denials = DenyReason::ALL.iter().map(|reason| reason.as_str());
    let patches = PatchReason::ALL.iter().map(|reason| reason.as_str());
    for reason in skips.chain(denials).chain(patches) {
        assert!(page.contains(&format!("| `{reason}` |")), "{reason}");
    }
}

#[test]
fn a_subresource_is_left_alone() {
    let mut scale = review("UPDATE", &json!({"kind": "Deployment", "spec": {"replicas": 1}}));
    scale["request"]["subResource"] = json!("scale");
    assert_eq!(
        answer(&scale, &injection()),
        json!({"uid": "u-1", "allowed": true})
    );
}

#[test]
fn deny_reasons() {
    let taken = json!({"containers": [{"name": "kubedaemon-sidecar"}]});
    let port =
        json!({"containers": [{"name": "app"}, {"name": "metrics", "ports": [{"containerPort": 9464}]}]});
    let rows = [
        (
            pod(
                &json!({"kubedaemon.io/queue": "q", "kubedaemon.io/timeout": "soon", "kubedaemon.io/port": "0"}),
                &plain_spec(),
            ),
            "bad_annotation",
            "kubedaemon.io/timeout is \"soon\", which",
        ),
        (
            pod(&queue(), &taken),
            "name_taken",
            "a container is named \"kubedaemon-sidecar\"",
        ),
        (
            pod(&queue(), &port),
            "port_taken",
            "container metrics has containerPort 9464",
        ),
        (
            pod(
                &json!({"kubedaemon.io/queue": "q", "kubedaemon.io/port": "9464"}),
                &plain_spec(),
            ),
            "port_taken",
            "kubedaemon.io/port is 9464",
        ),
        (
            pod(&json!({"kubedaemon.io/queue": 5}), &plain_spec()),
            "unreadable",
            "metadata.annotations[kubedaemon.io/queue] is 5",
        ),
        (
            json!({"kind": "StatefulSet", "metadata": {"annotations": queue()}}),
            "unreadable",
            "spec.template is missing",
        ),
        (
            json!({"kind": "Deployment", "metadata": {"annotations": {"kubedaemon.io/concurrency": "0"}}, "spec": {"template": {"spec": plain_spec()}}}),
            "bad_annotation",
            "kubedaemon.io/concurrency is \"0\", which is less than 1: write a whole number from 1 to 1000",
        ),
    ];
    for (object, expected, sentence) in &rows {
        assert_eq!(reason("CREATE", object), ("deny", *expected), "{object}");
        let response = answer(&review("CREATE", object), &injection());
        assert_eq!(
            (&response["allowed"], &response["status"]["code"]),
            (&json!(false), &json!(422))
        );
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(sentence), "{message}");
    }
    for reason in DenyReason::ALL {
        assert!(
            rows.iter().any(|row| row.1 == reason.as_str()),
            "{reason:?} has no row"
        );
    }
    let both = answer(&review("CREATE", &rows[0].0), &injection());
    assert!(
        both["status"]["message"]
            .as_str()
            .unwrap()
            .contains("; kubedaemon.io/"),
        "{both}"
    );
}

#[test]
fn a_denial_hides_the_password_of_a_broker() {
    let object = pod(
        &json!({"kubedaemon.io/broker": "http://ann:s3cret@h"}),
        &plain_spec(),
    );
    let response = answer(&review("CREATE", &object), &injection());
    assert_eq!(response["allowed"], false);
    assert!(!response.to_string().contains("s3cret"), "{response}");
}

#[test]
fn warnings_are_sentences() {
    let annotations =
        json!({"kubedaemon.io/queue": "q", "kubedaemon.io/timout": "5s", "kubedaemon.io/timeout": "90s"});
    let hook = json!({"preStop": {"sleep": {"seconds": 1}}});
    let spec =
        json!({"containers": [{"name": "app", "lifecycle": hook}], "terminationGracePeriodSeconds": 40});
    let config = Injection {
        broker_secret: None,
        ..injection()
    };
    let object = pod(&annotations, &spec);
    let response = answer(&review("CREATE", &object), &config);
    let said = warnings(&response);
    for expected in [
        "\"kubedaemon.io/timout\" is not known and has no effect: did you mean kubedaemon.io/timeout?",
        "terminationGracePeriodSeconds is 40, less than the 1m30s",
        "no port is named, so the worker is expected on 8080",
        "nothing says where the broker is",
        "container app has a preStop hook of its own, which is kept",
    ] {
        assert!(
            said.iter().any(|sentence| sentence.starts_with(expected)),
            "{expected}: {said:?}"
        );
    }
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(
        said.iter().all(|sentence| sentence.chars().count() <= 256),
        "{said:?}"
    );
    let changed = patched(&object, &patch_of(&response).unwrap());
    assert_eq!(changed["spec"]["containers"], spec["containers"]);
    assert_eq!(changed["spec"]["terminationGracePeriodSeconds"], 100);
    // Kubernetes writes 30 into every pod that says nothing: no reason for a warning.
    let mut usual = plain_spec();
    usual["terminationGracePeriodSeconds"] = json!(30);
    assert_eq!(
        warnings(&answer(&review("CREATE", &pod(&queue(), &usual)), &injection())),
        [] as [&str; 0]
    );
}

#[test]
fn a_pod_without_a_queue_gets_a_sidecar_when_it_asks_for_one() {
    let object = pod(
        &json!({"kubedaemon.io/inject": "true", "kubedaemon.io/broker": "amqp://ann:s3cret@h"}),
        &json!({"containers": [{"name": "app"}]}),
    );
    let config = Injection {
        broker_secret: None,
        ..injection()
    };
    let response = answer(&review("CREATE", &object), &config);
    let said = warnings(&response);
    assert!(
        said.len() == 1 && said[0].starts_with("no port is named"),
        "neither queue nor broker is missed: {said:?}"
    );
    let changed = patched(&object, &patch_of(&response).unwrap());
    assert_eq!(
        changed["spec"]["containers"], object["spec"]["containers"],
        "nothing in flight to wait for"
    );
    let env = changed["spec"]["initContainers"][0]["env"].as_array().unwrap();
    let names: Vec<&str> = env
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "KUBEDAEMON_PORT",
            "KUBEDAEMON_ADMIN",
            "KUBEDAEMON_REPORT_ONLY",
            "KUBEDAEMON_POD_NAME",
            "KUBEDAEMON_POD_NAMESPACE",
            "KUBEDAEMON_DRAIN_KEY"
        ]
    );
    let taken = pod(
        &json!({"kubedaemon.io/inject": "true"}),
        &json!({"containers": [{"name": "app", "ports": [{"containerPort": 9464}]}]}),
    );
    assert_eq!(reason("CREATE", &taken), ("deny", "port_taken"));
}

#[test]
fn without_a_key_nothing_is_said_about_it_and_without_a_path_the_worker_does_not_wait() {
    let config = Injection {
        drained_path: None,
        drain_key: None,
        ..injection()
    };
    let object = pod(&queue(), &plain_spec());
    let changed = patched(
        &object,
        &patch_of(&answer(&review("CREATE", &object), &config)).unwrap(),
    );
    assert_eq!(changed["spec"]["containers"], object["spec"]["containers"]);
    assert!(!changed.to_string().contains("KUBEDAEMON_DRAIN_KEY"), "{changed}");
}

#[test]
fn a_worker_waits_for_the_drain_when_the_sidecar_can_tell() {
    let config = injection();
    let hook = json!({"httpGet": {"path": "/drained", "port": 9464}});
    let with_lifecycle = json!({"containers": [{"name": "app", "lifecycle": {"postStart": {}}}]});
    for spec in [plain_spec(), with_lifecycle] {
        let object = pod(&queue(), &spec);
        let changed = patched(
            &object,
            &patch_of(&answer(&review("CREATE", &object), &config)).unwrap(),
        );
        assert_eq!(changed["spec"]["containers"][0]["lifecycle"]["preStop"], hook);
        assert_eq!(patch_of(&answer(&review("CREATE", &changed), &config)), None);
    }
}

#[test]
fn what_is_no_review_gets_a_sentence_and_a_review_without_object_a_refusal() {
    let config = injection();
    let v1 = "admission.k8s.io/v1";
    for body in [
        String::new(),
        "s3cret".to_owned(),
        "[]".to_owned(),
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "u"}})
            .to_string(),
        json!({"kind": "AdmissionReview", "apiVersion": v1}).to_string(),
        json!({"kind": "AdmissionReview", "apiVersion": v1, "request": {"uid": ""}}).to_string(),
    ] {
        let sentence = pipeline::answer(body.as_bytes(), &config).unwrap_err();
        assert!(
            sentence.ends_with("send an AdmissionReview of admission.k8s.io/v1 as JSON"),
            "{sentence}"
        );
        assert!(!sentence.contains("s3cret"), "{sentence}");
    }
    let empty = json!({"kind": "AdmissionReview", "apiVersion": v1, "request": {"uid": "u-9", "operation": "CREATE"}});
    let response = answer(&empty, &config);
    assert_eq!(
        (&response["allowed"], &response["uid"]),
        (&json!(false), &json!("u-9"))
    );
}

#[test]
fn what_a_workload_gave_its_template_is_taken_back_and_what_stood_there_returns() {
    let object = json!({
        "kind": "Deployment",
        "metadata": {"annotations": {"kubedaemon.io/queue": "new", "kubedaemon.io/path": "/in", "kubedaemon.io/max-replicas": "3"}},
        "spec": {"template": {"metadata": {"annotations": {"kubedaemon.io/queue": "old", "a": "b"}}, "spec": plain_spec()}},
    });
    let mut changed = patched(
        &object,
        &patch_of(&answer(&review("UPDATE", &object), &injection())).unwrap(),
    );
    let template = changed.pointer(TEMPLATE).unwrap();
    assert_eq!(
        (&template["kubedaemon.io/queue"], &template["kubedaemon.io/path"]),
        (&json!("new"), &json!("/in"))
    );
    assert_eq!(template.get("kubedaemon.io/max-replicas"), None);
    changed["metadata"]["annotations"] = json!({});
    let restored = patched(
        &changed,
        &patch_of(&answer(&review("UPDATE", &changed), &injection())).unwrap(),
    );
    assert_eq!(restored.pointer(TEMPLATE), object.pointer(TEMPLATE));
}
