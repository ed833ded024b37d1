//! Real legs on a real broker: that honest runners are found whole, and that one that lies is caught.

use bench::leg::{self, Sample, Stage};
use bench::runner::{Envelope, Programs, Runner};
use bench::workload::{Kind, Queue, Workload};
use std::path::{Path, PathBuf};
use testkit::wait::{PATIENCE, until};
use testkit::{Broker, broker};

const MESSAGES: u64 = 1000;

fn workload(kind: Kind) -> Workload {
    let is_steady = kind == Kind::Steady;
    Workload {
        name: "test".to_owned(),
        about: String::new(),
        kind,
        queue: Queue::Classic,
        messages: MESSAGES,
        warm_up: MESSAGES / 2,
        body_bytes: 200,
        headers: 1,
        in_flight: 8,
        prefetch: 15,
        handler_ms: 0,
        rate: if is_steady { 2000 } else { 0 },
        idle_seconds: 0,
        patience_seconds: 2,
        seed: 5,
        pairs: 1,
        same: None,
        against: None,
        figures: Vec::new(),
        smoke: None,
    }
}

async fn measure(workload: &Workload, runner: &str) -> anyhow::Result<Sample> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runners = Runner::read_all(&room.join("runners.json"))?;
    let runner = runners
        .iter()
        .find(|found| found.name == runner)
        .expect("a runner of that name");
    run(workload, runner).await
}

async fn run(workload: &Workload, runner: &Runner) -> anyhow::Result<Sample> {
    run_with(workload, runner, Path::new("")).await
}

async fn run_with(workload: &Workload, runner: &Runner, images: &Path) -> anyhow::Result<Sample> {
    let logs = std::env::temp_dir().join(testkit::unique("bench-logs"));
    std::fs::create_dir_all(&logs)?;
    let shared: &Broker = broker().await;
    let stage = Stage {
        broker: shared,
        amqp: shared.amqp().await,
        programs: Programs::beside(
            Path::new(env!("CARGO_BIN_EXE_bench-sink")),
            PathBuf::new(),
            images.to_owned(),
        )?,
        logs: logs.clone(),
    };
    let sample = leg::run(&stage, workload, runner).await;
    std::fs::remove_dir_all(logs)?;
    sample
}

#[tokio::test]
async fn honest_runners_are_found_whole_and_have_their_cost() {
    for runner in ["naive", "raw"] {
        let sample = measure(&workload(Kind::Drain), runner).await.unwrap();
        assert!(sample.is_whole(15) && sample.duplicates == 0, "{sample:?}");
        for name in ["throughput", "cpu_per_message", "peak_rss", "peak_anonymous"] {
            let value = sample.measures.get(name).copied().unwrap_or_default();
            assert!(value > 0.0, "{runner} has no {name}: {sample:?}");
        }
    }
}

/// As `bench-liar` is written: of the numbers from 1 on.
fn told_by_the_liar() -> (u64, u64, u64) {
    let (mut lost, mut duplicates, mut corrupt) = (0, 0, 0);
    for number in 1..=MESSAGES {
        let is_changed = number.is_multiple_of(90);
        let times = if number.is_multiple_of(70) {
            0
        } else {
            1 + u64::from(number.is_multiple_of(50))
        };
        lost += u64::from(is_changed || times == 0);
        duplicates += if is_changed {
            0
        } else {
            u64::saturating_sub(times, 1)
        };
        corrupt += if is_changed { times } else { 0 };
    }
    (lost, duplicates, corrupt)
}

#[tokio::test]
async fn a_runner_that_loses_repeats_and_changes_messages_is_caught_to_the_message() {
    let sample = measure(&workload(Kind::Drain), "liar").await.unwrap();
    let found = (sample.lost, sample.duplicates, sample.corrupt);
    assert_eq!(found, told_by_the_liar());
    assert!(!sample.is_whole(15));
    assert!(
        !sample.measures.contains_key("throughput"),
        "there is no speed of a drain that did not end: {sample:?}"
    );
}

#[tokio::test]
async fn a_runner_that_ends_at_once_leaves_everything_undone() {
    let runner = Runner {
        name: "broken".to_owned(),
        about: String::new(),
        program: "built:bench-naive".to_owned(),
        arguments: vec!["--no-such-argument".to_owned()],
        envelope: Envelope::None,
        is_sink: false,
        for_tests: true,
    };
    let sample = run(&workload(Kind::Drain), &runner).await.unwrap();
    assert_eq!((sample.lost, sample.unsettled), (MESSAGES, MESSAGES));
    let error = run(&workload(Kind::Steady), &runner).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("does not consume") && error.contains("no-such-argument"),
        "{error}"
    );
}

