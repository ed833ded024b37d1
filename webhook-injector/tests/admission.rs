//! Reviews from end to end without a network: what is answered, and what comes of the answer.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::settings::{
    Annotations, Environment, Layered, Naming, SETTINGS, Setting, Settings, Source, parse,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use webhook_injector::domain::admission::{DenyReason, PatchReason, SkipReason};
use webhook_injector::domain::pod::{Injection, SecretKey};
use webhook_injector::pipeline;

const TEMPLATE: &str = "/spec/template/metadata/annotations";

fn injection() -> Injection {
    Injection {
        image: "example.org/sidecar:1".to_owned(),
        broker_secret: Some(SecretKey {
            name: "kubedaemon-broker".to_owned(),
            key: "url".to_owned(),
        }),
        drained_path: None,
    }
}

fn review(operation: &str, object: &Value) -> Value {
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

fn answer(review: &Value, injection: &Injection) -> Value {
    let body = pipeline::answer(review.to_string().as_bytes(), injection).unwrap();
    let mut answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].take()
}

fn patch_of(response: &Value) -> Option<Value> {
    let patch = STANDARD.decode(response.get("patch")?.as_str()?).unwrap();
    assert_eq!(response["patchType"], "JSONPatch");
    assert_eq!(response["allowed"], true);
    Some(serde_json::from_slice(&patch).unwrap())
}

fn patched(object: &Value, patch: &Value) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

fn warnings(response: &Value) -> Vec<String> {
    let warnings = response.get("warnings").and_then(Value::as_array).cloned();
    warnings
        .into_iter()
        .flatten()
        .map(|w| w.as_str().unwrap().to_owned())
        .collect()
}

fn pod(annotations: &Value, spec: &Value) -> Value {
    json!({"kind": "Pod", "metadata": {"annotations": annotations}, "spec": spec})
}

fn plain_spec() -> Value {
    json!({"containers": [{"name": "app", "ports": [{"containerPort": 3000}]}]})
}

fn queue() -> Value {
    json!({"kubedaemon.io/queue": "orders"})
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
        drained_path: Some("/drained".to_owned()),
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
fn a_worker_waits_for_the_drain_when_the_sidecar_can_tell() {
    let config = Injection {
        drained_path: Some("/drained".to_owned()),
        ..injection()
    };
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

/// As Kubernetes expands values without any variable to refer to: `$$` is `$`, the rest stays.
fn expand(value: &str) -> String {
    let mut expanded = String::new();
    let mut rest = value.chars().peekable();
    while let Some(char) = rest.next() {
        expanded.push(char);
        if char == '$' {
            match rest.peek() {
                Some('$') => {
                    rest.next();
                }
                Some('(') => panic!("{value:?} refers to a variable"),
                _ => {}
            }
        }
    }
    expanded
}

/// What a sidecar in this pod would read from its environment.
fn settings_of_sidecar(pod: &Value, secret: &str) -> Settings {
    let containers = pod["spec"]["initContainers"].as_array().unwrap();
    let env = containers.last().unwrap()["env"].as_array().unwrap();
    let variables = env.iter().map(|variable| {
        let value = match (
            variable.get("value"),
            variable.pointer("/valueFrom/fieldRef/fieldPath"),
        ) {
            (Some(value), _) => expand(value.as_str().unwrap()),
            (None, Some(path)) => {
                let path = path.as_str().unwrap();
                let name = path
                    .strip_prefix("metadata.annotations['")
                    .unwrap()
                    .strip_suffix("']")
                    .unwrap();
                pod["metadata"]["annotations"][name].as_str().unwrap().to_owned()
            }
            (None, None) => {
                let reference = &variable["valueFrom"]["secretKeyRef"];
                assert_eq!(*reference, json!({"name": "kubedaemon-broker", "key": "url"}));
                secret.to_owned()
            }
        };
        (variable["name"].as_str().unwrap().to_owned(), value)
    });
    parse(&Environment::new(variables)).unwrap()
}

struct ContainerPort(Option<u16>);

impl Source for ContainerPort {
    fn get(&self, setting: &Setting) -> Option<String> {
        self.0
            .filter(|_| setting.name == "port")
            .map(|port| port.to_string())
    }

    fn name(&self, setting: &Setting) -> String {
        setting.annotation()
    }
}

fn value(setting: &'static str) -> BoxedStrategy<String> {
    match setting {
        "broker" => prop_oneof![
            Just("amqp://127.0.0.1".to_owned()),
            Just("amqps://ann:p@$(X)$$/w@broker.example/team".to_owned()),
        ]
        .boxed(),
        "vhost" | "queue" | "dead-letter" => "[a-z$(){}é ]{1,12}".boxed(),
        "path" => "/[a-z$()]{0,10}".boxed(),
        "port" | "max-attempts" | "concurrency" | "max-replicas" => {
            (1..900_u32).prop_map(|n| n.to_string()).boxed()
        }
        "min-replicas" => "[01]".boxed(),
        "messages-per-replica" => "[1-9]".boxed(),
        "retry-backoff" => prop_oneof![Just("2s".to_owned()), Just("1s..10m".to_owned())].boxed(),
        _ => (1..200_u32).prop_map(|n| format!("{n}s")).boxed(),
    }
}

/// Settings by their annotations, and the queue always.
fn annotations() -> impl Strategy<Value = Map<String, Value>> {
    let each = SETTINGS.iter().map(|setting| {
        let value = value(setting.name);
        let value = if setting.name == "queue" {
            value.prop_map(Some).boxed()
        } else {
            prop::option::weighted(0.4, value).boxed()
        };
        value.prop_map(|value| (setting.annotation(), value))
    });
    let others = prop::collection::btree_map("[a-z]{1,3}(/[a-z~]{1,3})?", "[a-z]{0,4}", 0..3);
    (each.collect::<Vec<_>>(), others).prop_map(|(settings, others)| {
        let ours = settings
            .into_iter()
            .filter_map(|(name, value)| Some((name, json!(value?))));
        ours.chain(others.into_iter().map(|(name, value)| (name, json!(value))))
            .collect()
    })
}

/// Anything that Kubernetes might add one day.
fn unknown() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z/~]{0,4}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn spec()(
        port in prop::option::of(1..9000_u16),
        grace in prop::option::of(0..300_u32),
        init in prop::option::of(prop::collection::vec(unknown(), 0..3)),
        lifecycle in prop::option::of(prop_oneof![Just(json!({"preStop": {}})), Just(json!({"postStart": {}}))]),
        unknown in unknown(),
    ) -> (Value, Option<u16>) {
        let mut container = json!({"name": "app", "aFieldOfNextYear": unknown});
        if let Some(port) = port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if let Some(lifecycle) = lifecycle {
            container["lifecycle"] = lifecycle;
        }
        let mut spec = json!({"containers": [container], "aFieldOfNextYear": unknown});
        if let Some(grace) = grace {
            spec["terminationGracePeriodSeconds"] = json!(grace);
        }
        if let Some(init) = init {
            spec["initContainers"] = json!(init);
        }
        (spec, port)
    }
}

