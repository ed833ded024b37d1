//! `webhook-injector check` as a user runs it: for each manifest in `golden/`, what is printed and the exit status.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn check(files: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_webhook-injector"))
        .arg("check")
        .args(files)
        .current_dir(golden())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn show(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let heading = if stderr.is_empty() { "" } else { "stderr:\n" };
    format!(
        "{stdout}{heading}{stderr}exit status: {}\n",
        output.status.code().unwrap()
    )
}

#[test]
fn every_golden_manifest_is_told_as_written_beside_it() {
    let mut checked = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            continue;
        }
        let file = path.file_name().unwrap().to_str().unwrap();
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        let told = show(&check(&[file], ""));
        assert_eq!(told, expected, "{file}");
        assert!(
            !told.contains("s3cret") && !told.contains("w/rd"),
            "{file} shows a password"
        );
        checked += 1;
    }
    assert_eq!(checked, 7);
}

#[test]
fn standard_input_is_read_for_a_dash() {
    let output = check(&["-"], "kind: Deployment\nmetadata: {name: a}\n");
    let expected = "Deployment default/a: skip, annotation_absent: it has no kubedaemon.io annotation\n\
                    exit status: 0\n";
    assert_eq!(show(&output), expected);
    let output = check(&["-"], "a: [");
    assert!(
        show(&output).starts_with("stderr:\n<stdin>:1:"),
        "{}",
        show(&output)
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn one_bad_file_does_not_hide_the_others() {
    let told = show(&check(&["unreadable.yaml", "missing.yaml", "list.json"], ""));
    assert!(told.contains("Deployment default/one: inject"), "{told}");
    assert!(
        told.contains("\nunreadable.yaml:6:5: cannot be read as YAML"),
        "{told}"
    );
    assert!(
        told.contains("\nmissing.yaml: cannot be read: No such file"),
        "{told}"
    );
    assert!(told.ends_with("exit status: 2\n"), "{told}");
}

#[test]
fn nothing_to_check_is_said_and_is_no_error() {
    let output = check(&["-"], "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n");
    assert_eq!(
        show(&output),
        "stderr:\n<stdin>: no Deployment or StatefulSet in it\nexit status: 0\n"
    );
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    assert_eq!(check(&[], "").status.code(), Some(2));
    assert_eq!(check(&["--nope"], "").status.code(), Some(2));
}
