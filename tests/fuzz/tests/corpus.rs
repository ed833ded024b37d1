//! Every file of every corpus, through its target: what was found once stays fixed, wherever the tests run.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "says which file is the one")]

use std::path::PathBuf;

fn here(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(here(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs a target on its corpus; which file it was is said when it panics.
fn replay(name: &str) {
    let target = fuzz::find(name).unwrap();
    let files = names(&format!("corpus/{name}"));
    assert!(files.len() >= 10, "{name} has {} seeds", files.len());
    for file in files {
        let input = std::fs::read(here(&format!("corpus/{name}/{file}"))).unwrap();
        println!("{name}/{file}");
        (target.run)(&input);
    }
    (target.run)(b"");
}

macro_rules! replays {
    ($($test:ident $name:literal),+ $(,)?) => {
        $(#[test] fn $test() { replay($name); })+

        #[test]
        fn every_target_is_replayed_and_every_corpus_has_one() {
            let mut replayed = vec![$($name.to_owned()),+];
            let mut targets: Vec<String> = fuzz::TARGETS.iter().map(|target| target.name.to_owned()).collect();
            replayed.sort();
            targets.sort();
            assert_eq!(targets, replayed);
            assert_eq!(targets, names("corpus"));
            assert!(names("words").iter().all(|name| targets.contains(name)));
        }
    };
}

replays!(
    frames "frames",
    message "message",
    answer "answer",
    response "response",
    verdict "verdict",
    retry_after "retry-after",
    settings "settings",
    quantity "quantity",
    broker_url "broker-url",
    sidecar_config "sidecar-config",
    manifest "manifest",
    review "review",
    route "route",
    sockets "sockets",
    token "token",
);