proptest! {
    #[test]
    fn a_pod_is_changed_once_and_only_where_it_must_be_and_its_sidecar_reads_what_was_written(
        annotations in annotations(), (spec, port) in spec(), drained in any::<bool>(),
    ) {
        const SECRET: &str = "amqp://secret.example/s";
        let config = Injection { drained_path: drained.then(|| "/drained".to_owned()), ..injection() };
        let object = pod(&Value::Object(annotations.clone()), &spec);
        let response = answer(&review("CREATE", &object), &config);
        let written: Vec<(String, String)> =
            annotations.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        let secret = Annotations::new([("kubedaemon.io/broker".to_owned(), SECRET.to_owned())]);
        let port = ContainerPort(port);
        let Ok(settings) = parse(&Layered(&[&Annotations::new(written), &secret, &port])) else {
            prop_assert_eq!(&response["allowed"], false);
            return Ok(());
        };
        let patch = patch_of(&response).unwrap();
        prop_assert!(!patch.to_string().contains("p@$(X)"), "a password was copied");
        let changed = patched(&object, &patch);
        prop_assert_eq!(patch_of(&answer(&review("CREATE", &changed), &config)), None);
        let grace = changed["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        prop_assert!(grace >= settings.timeout.as_secs() + 10);
        prop_assert_eq!(settings_of_sidecar(&changed, SECRET), settings);

        let mut without = changed;
        let init = without["spec"]["initContainers"].as_array_mut().unwrap();
        init.pop();
        if init.is_empty() && spec.get("initContainers").is_none() {
            without["spec"].as_object_mut().unwrap().remove("initContainers");
        }
        without["metadata"]["annotations"].as_object_mut().unwrap().remove("kubedaemon.io/status");
        match spec.get("terminationGracePeriodSeconds") {
            Some(grace) => without["spec"]["terminationGracePeriodSeconds"] = grace.clone(),
            None => {
                without["spec"].as_object_mut().unwrap().remove("terminationGracePeriodSeconds");
            }
        }
        if drained {
            without["spec"]["containers"] = spec["containers"].clone();
        }
        prop_assert_eq!(without.to_string(), object.to_string());
    }

    #[test]
    fn a_template_gets_annotations_once_and_loses_them_again(
        own in annotations(), there in prop::option::of(annotations()), (spec, _) in spec(),
    ) {
        let mut object = json!({
            "kind": "Deployment",
            "metadata": {"annotations": own},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}, "aFieldOfNextYear": spec},
        });
        if let Some(there) = &there {
            object["spec"]["template"]["metadata"]["annotations"] = json!(there);
        }
        let response = answer(&review("UPDATE", &object), &injection());
        if response["allowed"] == false {
            return Ok(());
        }
        let changed = patch_of(&response).map_or_else(|| object.clone(), |patch| patched(&object, &patch));
        prop_assert_eq!(patch_of(&answer(&review("UPDATE", &changed), &injection())), None);
        for setting in SETTINGS.iter().filter(|s| s.components.contains(&contract::settings::Component::Sidecar)) {
            let name = setting.annotation();
            let on_template = changed.pointer(TEMPLATE).and_then(|annotations| annotations.get(&name));
            let expected = own.get(&name).or_else(|| there.as_ref().and_then(|there| there.get(&name)));
            prop_assert_eq!(on_template, expected);
        }
        let mut bare = changed;
        bare["metadata"]["annotations"].as_object_mut().unwrap().retain(|name, _| !Naming::Annotation.has_prefix(name));
        let response = answer(&review("UPDATE", &bare), &injection());
        if response["allowed"] == false {
            return Ok(());
        }
        let restored = patch_of(&response).map_or_else(|| bare.clone(), |patch| patched(&bare, &patch));
        let mut expected = object;
        expected["metadata"]["annotations"] = restored["metadata"]["annotations"].clone();
        expected["spec"]["template"]["metadata"]["annotations"] = json!(there.unwrap_or_default());
        let mut restored = restored;
        if restored.pointer(TEMPLATE).is_none() {
            restored["spec"]["template"]["metadata"]["annotations"] = json!({});
        }
        prop_assert_eq!(restored.to_string(), expected.to_string());
    }
}
