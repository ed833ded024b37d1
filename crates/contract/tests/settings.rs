//! Every setting: its default, its wrong values, its names, and the rules between settings.

use contract::settings::{
    Annotations, Environment, Flags, Layered, Naming, RetryBackoff, SETTINGS, Settings, Source, parse,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// A source that writes names in one of the three ways.
fn source(naming: Naming, values: &[(&str, &str)]) -> Box<dyn Source> {
    let full = values
        .iter()
        .map(|(name, value)| (naming.write(name), (*value).to_owned()));
    match naming {
        Naming::Annotation => Box::new(Annotations::new(full)),
        Naming::Env => Box::new(Environment::new(full)),
        Naming::Flag => Box::new(Flags::new(
            values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )),
    }
}

fn settings(values: &[(&str, &str)]) -> Settings {
    parse(&*source(Naming::Annotation, values)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(naming: Naming, values: &[(&str, &str)]) -> Vec<String> {
    parse(&*source(naming, values))
        .expect_err("something is wrong")
        .into_iter()
        .map(|problem| problem.to_string())
        .collect()
}

#[test]
fn every_default_is_as_documented() {
    let settings = settings(&[]);
    assert_eq!(settings.broker.to_string(), "amqp://guest@127.0.0.1:5672/");
    assert_eq!(settings.queue, None);
    assert_eq!(settings.dead_letter, None);
    assert_eq!(settings.port, 8080);
    assert_eq!(settings.path, "/message");
    assert_eq!((settings.concurrency, settings.prefetch), (1, None));
    assert_eq!(settings.timeout, Duration::from_mins(1));
    assert_eq!(settings.max_attempts, 5);
    assert_eq!(
        settings.retry_backoff,
        RetryBackoff {
            min: Duration::from_secs(1),
            max: Duration::from_mins(5)
        }
    );
    assert_eq!(
        (settings.response_queue, settings.reply_max_bytes),
        (None, 1024 * 1024)
    );
    assert_eq!(settings.max_defer, Duration::from_mins(25));
    assert_eq!(settings.remember_completed, 10_000);
    assert_eq!((settings.min_replicas, settings.max_replicas), (0, 10));
    assert_eq!(settings.messages_per_replica, 10);
    assert_eq!(settings.cool_down, Duration::from_mins(1));
}

#[test]
fn every_default_that_is_written_out_is_the_one_that_applies() {
    let written: Vec<(&str, &str)> = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.name, setting.default?)))
        .collect();
    assert_eq!(settings(&written), settings(&[]));
    for setting in SETTINGS {
        assert!(
            setting.default.is_some() == setting.default_note.is_empty(),
            "{}",
            setting.name
        );
    }
}

#[test]
fn values_are_read() {
    let settings = settings(&[
        ("broker", "amqps://ann:p@ss@broker/ignored"),
        ("vhost", "team"),
        ("queue", "orders"),
        ("port", "3000"),
        ("path", "/in?x=1"),
        ("init-path", "/init"),
        ("concurrency", "1000"),
        ("prefetch", "2000"),
        ("timeout", "1m30s"),
        ("max-attempts", "1"),
        ("retry-backoff", "200ms..2s"),
        ("response-queue", "results"),
        ("max-body-bytes", "536870912"),
        ("reply-max-bytes", "16777216"),
        ("max-defer", "24h"),
        ("remember-completed", "0"),
        ("min-replicas", "2"),
        ("max-replicas", "2"),
        ("messages-per-replica", "100000"),
        ("cool-down", "0s"),
    ]);
    assert_eq!(settings.broker.reveal(), "amqps://ann:p%40ss@broker:5671/team");
    assert_eq!(settings.dead_letter.as_deref(), Some("orders.dead"));
    let effective: BTreeMap<&str, String> = settings
        .effective()
        .into_iter()
        .map(|(setting, value)| (setting.name, value))
        .collect();
    let expected = [
        ("broker", "amqps://ann@broker:5671/team"),
        ("concurrency", "1000"),
        ("cool-down", "0s"),
        ("dead-letter", "orders.dead"),
        ("init-path", "/init"),
        ("max-attempts", "1"),
        ("max-defer", "24h"),
        ("max-replicas", "2"),
        ("messages-per-replica", "100000"),
        ("min-replicas", "2"),
        ("path", "/in?x=1"),
        ("port", "3000"),
        ("prefetch", "2000"),
        ("queue", "orders"),
        ("remember-completed", "0"),
        ("max-body-bytes", "536870912"),
        ("reply-max-bytes", "16777216"),
        ("response-queue", "results"),
        ("retry-backoff", "200ms..2s"),
        ("timeout", "1m30s"),
        ("vhost", "team"),
    ];
    assert_eq!(
        effective,
        expected.map(|(name, value)| (name, value.to_owned())).into()
    );
}

