//! Workers that are only called over HTTP.

use crate::support::Kubedaemon;
use rustix::process::Signal;
use testkit::http;
use testkit::wait::{PATIENCE, until};

#[tokio::test]
async fn a_call_wakes_the_worker_and_it_goes_back_to_zero() {
    let kubedaemon = Kubedaemon::run(&["--port", "0", "--cool-down", "200ms"]).await;
    let url = kubedaemon.url();
    for round in 1..=2 {
        let answer = http::get(&format!("{url}/some/path?a=b")).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "/some/path?a=b ")
        );
        kubedaemon.wait_for_workers(round).await;
        kubedaemon
            .wait_for_status("back at zero", |worker| {
                worker["replicas"] == serde_json::json!([])
            })
            .await;
        kubedaemon.assert_nothing_is_left();
    }
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    kubedaemon.process.wait_for_line("worker-2 | up").await;
}

#[tokio::test]
async fn many_callers_wake_one_process() {
    let kubedaemon = Kubedaemon::run(&["--port", "0", "--name", "resize"]).await;
    let url = kubedaemon.url();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { http::post(&url, &[], "hello").await.unwrap() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().text(), "hello");
    }
    kubedaemon.wait_for_workers(1).await;
    kubedaemon.process.wait_for_line("resize-1 | took hello").await;
    kubedaemon.process.signal(Signal::TERM);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
    kubedaemon.assert_nothing_is_left();
}

#[tokio::test]
async fn the_first_signal_lets_calls_finish() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let kubedaemon = Kubedaemon::run(&["--port", "0"]).await;
        let url = kubedaemon.url();
        let call = tokio::spawn(async move { http::post(&url, &[], "sleep 0.5").await });
        kubedaemon.process.wait_for_line("took sleep").await;
        kubedaemon.process.signal(signal);
        kubedaemon.process.wait_for_line("draining: ").await;
        assert_eq!(call.await.unwrap().unwrap().status.as_u16(), 200);
        assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
        kubedaemon.assert_nothing_is_left();
        kubedaemon
            .wait_for_last_status("state=zero replicas=0 ready=0 in-flight=0 done=0 retried=0 dead=0")
            .await;
    }
}

#[tokio::test]
async fn the_second_signal_ends_at_once() {
    let kubedaemon = Kubedaemon::run(&["--port", "0"]).await;
    let url = kubedaemon.url();
    let call = tokio::spawn(async move { http::post(&url, &[], "sleep 3600").await });
    kubedaemon.process.wait_for_line("took sleep").await;
    kubedaemon.process.signal(Signal::INT);
    kubedaemon.process.wait_for_line("draining: ").await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(130));
    kubedaemon.assert_nothing_is_left();
    // Whether the sentence still reaches the caller is a matter of luck.
    if let Ok(answer) = call.await.unwrap() {
        assert!(matches!(answer.status.as_u16(), 502 | 503), "{}", answer.text());
    }
}

#[tokio::test]
async fn the_second_signal_does_not_wait_for_a_worker_that_ignores_the_first() {
    let script = format!(
        "trap '' TERM; python3 {} & wait; wait",
        crate::support::worker_script()
    );
    let kubedaemon = Kubedaemon::run_command(&["--port", "0"], &["sh", "-c", &script]).await;
    http::get(&kubedaemon.url()).await.unwrap();
    kubedaemon.process.signal(Signal::INT);
    kubedaemon.process.wait_for_line("draining: ").await;
    kubedaemon.wait_until_stopping().await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(130));
    kubedaemon.assert_nothing_is_left();
}

#[tokio::test]
async fn a_crashed_worker_is_restarted_and_the_next_call_is_answered() {
    let kubedaemon = Kubedaemon::run(&["--port", "0"]).await;
    let url = kubedaemon.url();
    let broken = http::post(&url, &[], "crash").await.unwrap();
    assert_eq!(broken.status.as_u16(), 502, "{}", broken.text());
    kubedaemon
        .process
        .wait_for_line("worker worker ended by itself: it exited with status 9")
        .await;
    assert_eq!(http::post(&url, &[], "hello").await.unwrap().text(), "hello");
    kubedaemon.wait_for_workers(2).await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_crash_loop_is_visible() {
    let kubedaemon = Kubedaemon::run_command(&["--port", "0"], &["sh", "-c", "echo oh no; exit 3"]).await;
    let url = kubedaemon.url();
    let call = tokio::spawn(async move { http::get(&url).await });
    kubedaemon.process.wait_for_line("state=crash-loop").await;
    kubedaemon.process.wait_for_line("worker-1 | oh no").await;
    let trouble = kubedaemon.status().await["workers"][0]["trouble"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(trouble.contains("status 3"), "{trouble}");
    // Told once and not at each of its starts.
    until("started 5 times", PATIENCE, || async {
        kubedaemon.process.matching("| oh no").len() >= 5
    })
    .await;
    assert_eq!(kubedaemon.process.matching("again and again").len(), 1);
    kubedaemon.process.signal(Signal::INT);
    kubedaemon.process.wait_for_line("draining: ").await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(130));
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.text());
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_told_at_once() {
    let kubedaemon = Kubedaemon::run_command(&["--port", "0"], &["pythn3-of-nobody", "worker.py"]).await;
    let url = kubedaemon.url();
    let _call = tokio::spawn(async move { http::get(&url).await });
    let sentence = "worker worker does not start: there is no command `pythn3-of-nobody` on PATH";
    kubedaemon.process.wait_for_line(sentence).await;
    kubedaemon
        .wait_for_status("told", |worker| worker["trouble"] == sentence)
        .await;
}

#[tokio::test]
async fn a_worker_that_does_not_listen_on_its_port_is_told() {
    let kubedaemon = Kubedaemon::run_command(&["--port", "0"], &["sh", "-c", "exec sleep 3600"]).await;
    let url = kubedaemon.url();
    let _call = tokio::spawn(async move { http::get(&url).await });
    let line = kubedaemon
        .process
        .wait_for_line("does not listen on 127.0.0.1:")
        .await;
    assert!(line.contains("the environment variable PORT"), "{line}");
    kubedaemon.process.signal(Signal::INT);
    kubedaemon.process.wait_for_line("draining: ").await;
    kubedaemon.process.signal(Signal::INT);
    assert_eq!(kubedaemon.process.wait().await.code(), Some(130));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let first = Kubedaemon::run(&["--port", "0"]).await;
    let port = first.url().rsplit(':').next().unwrap().to_owned();
    let mut command = crate::support::binary();
    command.args(["run", "--port", &port, "--", "true"]);
    let second = testkit::process::Process::start(command);
    assert_eq!(second.wait().await.code(), Some(1));
    second
        .wait_for_line(&format!("cannot listen on 127.0.0.1:{port}"))
        .await;
}