#[tokio::test]
async fn a_runner_that_is_not_installed_is_told_before_anything_starts() {
    let error = measure(&workload(Kind::Drain), "go").await.unwrap_err();
    assert!(error.to_string().contains("is not there"), "{error}");
}

#[tokio::test]
async fn a_steady_rate_gives_latencies() {
    for runner in ["naive", "raw"] {
        let sample = measure(&workload(Kind::Steady), runner).await.unwrap();
        assert!(sample.is_whole(15), "{sample:?}");
        let (p50, p99) = (sample.measures["latency_p50"], sample.measures["latency_p99"]);
        assert!(0.0 < p50 && p50 <= p99, "{sample:?}");
    }
}

#[tokio::test]
async fn a_killed_runner_comes_back_and_repeats_no_more_than_its_prefetch() {
    let sample = measure(&workload(Kind::Recovery), "naive").await.unwrap();
    assert!(sample.is_whole(15) && sample.duplicates <= 15, "{sample:?}");
    assert!(sample.measures["recovery"] > 0.0, "{sample:?}");
}

#[tokio::test]
async fn start_and_idleness_are_measured() {
    let mut workload = workload(Kind::Footprint);
    (workload.messages, workload.warm_up, workload.idle_seconds) = (1, 0, 1);
    for runner in ["naive", "raw"] {
        let sample = measure(&workload, runner).await.unwrap();
        assert!(sample.is_whole(15), "{sample:?}");
        for name in ["startup", "idle_rss", "idle_anonymous"] {
            assert!(sample.measures[name] > 0.0, "{runner} {name}: {sample:?}");
        }
        assert!(sample.measures["wake_ups"] < 500.0, "{sample:?}");
    }
}

fn through_a_proxy(body_bytes: usize) -> Workload {
    let mut workload = workload(Kind::Proxy);
    workload.body_bytes = body_bytes;
    workload
}