#[test]
fn what_is_effective_can_be_written_again() {
    let before = settings(&[
        ("queue", "orders"),
        ("response-queue", "results"),
        ("init-path", "/init"),
        ("prefetch", "3"),
        ("retry-backoff", "10m"),
        ("broker", "amqp://broker/team"),
    ]);
    let effective = before.effective();
    let values: Vec<(&str, &str)> = effective
        .iter()
        .map(|(setting, value)| (setting.name, value.as_str()))
        .collect();
    assert_eq!(values.len(), SETTINGS.len(), "every setting is shown");
    assert_eq!(settings(&values), before);
}

#[test]
fn one_duration_alone_is_the_first_pause() {
    let pause = |text| settings(&[("retry-backoff", text)]).retry_backoff;
    let five_minutes = Duration::from_mins(5);
    assert_eq!(
        pause("2s"),
        RetryBackoff {
            min: Duration::from_secs(2),
            max: five_minutes
        }
    );
    assert_eq!(
        pause("10m"),
        RetryBackoff {
            min: 2 * five_minutes,
            max: 2 * five_minutes
        }
    );
}

/// Setting, wrong value, what is wrong with it.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "broker",
        "http://broker",
        "does not begin with amqp:// or amqps://",
    ),
    ("broker", "amqp://", "names no host"),
    ("vhost", "a\nb", "has a control character in it"),
    (
        "queue",
        "amq.direct",
        "begins with amq., which is reserved for the broker",
    ),
    ("queue", "a\u{7}", "has a control character in it"),
    ("port", "0", "is less than 1"),
    ("port", "65536", "is more than 65535"),
    ("port", "http", "is not a whole number"),
    ("port", "99999999999999999999", "is more than 65535"),
    ("path", "message", "does not begin with /"),
    ("path", "/a b", "has a space in it that is not written as %20"),
    (
        "path",
        "/a\r\nb",
        "has a character in it that must be percent-encoded",
    ),
    (
        "path",
        "/a#b",
        "has a # in it, and what follows a # is never sent",
    ),
    ("path", "/é", "has a character in it that must be percent-encoded"),
    ("init-path", "init", "does not begin with /"),
    ("concurrency", "0", "is less than 1"),
    ("concurrency", "1001", "is more than 1000"),
    ("concurrency", "-1", "is negative"),
    ("concurrency", "+1", "is not a whole number"),
    ("concurrency", "1.5", "is not a whole number"),
    ("prefetch", "0", "is less than 1"),
    ("prefetch", "2001", "is more than 2000"),
    ("timeout", "60", "has no unit"),
    ("timeout", "0s", "is shorter than 1ms"),
    ("timeout", "25h", "is longer than 24h"),
    ("timeout", "-1s", "is negative"),
    ("max-attempts", "0", "is less than 1"),
    ("max-attempts", "five", "is not a whole number"),
    (
        "retry-backoff",
        "5m..1s",
        "has a first duration that is longer than the second",
    ),
    (
        "retry-backoff",
        "0s..1s",
        "has a first duration that is shorter than 1ms",
    ),
    ("retry-backoff", "1s..", "has a second duration that is empty"),
    ("retry-backoff", "1..5m", "has a first duration that has no unit"),
    (
        "retry-backoff",
        "1s..48h",
        "has a second duration that is longer than 24h",
    ),
    (
        "retry-backoff",
        "1s-5m",
        "has a unit that is none of ns, us, ms, s, m, h",
    ),
    (
        "dead-letter",
        "amq.dead",
        "begins with amq., which is reserved for the broker",
    ),
    (
        "response-queue",
        "amq.rabbitmq.reply-to",
        "begins with amq., which is reserved for the broker",
    ),
    ("max-body-bytes", "0", "is less than 1"),
    ("max-body-bytes", "536870913", "is more than 536870912"),
    ("reply-max-bytes", "0", "is less than 1"),
    ("reply-max-bytes", "1MiB", "is not a whole number"),
    ("reply-max-bytes", "16777217", "is more than 16777216"),
    ("max-defer", "500ms", "is shorter than 1s"),
    ("max-defer", "25", "has no unit"),
    ("remember-completed", "100001", "is more than 100000"),
    ("remember-completed", "false", "is not a whole number"),
    ("min-replicas", "-1", "is negative"),
    ("min-replicas", "10001", "is more than 10000"),
    ("max-replicas", "0", "is less than 1"),
    ("messages-per-replica", "0", "is less than 1"),
    ("messages-per-replica", "100001", "is more than 100000"),
    ("cool-down", "a while", "is not a duration"),
    ("cool-down", "24h1s", "is longer than 24h"),
];

