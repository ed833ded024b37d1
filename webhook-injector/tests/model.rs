//! Decisions, one row each: annotations and containers in, a decision out.

use contract::settings::SETTINGS;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use webhook_injector::domain::model::{Decision, Plan, SkipReason, decide};
use webhook_injector::manifest::{Container, Kind, Workload};

fn container(name: &str, ports: &[u16]) -> Container {
    Container {
        name: name.to_owned(),
        image: String::new(),
        command: vec![],
        args: vec![],
        env: vec![],
        working_dir: None,
        ports: ports.to_vec(),
    }
}

fn workload(annotations: &[(&str, &str)]) -> Workload {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Workload {
        kind: Kind::Deployment,
        namespace: "default".to_owned(),
        name: "orders".to_owned(),
        annotations: annotations.iter().map(own).collect(),
        replicas: None,
        containers: vec![container("app", &[]), container("helper", &[7000])],
        termination_grace_period: None,
    }
}

fn plan(workload: &Workload) -> Plan {
    match decide(workload) {
        Decision::Inject(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn problems(workload: &Workload) -> Vec<String> {
    match decide(workload) {
        Decision::Deny(problems) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn warnings(workload: &Workload) -> Vec<&'static str> {
    plan(workload)
        .warnings
        .iter()
        .map(webhook_injector::domain::model::Warning::as_str)
        .collect()
}

#[test]
fn annotation_absent() {
    let reason = Decision::Skip(SkipReason::AnnotationAbsent);
    assert_eq!(decide(&workload(&[])), reason);
    assert_eq!(
        decide(&workload(&[
            ("prometheus.io/port", "x"),
            ("x.kubedaemon.io/queue", "q")
        ])),
        reason
    );
    assert_eq!(
        decide(&Workload {
            containers: vec![],
            ..workload(&[])
        }),
        reason
    );
}

#[test]
fn disabled() {
    let annotations = [("kubedaemon.io/inject", "false"), ("kubedaemon.io/port", "wrong")];
    assert_eq!(
        decide(&workload(&annotations)),
        Decision::Skip(SkipReason::Disabled)
    );
}

#[test]
fn every_skip_reason_has_a_word_and_a_sentence() {
    let words: Vec<&str> = SkipReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words, ["annotation_absent", "disabled"]);
    assert!(
        SkipReason::ALL
            .iter()
            .all(|reason| !reason.to_string().is_empty())
    );
}

#[test]
fn a_queue_is_enough() {
    let plan = plan(&workload(&[("kubedaemon.io/queue", "orders")]));
    assert_eq!(plan.settings.queue.as_deref(), Some("orders"));
    assert_eq!(plan.worker.name, "app");
    assert_eq!(plan.warnings, []);
}

#[test]
fn the_port_is_the_annotation_then_the_first_container_port_then_the_default() {
    let queue = ("kubedaemon.io/queue", "orders");
    let with_ports = |annotations: &[(&str, &str)], ports: &[u16]| {
        let containers = vec![container("app", ports), container("helper", &[7000])];
        plan(&Workload {
            containers,
            ..workload(annotations)
        })
        .settings
        .port
    };
    assert_eq!(
        with_ports(&[queue, ("kubedaemon.io/port", "5000")], &[3000]),
        5000
    );
    assert_eq!(with_ports(&[queue], &[3000, 4000]), 3000);
    assert_eq!(with_ports(&[queue], &[]), 8080);
}

#[test]
fn a_wrong_value_of_any_setting_is_denied_by_its_annotation() {
    for setting in SETTINGS {
        let sentences = problems(&workload(&[(&setting.annotation(), "")]));
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        assert!(sentences[0].starts_with(&setting.annotation()), "{sentences:?}");
        assert!(sentences[0].ends_with(&setting.accepted()), "{sentences:?}");
    }
}

#[test]
fn no_container_is_denied() {
    let annotated = workload(&[("kubedaemon.io/queue", "orders")]);
    assert_eq!(
        problems(&Workload {
            containers: vec![],
            ..annotated
        }),
        ["spec.template.spec.containers is missing: write at least one container"]
    );
}

#[test]
fn inject_is_true_or_false() {
    assert_eq!(
        problems(&workload(&[
            ("kubedaemon.io/inject", "no"),
            ("kubedaemon.io/queue", "orders")
        ])),
        ["kubedaemon.io/inject is \"no\", which is neither \"true\" nor \"false\": write one of the two"]
    );
}

#[test]
fn unknown_annotation() {
    let workload = workload(&[("kubedaemon.io/queue", "orders"), ("kubedaemon.io/injct", "true")]);
    assert_eq!(warnings(&workload), ["unknown_annotation"]);
    assert_eq!(
        plan(&workload).warnings[0].to_string(),
        "\"kubedaemon.io/injct\" is not known and has no effect: did you mean kubedaemon.io/inject?"
    );
}

#[test]
fn no_queue() {
    assert_eq!(
        warnings(&workload(&[("kubedaemon.io/port", "3000")])),
        ["no_queue"]
    );
    let meant = workload(&[("kubedaemon.io/inject", "true")]);
    assert_eq!(warnings(&meant), [] as [&str; 0]);
    assert_eq!(plan(&meant).settings.queue, None);
}

#[test]
fn grace_period_too_short() {
    let with_grace = |seconds| Workload {
        termination_grace_period: Some(Duration::from_secs(seconds)),
        ..workload(&[
            ("kubedaemon.io/queue", "orders"),
            ("kubedaemon.io/timeout", "90s"),
        ])
    };
    assert_eq!(warnings(&with_grace(90)), [] as [&str; 0]);
    assert_eq!(warnings(&with_grace(89)), ["grace_period_too_short"]);
    let sentence = plan(&with_grace(89)).warnings[0].to_string();
    assert!(sentence.contains("is 89, less than the 1m30s"), "{sentence}");
}

proptest! {
    #[test]
    fn a_workload_is_denied_with_a_reason_injected_or_skipped(
        annotations in prop::collection::btree_map(
            prop_oneof![
                prop::sample::select(SETTINGS.iter().map(contract::settings::Setting::annotation).collect::<Vec<_>>()),
                Just("kubedaemon.io/inject".to_owned()),
                "(kubedaemon.io/)?[a-z/.-]{0,12}",
            ],
            prop_oneof![".{0,20}", "[0-9]{1,3}[smh]?", "true|false"],
            0..6,
        ),
        containers in 0..2_usize,
    ) {
        let ours = annotations.keys().any(|name| name.starts_with("kubedaemon.io/"));
        let containers = (0..containers).map(|_| container("app", &[80])).collect();
        let workload = Workload { annotations: BTreeMap::clone(&annotations), containers, ..workload(&[]) };
        match decide(&workload) {
            Decision::Deny(problems) => prop_assert!(ours && !problems.is_empty()),
            Decision::Inject(_) => prop_assert!(ours && !workload.containers.is_empty()),
            Decision::Skip(SkipReason::AnnotationAbsent) => prop_assert!(!ours),
            Decision::Skip(SkipReason::Disabled) => {
                prop_assert_eq!(annotations.get("kubedaemon.io/inject").map(String::as_str), Some("false"));
            }
        }
    }
}
