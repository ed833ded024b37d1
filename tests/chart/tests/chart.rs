//! The chart without a cluster: what it renders, what it refuses, and that documents and code say the same.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use chart::{NAMESPACE, Rendering, helm, objects, read, render, root, values_table};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{pointer} in {value}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn words(value: &Value, pointer: &str) -> BTreeSet<String> {
    list(value, pointer)
        .iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

fn joined(value: &Value, pointer: &str) -> String {
    let words: Vec<_> = list(value, pointer)
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    words.join(" ")
}

fn of_kind(rendering: Rendering, kind: &str) -> Vec<Value> {
    let mut objects = rendering.objects();
    objects.retain(|object| object["kind"] == kind);
    objects
}

#[test]
fn helm_finds_nothing_to_say() {
    for rendering in Rendering::ALL {
        let values = rendering.values();
        let said = helm(&["lint", "--strict", "charts/kubedaemon", "--values", &values]).unwrap();
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    }
}

/// A golden file that is missing is written, and fails the test: look at it, then run again.
#[test]
fn what_is_rendered_is_as_looked_at() {
    let mut missing = 0;
    for rendering in Rendering::ALL {
        let path = root().join(format!("tests/chart/golden/{}.yaml", rendering.as_str()));
        let manifest = rendering.manifest();
        let Ok(golden) = std::fs::read_to_string(&path) else {
            std::fs::write(&path, manifest).unwrap();
            missing += 1;
            continue;
        };
        assert!(
            golden == manifest,
            "{} differs from what the chart renders: remove it, run again, and look at what changed",
            path.display()
        );
    }
    assert_eq!(missing, 0, "golden files were missing and are written now");
}

/// Values, and what is said about them.
const WRONG: [(&str, &str); 29] = [
    (
        "brokr.url=amqp://rabbit",
        "additional properties 'brokr' not allowed",
    ),
    (
        "broker.uri=amqp://rabbit",
        "at '/broker': additional properties 'uri' not allowed",
    ),
    (
        "broker.url=https://rabbit:p4ss",
        "broker.url is no address of a broker: write one such as",
    ),
    (
        "broker.url=amqp://a b",
        "broker.url is no address of a broker: write one such as",
    ),
    ("broker.secretName=", "at '/broker/secretName'"),
    (
        "broker.secretName=Rabbit",
        "at '/broker/secretName': 'Rabbit' does not match pattern",
    ),
    (
        "broker.secretKey=a/b",
        "at '/broker/secretKey': 'a/b' does not match pattern",
    ),
    (
        "image.pullPolicy=always",
        "value must be one of 'Always', 'IfNotPresent', 'Never'",
    ),
    (
        "image.digest=sha256:0",
        "at '/image': additional properties 'digest' not allowed",
    ),
    (
        "image.digests.sidecar=latest",
        "at '/image/digests/sidecar': 'latest' does not match pattern",
    ),
    ("image.tag=a:b", "at '/image/tag': 'a:b' does not match pattern"),
    ("image.registry=registry.example/", "at '/image/registry'"),
    (
        "image.pullSecrets=pull",
        "at '/image/pullSecrets': got string, want array",
    ),
    (
        "injector.replicas=0",
        "at '/injector/replicas': minimum: got 0, want 1",
    ),
    (
        "autoscaler.replicas=two",
        "at '/autoscaler/replicas': got string, want integer",
    ),
    (
        "injector.failurePolicy=Maybe",
        "value must be one of 'Fail', 'Ignore'",
    ),
    (
        "injector.timeoutSeconds=31",
        "at '/injector/timeoutSeconds': maximum: got 31, want 30",
    ),
    (
        "activator.wakeTimeout=60",
        "at '/activator/wakeTimeout': got number, want string",
    ),
    (
        "activator.wakeTimeout=soon",
        "at '/activator/wakeTimeout': 'soon' does not match pattern",
    ),
    (
        "activator.takeover=true",
        "at '/activator/takeover': got boolean, want object",
    ),
    ("activator.takeover.ports=20000", "at '/activator/takeover/ports'"),
    ("activator.service.port=65536", "maximum: got 65,536, want 65,535"),
    (
        "activator.service.type=LoadBalancer",
        "additional properties 'type' not allowed",
    ),
    ("log.format=xml", "value must be one of 'json', 'text'"),
    (
        "networkPolicy.enabled=1",
        "at '/networkPolicy/enabled': got number, want boolean",
    ),
    ("serviceMonitor.interval=often", "'often' does not match pattern"),
    ("extraEnv[0].value=x", "at '/extraEnv/0': missing property 'name'"),
    (
        "watchNamespace=a.b",
        "at '/watchNamespace': 'a.b' does not match pattern",
    ),
    (
        "watchNamespace=kubedaemon-system",
        "watchNamespace is kubedaemon-system, the namespace of the chart itself",
    ),
];