#[test]
fn a_wrong_value_gives_exactly_one_sentence_with_name_value_and_accepted_form() {
    for setting in SETTINGS {
        assert!(
            WRONG.iter().any(|(name, ..)| *name == setting.name),
            "{} has no row",
            setting.name
        );
    }
    for (name, value, why) in WRONG {
        let setting = contract::settings::find(name).unwrap();
        for naming in Naming::ALL {
            let expected = format!(
                "{} is \"{}\", which {why}: write {}",
                naming.write(name),
                value.escape_debug(),
                setting.accepted()
            );
            assert_eq!(problems(*naming, &[(name, value)]), [expected]);
        }
    }
}

#[test]
fn an_empty_value_is_wrong_except_in_the_environment() {
    for setting in SETTINGS {
        for naming in [Naming::Annotation, Naming::Flag] {
            let told = problems(naming, &[(setting.name, "")]);
            assert_eq!(told.len(), 1, "{}: {told:?}", setting.name);
        }
        parse(&*source(Naming::Env, &[(setting.name, "")])).unwrap();
    }
}

#[test]
fn names_have_a_longest_length() {
    let name = |bytes| "q".repeat(bytes);
    let accepted = [("queue", 235), ("dead-letter", 255), ("vhost", 255)];
    for (setting, bytes) in accepted {
        settings(&[(setting, &name(bytes))]);
        let told = problems(Naming::Annotation, &[(setting, &name(bytes + 1))]);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains(&format!("is {} bytes long", bytes + 1)),
            "{}",
            told[0]
        );
        assert!(told[0].len() < 300, "a long value is shortened: {}", told[0]);
    }
    settings(&[("queue", "größer.als.null")]);
}

#[test]
fn all_problems_are_told_at_once() {
    let told = problems(
        Naming::Env,
        &[
            ("port", "x"),
            ("timeout", "60"),
            ("queue", "amq.x"),
            ("min-replicas", "3"),
            ("max-replicas", "2"),
        ],
    );
    assert_eq!(told.len(), 4, "{told:#?}");
}

#[test]
fn rules_between_settings() {
    assert_eq!(
        problems(Naming::Annotation, &[("min-replicas", "11")]),
        [
            "kubedaemon.io/min-replicas is \"11\", which is more than kubedaemon.io/max-replicas (10): \
          write a whole number from 0 to 10, or raise kubedaemon.io/max-replicas"
        ]
    );
    assert_eq!(
        problems(Naming::Flag, &[("queue", "orders"), ("dead-letter", "orders")]),
        ["--dead-letter is \"orders\", which is the same as --queue: write the name of another queue"]
    );
    assert_eq!(
        problems(Naming::Env, &[("concurrency", "4"), ("prefetch", "3")]),
        [
            "KUBEDAEMON_PREFETCH is \"3\", which is less than KUBEDAEMON_CONCURRENCY (4): \
          write a whole number from 4 to 2000, or lower KUBEDAEMON_CONCURRENCY"
        ]
    );
    for (response, same) in [("orders", "--queue"), ("orders.dead", "--dead-letter")] {
        assert_eq!(
            problems(Naming::Flag, &[("queue", "orders"), ("response-queue", response)]),
            [format!(
                "--response-queue is \"{response}\", which is the same as {same}: write the name of another queue"
            )]
        );
    }
    // Nothing is concluded from a value that could not be read.
    assert_eq!(
        problems(Naming::Flag, &[("min-replicas", "11"), ("max-replicas", "many")]).len(),
        1
    );
    settings(&[("dead-letter", "orders")]);
}