#[tokio::test]
async fn requests_through_a_proxy_come_back_right_and_have_their_cost() {
    for (runner, body_bytes) in [("hyper", 0), ("hyper", 200), ("direct", 200)] {
        let sample = measure(&through_a_proxy(body_bytes), runner).await.unwrap();
        assert!(sample.is_whole(0), "{sample:?}");
        for name in ["throughput", "cpu_per_message", "latency_p50", "latency_p99"] {
            let value = sample.measures.get(name).copied().unwrap_or_default();
            assert!(value > 0.0, "{runner} has no {name}: {sample:?}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_right_has_no_speed() {
    let runner = |arguments: &[&str]| Runner {
        name: "wrong".to_owned(),
        about: String::new(),
        program: "built:bench-origin".to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        envelope: Envelope::None,
        is_sink: false,
        for_tests: true,
    };
    // Bodies of another seed are none of its own: it answers 400.
    let wrong = runner(&["--listen", "{listen}", "--body-bytes", "200", "--seed", "1000"]);
    let sample = run(&through_a_proxy(200), &wrong).await.unwrap();
    assert_eq!((sample.lost, sample.measures.get("throughput")), (MESSAGES, None));
    let ended = runner(&["--no-such-argument"]);
    let error = run(&through_a_proxy(200), &ended).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("does not answer") && error.contains("no-such-argument"),
        "{error}"
    );
}

#[tokio::test]
async fn an_image_is_weighed() {
    let error = measure(&workload(Kind::Size), "sidecar-image").await.unwrap_err();
    assert!(error.to_string().contains("is not there"), "{error}");
    let program = format!("image:{}", env!("CARGO_PKG_NAME"));
    let images = std::env::temp_dir().join(testkit::unique("bench-images"));
    std::fs::create_dir_all(&images).unwrap();
    let archive = format!("{}-{}.tar", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    std::fs::write(images.join(archive), vec![0; 2_500_000]).unwrap();
    let runner = Runner {
        name: "image".to_owned(),
        about: String::new(),
        program,
        arguments: Vec::new(),
        envelope: Envelope::None,
        is_sink: false,
        for_tests: true,
    };
    let sample = run_with(&workload(Kind::Size), &runner, &images).await.unwrap();
    assert_eq!(sample.measures.get("size"), Some(&2.5));
    assert!(sample.is_whole(0), "{sample:?}");
    std::fs::remove_dir_all(images).unwrap();
}

#[tokio::test]
async fn a_task_of_celery_arrives_as_no_body_where_nobody_unpacks_it() {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runners = Runner::read_all(&room.join("runners.json")).unwrap();
    let mut naive = runners.into_iter().find(|found| found.name == "naive").unwrap();
    naive.envelope = Envelope::Celery;
    let sample = run(&workload(Kind::Drain), &naive).await.unwrap();
    assert_eq!((sample.lost, sample.corrupt), (MESSAGES, MESSAGES));
}

/// The program: stopped in the middle it keeps what it has and leaves no process, and goes on from there.
#[tokio::test]
async fn a_stopped_run_is_taken_up_again() {
    let directory = std::env::temp_dir().join(testkit::unique("bench-room"));
    let (room, state) = (directory.join("room"), directory.join("state"));
    std::fs::create_dir_all(room.join("workloads")).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(here.join("runners.json"), room.join("runners.json")).unwrap();
    let mut small = workload(Kind::Drain);
    small.pairs = 3;
    small.same = Some(serde_json::from_str(r#"{"runner": "naive", "measure": "throughput"}"#).unwrap());
    small.figures = serde_json::from_str(
        r#"[{"name": "naive_vs_raw", "measure": "throughput", "of": "naive", "over": "raw", "compare": "ratio",
             "unit": "ratio", "better": "higher"}]"#,
    )
    .unwrap();
    let file = room.join("workloads/small.json");
    std::fs::write(&file, serde_json::to_string(&small).unwrap()).unwrap();
    let bench = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bench"));
        command
            .arg("--room")
            .arg(&room)
            .arg("--state")
            .arg(&state)
            .args(["--peers", "/none"]);
        testkit::process::Process::start(command)
    };

    let first = bench();
    first.wait_for_line("[2/6]").await;
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.wait().await.code(), Some(130), "{:?}", first.lines());
    first.wait_for_line("goes on from here").await;

    let second = bench();
    let resumed = second.wait_for_line("turns,").await;
    assert!(
        resumed.contains("2 of them") || resumed.contains("3 of them"),
        "{resumed}"
    );
    second.wait_for_line("report: ").await;
    second.wait().await;
    let summary = std::fs::read_to_string(state.join("report/summary.json")).unwrap();
    let summary: bench::summary::Summary = serde_json::from_str(&summary).unwrap();
    assert_eq!((summary.rows[0].pairs, summary.gates[0].pairs), (3, 3));
    let samples = std::fs::read_to_string(state.join("report/samples.csv")).unwrap();
    assert_eq!(samples.lines().count(), 1 + 12, "{samples}");
    std::fs::remove_dir_all(directory).unwrap();
}

/// However the bench ends, its processes end with it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_killed_bench_leaves_nothing_behind() {
    let directory = std::env::temp_dir().join(testkit::unique("bench-killed"));
    let room = directory.join("room");
    std::fs::create_dir_all(room.join("workloads")).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(here.join("runners.json"), room.join("runners.json")).unwrap();
    let mut slow = workload(Kind::Drain);
    // A drain of some minutes.
    (slow.handler_ms, slow.pairs) = (1000, 1);
    slow.figures = serde_json::from_str(
        r#"[{"name": "slow", "measure": "throughput", "of": "naive", "compare": "absolute", "unit": "msg/s",
             "better": "higher"}]"#,
    )
    .unwrap();
    let file = room.join("workloads/slow.json");
    std::fs::write(&file, serde_json::to_string(&slow).unwrap()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bench"));
    command
        .arg("--room")
        .arg(&room)
        .arg("--state")
        .arg(directory.join("state"));
    command.args(["--peers", "/none"]);
    let process = testkit::process::Process::start(command);
    let named = |name: &str| {
        let found = bench::tree::processes(process.pid()).into_iter();
        let name = format!("/{name}");
        let mut found = found.filter(|pid| {
            let path = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            path.to_string_lossy().ends_with(&name)
        });
        found.next()
    };
    let both = until("sink and runner run", PATIENCE, || async {
        Some([named("bench-sink")?, named("bench-naive")?])
    })
    .await;
    process.signal(rustix::process::Signal::KILL);
    until("both have ended", PATIENCE, || async {
        both.iter().all(|pid| bench::tree::memory(*pid).rss == 0)
    })
    .await;
    std::fs::remove_dir_all(directory).unwrap();
}