#[test]
fn wrong_values_are_refused_with_a_sentence() {
    let mut unlike = Vec::new();
    for (value, sentence) in WRONG {
        match render(&["--set", value]) {
            Err(said) if said.contains(sentence) => {
                assert!(!said.contains("p4ss"), "{value} shows a password: {said}");
            }
            Err(said) => unlike.push(format!("{value}: {said}")),
            Ok(_) => unlike.push(format!("{value} is accepted")),
        }
    }
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

#[test]
fn kubernetes_before_native_sidecars_is_refused() {
    let said = render(&["--kube-version", "1.28.15"]).unwrap_err();
    assert!(said.contains("chart requires kubeVersion: >=1.29.0-0"), "{said}");
    for version in ["1.29.0", "1.29.0-eks-1", "1.36.3"] {
        render(&["--kube-version", version]).unwrap();
    }
}

#[test]
fn the_readme_has_every_value() {
    let readme = read("charts/kubedaemon/README.md");
    let (_, table) = readme.split_once("## Values\n\n").unwrap_or_default();
    assert!(
        table == values_table(&read("charts/kubedaemon/values.yaml")),
        "the table in charts/kubedaemon/README.md is not that of values.yaml: cargo run -p chart --example readme"
    );
}

/// Helm checks the defaults against the schema at each rendering, so what is in values.yaml is in the schema.
#[test]
fn every_value_of_the_schema_has_a_default() {
    fn check(schema: &Value, values: &Value, path: &str) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let value = values.get(name);
            if (path, name.as_str()) == ("", "global") {
                continue;
            }
            assert!(
                value.is_some(),
                "{path}.{name} is in the schema and not in values.yaml"
            );
            check(inner, value.unwrap(), &format!("{path}.{name}"));
        }
    }
    let schema: Value = serde_json::from_str(&read("charts/kubedaemon/values.schema.json")).unwrap();
    let values = &objects(&read("charts/kubedaemon/values.yaml"))[0];
    check(&schema, values, "");
}

#[test]
fn everything_really_changes_every_value() {
    fn leaves(value: &Value, path: &str, into: &mut Vec<(String, Value)>) {
        match value.as_object() {
            Some(object) if !object.is_empty() => {
                for (key, inner) in object {
                    leaves(inner, &format!("{path}/{key}"), into);
                }
            }
            _ => into.push((path.to_owned(), value.clone())),
        }
    }
    let given = &objects(&read(&Rendering::Everything.values()))[0];
    let mut defaults = Vec::new();
    leaves(
        &objects(&read("charts/kubedaemon/values.yaml"))[0],
        "",
        &mut defaults,
    );
    let untouched: Vec<String> = defaults
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| given.pointer(path).is_none())
        // Those of one namespace have a rendering of their own; what is shared by several is seen at one of them.
        .filter(|path| !path.starts_with("/watchNamespace") && !path.contains("/resources/"))
        .filter(|path| !path.starts_with("/image/digests/"))
        .collect();
    assert!(untouched.is_empty(), "not in everything.yaml: {untouched:?}");
}

