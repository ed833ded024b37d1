use super::*;
use crate::display::tests::Collected;
use std::path::Path;
use tokio::net::TcpStream;

const GRACE: Duration = Duration::from_secs(10);

fn shell(script: &str) -> CommandLine {
    CommandLine {
        words: ["sh", "-c", script].map(str::to_owned).to_vec(),
        variables: None,
        environment: inherited(std::env::vars_os()),
        directory: None,
    }
}

fn screen() -> (Screen, Collected) {
    let lines = Collected::default();
    (
        Screen::plain(Box::new(lines.clone()), Box::new(io::sink())).unwrap(),
        lines,
    )
}

async fn wait_for_line(lines: &Collected, line: &str) {
    let shown = async {
        while !lines.text().lines().any(|shown| shown == line) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(GRACE, shown)
        .await
        .unwrap_or_else(|_| panic!("{line:?} is not in {:?}", lines.text()));
}

fn is_alive(process_id: &str) -> bool {
    // A zombie is nobody's problem but its parent's.
    std::fs::read_to_string(Path::new("/proc").join(process_id).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn output_is_shown_line_by_line_and_the_exit_status_is_told() {
    let (screen, lines) = screen();
    let script = "echo out $PORT; echo error >&2; printf unfinished; exit 3";
    let mut process = Process::start(&shell(script), 20001, "orders-1", &screen).unwrap();
    assert_eq!(process.ended().await, Failure::Exited(3));
    screen.close().await;
    let text = lines.text();
    for line in [
        "orders-1 | out 20001",
        "orders-1 | error",
        "orders-1 | unfinished",
    ] {
        assert!(
            text.lines().any(|shown| shown == line),
            "{line:?} is not in {text:?}"
        );
    }
}

#[tokio::test]
async fn a_stop_ends_the_whole_group_gracefully() {
    let (screen, lines) = screen();
    // The grandchild ignores nothing and says goodbye; the shell waits for it.
    let script = "(trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done) & echo $!; wait";
    let process = Process::start(&shell(script), 1, "w-1", &screen).unwrap();
    wait_for_line(&lines, "w-1 | up").await;
    process.stop(GRACE, std::future::pending()).await;
    screen.close().await;
    assert!(lines.text().contains("w-1 | bye\n"), "{}", lines.text());
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed_after_its_grace() {
    let (screen, lines) = screen();
    let script = "trap '' TERM; echo $$; while :; do sleep 0.01; done";
    let process = Process::start(&shell(script), 1, "w-1", &screen).unwrap();
    let id = process.group.as_raw_nonzero().to_string();
    wait_for_line(&lines, &format!("w-1 | {id}")).await;
    let begin = tokio::time::Instant::now();
    process
        .stop(Duration::from_millis(100), std::future::pending())
        .await;
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert!(!is_alive(&id));
}

#[tokio::test]
async fn a_forced_stop_does_not_wait_for_the_grace() {
    let (screen, lines) = screen();
    let process = Process::start(
        &shell("trap '' TERM; echo up; sleep 60 & wait"),
        1,
        "w-1",
        &screen,
    )
    .unwrap();
    let id = process.group.as_raw_nonzero().to_string();
    wait_for_line(&lines, "w-1 | up").await;
    timeout(
        GRACE,
        process.stop(Duration::from_hours(1), std::future::ready(())),
    )
    .await
    .unwrap();
    assert!(!is_alive(&id));
}

#[tokio::test]
async fn what_an_ended_worker_left_behind_is_killed() {
    let (screen, lines) = screen();
    let mut process = Process::start(&shell("sleep 3600 & echo $!; exit 0"), 1, "w-1", &screen).unwrap();
    assert_eq!(timeout(GRACE, process.ended()).await.unwrap(), Failure::Exited(0));
    screen.close().await;
    let text = lines.text();
    let id = text.trim().strip_prefix("w-1 | ").unwrap();
    assert!(!is_alive(id), "process {id} is left");
}

#[tokio::test]
async fn a_dropped_process_is_killed() {
    let (screen, lines) = screen();
    let process = Process::start(&shell("echo up; sleep 3600"), 1, "w-1", &screen).unwrap();
    let id = process.group.as_raw_nonzero().to_string();
    wait_for_line(&lines, "w-1 | up").await;
    drop(process);
    timeout(GRACE, async {
        while is_alive(&id) {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_signal_is_told() {
    let (screen, _lines) = screen();
    let mut process = Process::start(&shell("kill -9 $$"), 1, "w-1", &screen).unwrap();
    assert_eq!(process.ended().await, Failure::Killed(9));
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_named() {
    let (screen, _lines) = screen();
    let plain = std::env::temp_dir().join(format!("kubedaemon-not-executable-{}", std::process::id()));
    std::fs::write(&plain, "text").unwrap();
    let mut missing_directory = shell("true");
    missing_directory.directory = Some("/no/such/directory".into());
    let named = |program: &str| CommandLine {
        words: vec![program.to_owned()],
        ..shell("")
    };
    let rows = [
        (
            named("pythn3-of-nobody"),
            "there is no command `pythn3-of-nobody` on PATH",
        ),
        (
            named("./no/such/file"),
            "there is no file `./no/such/file` (or its interpreter is missing)",
        ),
        (named(plain.to_str().unwrap()), "is not executable (chmod +x?)"),
        (
            missing_directory,
            "its working directory /no/such/directory does not exist",
        ),
    ];
    for (command, sentence) in rows {
        match Process::start(&command, 1, "w-1", &screen).unwrap_err() {
            Failure::CannotStart(said) => assert!(said.ends_with(sentence), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    std::fs::remove_file(plain).unwrap();
}

#[test]
fn our_own_variables_are_not_passed_on() {
    let own = [
        ("KUBEDAEMON_BROKER", "amqp://user:secret@host"),
        ("HOME", "/root"),
    ];
    let environment = inherited(own.into_iter().map(|(name, value)| (name.into(), value.into())));
    let names: Vec<_> = environment.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["HOME", "PYTHONUNBUFFERED"]);
}

#[tokio::test]
async fn the_port_reaches_a_real_server() {
    let (screen, _lines) = screen();
    let port = crate::port::Port::reserve().unwrap();
    let script = "exec python3 -m http.server --bind 127.0.0.1 $PORT";
    let process = Process::start(&shell(script), port.number(), "w-1", &screen).unwrap();
    timeout(GRACE, async {
        while TcpStream::connect(port.address()).await.is_err() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
    process.stop(GRACE, std::future::pending()).await;
    assert!(port.is_free());
}
