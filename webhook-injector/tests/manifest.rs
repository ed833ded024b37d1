//! What is taken out of manifests, and what is said about those that cannot be used.

use proptest::prelude::*;
use std::time::Duration;
use webhook_injector::domain::model::decide;
use webhook_injector::manifest::{Container, EnvValue, EnvVar, Kind, Workload, read};

const FULL: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: orders
  namespace: shop
  uid: 00000000-0000-0000-0000-000000000000
  annotations: {a: workload, b: workload}
spec:
  replicas: 3
  somethingNew: {x: [1, 2]}
  template:
    metadata:
      annotations: {b: template, c: template, d: null}
    spec:
      terminationGracePeriodSeconds: 90
      initContainers: [{name: init}]
      containers:
        - name: app
          image: example.org/app:1
          command: [python3, worker.py]
          args: ["--level", "9"]
          workingDir: /srv
          env:
            - {name: PLAIN, value: "1"}
            - {name: EMPTY}
            - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
            - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
          envFrom:
            - {prefix: APP_, configMapRef: {name: settings}}
          ports:
            - {containerPort: 53, protocol: UDP}
            - {containerPort: 8000, name: http}
            - {containerPort: 9000, protocol: TCP}
        - name: helper
"#;

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: EnvValue::Plain(value.to_owned()),
    }
}

fn from_cluster(name: &str, source: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: EnvValue::FromCluster(source.to_owned()),
    }
}

#[test]
fn a_workload_is_taken_out_whole() {
    let annotations = [("a", "workload"), ("b", "workload"), ("c", "template"), ("d", "")];
    let app = Container {
        name: "app".to_owned(),
        image: "example.org/app:1".to_owned(),
        command: vec!["python3".to_owned(), "worker.py".to_owned()],
        args: vec!["--level".to_owned(), "9".to_owned()],
        env: vec![
            plain("PLAIN", "1"),
            plain("EMPTY", ""),
            from_cluster("PASSWORD", "secretKeyRef db/password"),
            from_cluster("POD", "fieldRef metadata.name"),
            from_cluster("APP_", "configMapRef settings"),
        ],
        working_dir: Some("/srv".to_owned()),
        ports: vec![8000, 9000],
    };
    let helper = Container {
        name: "helper".to_owned(),
        image: String::new(),
        command: vec![],
        args: vec![],
        env: vec![],
        working_dir: None,
        ports: vec![],
    };
    let expected = Workload {
        kind: Kind::StatefulSet,
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        annotations: annotations
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        replicas: Some(3),
        containers: vec![app, helper],
        termination_grace_period: Some(Duration::from_secs(90)),
    };
    assert_eq!(read("f", FULL), [Ok(expected)]);
}

#[test]
fn what_is_left_out_is_absent() {
    let found = read("f", "kind: Deployment\nmetadata: {name: a, namespace: ''}");
    let workload = found[0].as_ref().unwrap();
    assert_eq!(workload.to_string(), "Deployment default/a");
    assert_eq!(
        (workload.replicas, workload.termination_grace_period),
        (None, None)
    );
    assert!(workload.annotations.is_empty() && workload.containers.is_empty());
}

#[test]
fn documents_lists_and_json_are_all_read_in_order() {
    let text = "---\nkind: Deployment\nmetadata: {name: a}\n---\n# nothing\n---\n\
                kind: List\nitems:\n- {kind: Deployment, metadata: {name: b}}\n- {kind: Service}\n\
                ---\n{\"kind\": \"DeploymentList\", \"items\": [{\"kind\": \"Deployment\", \"metadata\": {\"name\": \"c\"}}]}\n\
                ---\nkind: List\nitems: []\n";
    let names: Vec<String> = read("f", text)
        .into_iter()
        .map(|found| found.unwrap().name)
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(read("f", ""), []);
    assert_eq!(read("f", "# only a comment\n---\n"), []);
}

#[test]
fn kinds_of_the_same_name_from_other_groups_are_passed_over() {
    assert_eq!(
        read(
            "f",
            "{apiVersion: example.org/v1, kind: Deployment, metadata: {name: a}}"
        ),
        []
    );
}