#[test]
fn versions_are_those_of_the_programs() {
    let chart = &objects(&read("charts/kubedaemon/Chart.yaml"))[0];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text(chart, "/version"), version);
    assert_eq!(text(chart, "/appVersion"), version);
    let images = text(chart, "/annotations/artifacthub.io~1images");
    let images = objects(images);
    let images: Vec<&str> = images[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| text(image, "/image"))
        .collect();
    let expected: Vec<String> = ["activator", "autoscaler", "sidecar", "webhook-injector"]
        .iter()
        .map(|component| format!("kubedaemon/{component}:{version}"))
        .collect();
    assert_eq!(images, expected);
    let script = read("tools/images");
    for component in ["activator", "autoscaler", "sidecar", "webhook-injector"] {
        assert!(
            script.contains(component),
            "tools/images does not build {component}"
        );
    }
}

#[test]
fn the_api_server_asks_what_the_injector_is_tested_with() {
    let tested = read("webhook-injector/webhook-configuration.yaml")
        .replace("WEBHOOK_NAME", "kubedaemon-injector")
        .replace("SERVICE_NAME", "kubedaemon-injector")
        .replace("RELEASE_NAMESPACE", NAMESPACE);
    let rendered = of_kind(Rendering::Defaults, "MutatingWebhookConfiguration");
    assert_eq!(rendered.len(), 1);
    assert_eq!(rendered[0]["webhooks"], objects(&tested)[0]["webhooks"]);
}

#[test]
fn the_injector_may_what_it_is_tested_with() {
    let tested = read("webhook-injector/permissions.yaml").replace("WEBHOOK_NAME", "kubedaemon-injector");
    let tested = objects(&tested);
    for kind in ["Role", "ClusterRole"] {
        let mut rendered = of_kind(Rendering::Defaults, kind);
        rendered.retain(|role| text(role, "/metadata/name") == "kubedaemon-injector");
        let mut tested = tested.clone();
        tested.retain(|role| role["kind"] == kind);
        assert_eq!((rendered.len(), tested.len()), (1, 1), "{kind}");
        assert_eq!(rendered[0]["rules"], tested[0]["rules"], "{kind}");
    }
}

/// Everything that anybody may change in the chart's own namespace: role, resources, names, verb.
const OWN: [(&str, &str, &str, &str); 4] = [
    ("kubedaemon-autoscaler", "leases", "", "create"),
    (
        "kubedaemon-autoscaler",
        "leases",
        "kubedaemon-autoscaler",
        "patch",
    ),
    ("kubedaemon-injector", "secrets", "", "create"),
    (
        "kubedaemon-injector",
        "secrets",
        "kubedaemon-injector-tls kubedaemon-drain-key",
        "patch",
    ),
];

/// Everything that anybody may change everywhere.
const EVERYWHERE: [(&str, &str, &str, &str); 10] = [
    (
        "kubedaemon-activator",
        "deployments/scale statefulsets/scale",
        "",
        "patch",
    ),
    ("kubedaemon-activator", "endpointslices", "", "create"),
    ("kubedaemon-activator", "endpointslices", "", "delete"),
    ("kubedaemon-activator", "endpointslices", "", "patch"),
    ("kubedaemon-autoscaler", "deployments statefulsets", "", "patch"),
    (
        "kubedaemon-autoscaler",
        "deployments/scale statefulsets/scale",
        "",
        "patch",
    ),
    ("kubedaemon-autoscaler", "events", "", "create"),
    ("kubedaemon-autoscaler", "events", "", "patch"),
    ("kubedaemon-autoscaler", "pods", "", "patch"),
    (
        "kubedaemon-injector",
        "mutatingwebhookconfigurations",
        "kubedaemon-injector",
        "patch",
    ),
];

