//! Command lines that are answered without running anything.

use crate::support::binary;
use contract::settings::SETTINGS;
use std::process::Output;

fn answer(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = binary().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_names_every_setting() {
    let (code, help, _) = answer(&["run", "--help"]);
    assert_eq!(code, Some(0));
    for setting in SETTINGS {
        assert!(
            help.contains(&setting.flag()),
            "{} is not in the help",
            setting.flag()
        );
    }
    for arguments in [
        &["help"][..],
        &["--help"],
        &["help", "run"],
        &["help", "up"],
        &["help", "publish"],
    ] {
        let (code, help, _) = answer(arguments);
        assert_eq!(code, Some(0), "{arguments:?}");
        assert!(help.contains("Usage: kubedaemon"), "{help}");
    }
}

#[test]
fn version() {
    let (code, version, _) = answer(&["--version"]);
    assert_eq!(
        (code, version),
        (Some(0), format!("kubedaemon {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn a_wrong_value_is_one_sentence_with_name_value_and_accepted_form() {
    for setting in SETTINGS.iter().filter(|setting| setting.name != "port") {
        let wrong = match setting.name {
            "broker" => "http://localhost",
            "vhost" | "queue" | "dead-letter" | "response-queue" => "",
            "path" | "init-path" => "message",
            _ => "many",
        };
        let flag = format!("{}={wrong}", setting.flag());
        let (code, _, said) = answer(&["run", "--port", "0", &flag, "--", "true"]);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in [setting.flag(), format!("{wrong:?}"), setting.accepted()] {
            assert!(said.contains(&part), "{part} is not in: {said}");
        }
    }
}

#[test]
fn unknown_words_suggest_the_nearest_and_give_exit_code_2() {
    for (arguments, nearest) in [
        (&["run", "--quue", "orders", "--", "true"][..], "--queue"),
        (
            &["run", "--queue", "q", "--max-replica", "3", "--", "true"],
            "--max-replicas",
        ),
        (&["up", "--listn", "127.0.0.1:0", "a.yaml"], "--listen"),
        (&["publish", "--que", "orders"], "--queue"),
        (&["publsh", "--queue", "orders"], "publish"),
    ] {
        let (code, _, said) = answer(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(nearest), "{nearest} is not in: {said}");
    }
}

#[test]
fn what_is_missing_is_said() {
    for (arguments, sentence) in [
        (&["run", "--", "true"][..], "there is neither --queue nor --port"),
        (&["publish"], "--queue is missing"),
        (&["up", "/no/such/file.yaml"], "/no/such/file.yaml cannot be read"),
        (
            &["up", "--listen", "8000", "/no/such/file.yaml"],
            "--listen is \"8000\"",
        ),
        (
            &["run", "--admin", "9400", "--port", "0", "--", "true"],
            "--admin is \"9400\"",
        ),
        (
            &["run", "--log", "side car=loud", "--port", "0", "--", "true"],
            "side car=loud",
        ),
    ] {
        let (code, _, said) = answer(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(sentence), "{said}");
    }
    let (code, _, said) = answer(&["run", "--queue", "orders"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("COMMAND"), "{said}");
}

#[test]
fn a_password_is_never_repeated() {
    let flag = "--broker=amqp://user:pass-word-canary@host:99999/";
    let (code, out, said) = answer(&["run", "--queue", "q", flag, "--", "true"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(!said.contains("canary") && !out.contains("canary"), "{said}");
}
