//! What holds for every object: it is changed once, only where it must be, and its sidecar reads what was written.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/reviews.rs"]
mod reviews;

use contract::pods::{DRAIN_KEY_ENV, POD_NAME_ENV, POD_NAMESPACE_ENV};
use contract::settings::{
    Annotations, Environment, Layered, Naming, SETTINGS, Setting, Settings, Source, parse,
};
use proptest::prelude::*;
use reviews::{answer, injection, patch_of, patched, pod, queue, review};
use serde_json::{Map, Value, json};
use webhook_injector::domain::pod::Injection;
use webhook_injector::pipeline;

const TEMPLATE: &str = "/spec/template/metadata/annotations";

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
    // What is no setting says which pod this is and who may drain it.
    let own = [POD_NAME_ENV, POD_NAMESPACE_ENV, DRAIN_KEY_ENV];
    let settings = env
        .iter()
        .filter(|variable| !own.contains(&variable["name"].as_str().unwrap()));
    let variables = settings.map(|variable| {
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
        "vhost" | "queue" | "dead-letter" | "response-queue" => "[a-z$(){}é ]{1,12}".boxed(),
        "path" | "init-path" => "/[a-z$()]{0,10}".boxed(),
        "port" | "max-attempts" | "concurrency" | "max-replicas" | "max-body-bytes" | "reply-max-bytes"
        | "remember-completed" => (1..900_u32).prop_map(|n| n.to_string()).boxed(),
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
    fn whatever_the_object_is_it_gets_one_answer_and_a_patch_fits(
        kind in prop::sample::select(vec!["Pod", "Deployment", "StatefulSet", "Job"]),
        (metadata, spec, template) in (unknown(), unknown(), unknown()),
        (is_ours, is_whole) in any::<(bool, bool)>(),
        (good, _) in spec(),
    ) {
        let mut object = json!({"kind": kind, "metadata": metadata, "spec": spec});
        if is_ours {
            object["metadata"] = json!({"annotations": queue()});
        }
        if is_whole {
            object["spec"] = if kind == "Pod" { good } else { json!({"template": {"metadata": template, "spec": good}}) };
        }
        let response = answer(&review("CREATE", &object), &injection());
        prop_assert!(is_ours || response["allowed"] == true, "{}", response);
        if let Some(patch) = patch_of(&response) {
            let changed = patched(&object, &patch);
            prop_assert_eq!(patch_of(&answer(&review("CREATE", &changed), &injection())), None);
        }
    }

    #[test]
    fn any_body_is_answered_or_told(body in prop_oneof![prop::collection::vec(any::<u8>(), 0..60), unknown().prop_map(|v| v.to_string().into_bytes())]) {
        prop_assert!(pipeline::answer(&body, &injection()).is_err());
    }

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
        let grace = changed["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
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