/// A new permission has to be written down above as well.
#[test]
fn nobody_may_change_more_than_this() {
    for (kind, allowed) in [("Role", &OWN[..]), ("ClusterRole", &EVERYWHERE[..])] {
        let mut found = Vec::new();
        for role in of_kind(Rendering::Defaults, kind) {
            let name = text(&role, "/metadata/name");
            for rule in list(&role, "/rules") {
                assert!(!rule.to_string().contains('*'), "{name} has a wildcard: {rule}");
                let (resources, names) = (joined(rule, "/resources"), joined(rule, "/resourceNames"));
                for verb in words(rule, "/verbs") {
                    if !["get", "list", "watch"].contains(&verb.as_str()) {
                        found.push(format!("{name} {resources} {names} {verb}"));
                    } else if resources.contains("secrets") {
                        assert!(!names.is_empty(), "{name} reads Secrets of any name");
                        assert_eq!(kind, "Role", "{name} reads Secrets of other namespaces");
                    }
                }
            }
        }
        let expected = allowed
            .iter()
            .map(|(role, resources, names, verb)| format!("{role} {resources} {names} {verb}"));
        let mut expected: Vec<String> = expected.collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn with_one_namespace_nothing_is_granted_elsewhere() {
    let roles = of_kind(Rendering::OneNamespace, "ClusterRole");
    let names: Vec<_> = roles.iter().map(|role| text(role, "/metadata/name")).collect();
    assert_eq!(
        names,
        ["kubedaemon-injector"],
        "its own webhook configuration belongs to no namespace"
    );
    let places: BTreeSet<_> = of_kind(Rendering::OneNamespace, "Role")
        .iter()
        .map(|role| text(role, "/metadata/namespace").to_owned())
        .collect();
    assert_eq!(places, BTreeSet::from([NAMESPACE.to_owned(), "shop".to_owned()]));
    for deployment in of_kind(Rendering::OneNamespace, "Deployment") {
        let arguments = words(&deployment, "/spec/template/spec/containers/0/args");
        let injects = text(&deployment, "/metadata/name") == "kubedaemon-injector";
        assert_eq!(arguments.contains("--watch-namespace=shop"), !injects);
    }
    let webhooks = &of_kind(Rendering::OneNamespace, "MutatingWebhookConfiguration")[0];
    for webhook in list(webhooks, "/webhooks") {
        let only = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop"]});
        assert!(list(webhook, "/namespaceSelector/matchExpressions").contains(&only));
    }
}

#[test]
fn pods_are_restricted_and_probed_and_bounded() {
    for rendering in Rendering::ALL {
        let deployments = of_kind(rendering, "Deployment");
        assert_eq!(deployments.len(), 3);
        for deployment in deployments {
            let pod = &deployment["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["runAsUser"], 65532);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(
                container["securityContext"]["capabilities"],
                json!({"drop": ["ALL"]})
            );
            assert_eq!(pod["enableServiceLinks"], false, "they would look like settings");
            assert_eq!(
                container["livenessProbe"]["httpGet"],
                json!({"path": "/healthz", "port": "admin"})
            );
            assert_eq!(
                container["readinessProbe"]["httpGet"],
                json!({"path": "/readyz", "port": "admin"})
            );
            assert!(container["resources"]["requests"]["memory"].is_string());
            assert!(container["resources"]["limits"]["memory"].is_string());
            assert!(words(container, "/args").contains("--admin=0.0.0.0:9464"));
            assert!(
                !container.to_string().contains("p%40ss"),
                "the address is given by reference only"
            );
        }
    }
}

#[test]
fn another_broker_replaces_the_pods_that_use_it() {
    let checksums = |url: &str| -> Vec<Value> {
        objects(&render(&["--set", &format!("broker.url={url}")]).unwrap())
            .iter()
            .filter(|object| object["kind"] == "Deployment")
            .map(|object| object["spec"]["template"]["metadata"]["annotations"]["checksum/broker"].clone())
            .collect()
    };
    let (one, other) = (checksums("amqp://one"), checksums("amqp://other"));
    let changed: Vec<bool> = one.iter().zip(&other).map(|(one, other)| one != other).collect();
    assert_eq!(
        changed,
        [true, true, false],
        "the activator's, the autoscaler's, not the injector's"
    );
}