#[test]
fn the_first_source_wins_and_is_named() {
    let flags = Flags::new([("port".to_owned(), "1".to_owned())]);
    let variables = Environment::new(
        [
            ("KUBEDAEMON_PORT", "x"),
            ("KUBEDAEMON_CONCURRENCY", "x"),
            ("KUBEDAEMON_QUEUE", "orders"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let told = parse(&Layered(&[&flags, &variables])).unwrap_err();
    assert_eq!(told.0.len(), 1);
    assert_eq!(told.0[0].name, "KUBEDAEMON_CONCURRENCY");
}

#[test]
fn a_port_that_kubernetes_set_for_a_service_is_left_alone() {
    let variables = Environment::new([("KUBEDAEMON_PORT".to_owned(), "tcp://10.0.0.1:80".to_owned())]);
    assert_eq!(parse(&variables).unwrap().port, 8080);
}

#[test]
fn names_follow_from_the_stem() {
    let setting = contract::settings::find("max-attempts").unwrap();
    assert_eq!(setting.annotation(), "kubedaemon.io/max-attempts");
    assert_eq!(setting.env(), "KUBEDAEMON_MAX_ATTEMPTS");
    assert_eq!(setting.flag(), "--max-attempts");
    assert_eq!(
        setting.help(),
        "After how many failed attempts a message goes to the dead-letter queue: a whole number from 1 to 1000 \
         [default: 5] [env: KUBEDAEMON_MAX_ATTEMPTS]"
    );
    for naming in Naming::ALL {
        let names: std::collections::BTreeSet<String> = SETTINGS
            .iter()
            .map(|setting| naming.write(setting.name))
            .collect();
        assert_eq!(names.len(), SETTINGS.len());
        assert!(names.iter().all(|name| name.starts_with(naming.prefix())));
    }
    assert!(Naming::Annotation.prefix().starts_with(contract::PREFIX));
}

#[test]
fn an_unknown_name_is_told_with_the_nearest() {
    let told = |naming, names: &[&str]| {
        let unknown = contract::settings::unknown(naming, names.iter().copied(), &["KUBEDAEMON_LOG"]);
        unknown.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told(
            Naming::Annotation,
            &[
                "kubedaemon.io/quue",
                "kubedaemon.io/queue",
                "prometheus.io/port",
                "kubedaemon.io/zzz"
            ]
        ),
        [
            "\"kubedaemon.io/quue\" is not known and has no effect: did you mean kubedaemon.io/queue?",
            "\"kubedaemon.io/zzz\" is not known and has no effect",
        ]
    );
    assert_eq!(
        told(
            Naming::Env,
            &[
                "KUBEDAEMON_LGO",
                "KUBEDAEMON_LOG",
                "KUBEDAEMON_MAXATTEMPTS",
                "PATH"
            ]
        ),
        [
            "\"KUBEDAEMON_LGO\" is not known and has no effect: did you mean KUBEDAEMON_LOG?",
            "\"KUBEDAEMON_MAXATTEMPTS\" is not known and has no effect: did you mean KUBEDAEMON_MAX_ATTEMPTS?",
        ]
    );
    assert_eq!(
        told(Naming::Flag, &["--max-replica", "-v"]),
        ["\"--max-replica\" is not known and has no effect: did you mean --max-replicas?"]
    );
}

#[test]
fn variables_that_kubernetes_sets_for_services_are_not_reported() {
    let links = [
        "KUBEDAEMON_ACTIVATOR_SERVICE_HOST",
        "KUBEDAEMON_ACTIVATOR_SERVICE_PORT",
        "KUBEDAEMON_ACTIVATOR_SERVICE_PORT_HTTP",
        "KUBEDAEMON_ACTIVATOR_PORT",
        "KUBEDAEMON_ACTIVATOR_PORT_8080_TCP",
        "KUBEDAEMON_ACTIVATOR_PORT_8080_TCP_ADDR",
    ];
    assert_eq!(contract::settings::unknown(Naming::Env, links, &[]), []);
}

#[test]
fn one_mistyped_letter_is_recognised_in_every_name() {
    let known = || SETTINGS.iter().map(|setting| setting.name);
    for setting in SETTINGS.iter().filter(|setting| setting.name.len() > 4) {
        for at in 1..setting.name.len() {
            let mut missing = setting.name.to_owned();
            missing.remove(at);
            assert_eq!(
                contract::settings::suggest(&missing, known()),
                Some(setting.name),
                "{missing}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_value_of_any_setting_is_read_or_told_in_one_sentence(text in ".{0,60}", like in "[-+0-9.a-z:/@ ]{0,20}") {
        for setting in SETTINGS {
            for text in [&text, &like] {
                if let Err(problems) = parse(&*source(Naming::Flag, &[(setting.name, text)])) {
                    let sentences: Vec<String> = problems.into_iter().map(|p| p.to_string()).collect();
                    prop_assert_eq!(sentences.len(), 1, "{:?}", sentences);
                    prop_assert!(sentences[0].starts_with(&setting.flag()));
                    prop_assert!(!sentences[0].contains('\n'));
                }
            }
        }
    }

    #[test]
    fn any_whole_number_in_range_is_read(min in 0..=10_000_u32, more in 0..=10_000_u32, concurrency in 1..=1000_u16) {
        let max = (min + more).clamp(1, 10_000);
        let settings = settings(&[
            ("min-replicas", &min.to_string()),
            ("max-replicas", &max.to_string()),
            ("concurrency", &concurrency.to_string()),
        ]);
        prop_assert_eq!((settings.min_replicas, settings.max_replicas, settings.concurrency), (min, max, concurrency));
    }
}
