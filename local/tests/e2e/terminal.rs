//! On a terminal.

use crate::support::worker_script;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Runs its arguments on a new terminal of 200 columns whose keyboard and screen are our standard streams.
const TERMINAL: &str = "
import fcntl, os, pty, select, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 200, 0, 0))
inputs = [fd, 0]
while True:
    for ready in select.select(inputs, [], [])[0]:
        try:
            data = os.read(ready, 1024)
        except OSError:
            data = b''
        if ready == 0 and not data:
            inputs.remove(0)
        elif ready == 0:
            os.write(fd, data)
        elif data:
            os.write(1, data)
        else:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_live_line_is_shown_and_ctrl_c_reaches_us_and_not_the_worker() {
    let script = worker_script();
    let flags = [
        "run",
        "--port",
        "0",
        "--min-replicas",
        "1",
        "--",
        "python3",
        script.as_str(),
    ];
    let mut terminal = Command::new("python3")
        .args(["-c", TERMINAL, env!("CARGO_BIN_EXE_kubedaemon")])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = terminal.stdin.take().unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let (sender, pieces) = channel();
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 1024];
        while let Ok(read @ 1..) = screen.read(&mut piece) {
            if sender
                .send(String::from_utf8_lossy(&piece[..read]).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let mut seen = String::new();
    let mut wait_for = |words: &[&str]| {
        while !words.iter().all(|word| seen.contains(word)) {
            match pieces.recv_timeout(Duration::from_secs(30)) {
                Ok(piece) => seen.push_str(&piece),
                Err(error) => panic!("{error}: {words:?} are not in {seen:?}"),
            }
        }
    };
    wait_for(&["worker-1 | up pid=", "state=ready"]);
    // As the terminal's driver does: SIGINT to the whole foreground process group.
    keyboard.write_all(b"\x03").unwrap();
    wait_for(&["draining: ", "state=zero"]);
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    reader.join().unwrap();
    // The cursor goes up to redraw the line in place.
    assert!(seen.contains("\u{1b}["), "{seen:?}");
    assert!(!seen.contains("KeyboardInterrupt"), "{seen:?}");
}