/// The specification of a Deployment, what is said about it after the file and the object.
const WRONG: &[(&str, &str)] = &[
    (
        "replicas: -1",
        "spec.replicas is -1, which is not accepted: write a whole number from 0 to 2147483647",
    ),
    (
        "replicas: '2'",
        "spec.replicas is \"2\", which is not accepted: write a whole number from 0 to 2147483647",
    ),
    (
        "template: {metadata: {annotations: [a]}}",
        "spec.template.metadata.annotations is not an object: write names with values",
    ),
    (
        "template: {metadata: {annotations: {a/b: true}}}",
        "spec.template.metadata.annotations[a/b] is true, which is not a string: write it in quotes",
    ),
    (
        "template: {spec: {containers: app}}",
        "spec.template.spec.containers is \"app\", which is not a list: write a list",
    ),
    (
        "template: {spec: {containers: [{}]}}",
        "spec.template.spec.containers[0].name is missing: write a name",
    ),
    (
        "template: {spec: {containers: [{name: a, args: [1]}]}}",
        "spec.template.spec.containers[0].args[0] is 1, which is not a string: write it in quotes",
    ),
    (
        "template: {spec: {containers: [{name: a, command: [{secret: s3cret}]}]}}",
        "spec.template.spec.containers[0].command[0] is not a string: write a string",
    ),
    (
        "template: {spec: {containers: [{name: a, env: [{name: B, value: 2}]}]}}",
        "spec.template.spec.containers[0].env[0].value is 2, which is not a string: write it in quotes",
    ),
    (
        "template: {spec: {containers: [{name: a, ports: [{containerPort: 0}]}]}}",
        "spec.template.spec.containers[0].ports[0].containerPort is 0, which is not accepted: write a whole number from 1 to 65535",
    ),
    (
        "template: {spec: {containers: [{name: a, ports: [{}]}]}}",
        "spec.template.spec.containers[0].ports[0].containerPort is missing: write a whole number from 1 to 65535",
    ),
    (
        "template: {spec: {terminationGracePeriodSeconds: 30s}}",
        "spec.template.spec.terminationGracePeriodSeconds is \"30s\", which is not accepted: write a whole number from 0 to 4294967295",
    ),
];

#[test]
fn a_workload_that_cannot_be_used_is_told_in_one_sentence() {
    for (spec, expected) in WRONG {
        let text = format!("kind: Deployment\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
        let found = read("app.yaml", &text);
        assert_eq!(found.len(), 1, "{spec}");
        let sentence = found[0].as_ref().unwrap_err().to_string();
        assert_eq!(sentence, format!("app.yaml: Deployment default/a: {expected}"));
    }
}

#[test]
fn bad_yaml_is_told_in_one_sentence_with_file_and_line() {
    let rows = [
        ("a: [\n", "app.yaml:"),
        (
            "a: b\n  c: d\n",
            "app.yaml:2:4: cannot be read as YAML or JSON: mapping values are not allowed",
        ),
        (
            "kind: a\nkind: b\n",
            "app.yaml:2:1: cannot be read as YAML or JSON: duplicate mapping key: kind",
        ),
        ("a: *nowhere\n", "app.yaml:1:4: cannot be read as YAML or JSON: "),
        (
            "{\"kind\": \"List\",, }",
            "app.yaml:1:17: cannot be read as YAML or JSON: ",
        ),
    ];
    for (text, beginning) in rows {
        let found = read("app.yaml", text);
        assert_eq!(found.len(), 1, "{text}");
        let sentence = found[0].as_ref().unwrap_err().to_string();
        assert!(sentence.starts_with(beginning), "{text}: {sentence}");
        assert!(
            !sentence.contains('\n') && !sentence.contains(" at line "),
            "{sentence}"
        );
    }
}

#[test]
fn yaml_that_explodes_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text = format!("{text}a{level}: &a{level} [{aliases}]\n");
    }
    let found = read("bomb.yaml", &text);
    let sentence = found[0].as_ref().unwrap_err().to_string();
    assert!(sentence.contains("too large or too complex"), "{sentence}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_told(text in ".{0,200}", spec in "[\\[\\]{}:, a-z0-9&*'\"#\n-]{0,80}") {
        for text in [text, format!("kind: Deployment\nmetadata: {{name: a}}\nspec: {spec}")] {
            for found in read("f", &text) {
                match found {
                    Ok(workload) => { let _ = decide(&workload); }
                    Err(error) => prop_assert!(error.to_string().starts_with("f:"), "{}", error),
                }
            }
        }
    }
}
