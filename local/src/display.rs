//! What the user sees: worker lines on standard output; our own notes and one status line a worker on standard error.
//!
//! On a terminal the status lines stay at the bottom and everything else scrolls above them. Otherwise a status is an
//! ordinary line.
//!
//! One thread writes, fed through a bounded channel, because a terminal or a pipe that is not read blocks the writer,
//! and that must not stop messages from being settled.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Lines that may wait to be written; then workers wait with their output, and notes are dropped.
const WAITING_LINES: usize = 1024;
/// The longest a close waits for a reader that does not read.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How often the live lines are redrawn at most, a second.
const FRAMES_PER_SECOND: u8 = 10;

/// Where everything that the user sees goes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    events: mpsc::Sender<Event>,
    is_live: bool,
}

#[derive(Debug)]
enum Event {
    WorkerLine(String),
    Note(String),
    Status { worker: String, status: String },
    Close(oneshot::Sender<()>),
}

impl Screen {
    /// This program's own standard output and standard error.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn of_process() -> io::Result<Self> {
        let live = io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND)));
        Self::start(Box::new(io::stdout()), Box::new(io::stderr()), live)
    }

    /// Plain lines: those of workers to `workers`, everything else to `own`.
    ///
    /// # Errors
    /// When no thread can be started.
    #[cfg(test)]
    pub(crate) fn plain(workers: Box<dyn Write + Send>, own: Box<dyn Write + Send>) -> io::Result<Self> {
        Self::start(workers, own, None)
    }

    fn start(
        workers: Box<dyn Write + Send>,
        own: Box<dyn Write + Send>,
        live: Option<MultiProgress>,
    ) -> io::Result<Self> {
        let (events, receiver) = mpsc::channel(WAITING_LINES);
        let is_live = live.is_some();
        let writer = Writer {
            workers: BufWriter::new(workers),
            own: BufWriter::new(own),
            live,
            statuses: BTreeMap::new(),
        };
        // Ends with `Close`, or when the last handle is dropped.
        std::thread::Builder::new()
            .name("display".to_owned())
            .spawn(move || writer.run(receiver))?;
        Ok(Self { events, is_live })
    }

    /// Whether statuses stay in place, so that changing one often is no nuisance.
    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Shows a line of a worker process; waits while the display is behind.
    pub(crate) async fn worker_line(&self, replica: &str, line: &str) {
        // After a close there is nobody to show it to.
        let _closed = self
            .events
            .send(Event::WorkerLine(format!("{replica} | {line}")))
            .await
            .is_err();
    }

    /// Shows a line of our own. Never waits; the line is lost when the display is far behind.
    pub(crate) fn note(&self, line: impl Into<String>) {
        let _behind = self.events.try_send(Event::Note(line.into())).is_err();
    }

    /// Shows the status of a worker in place of the one before, or as a line.
    pub(crate) async fn status(&self, worker: &str, status: String) {
        let _closed = self
            .events
            .send(Event::Status {
                worker: worker.to_owned(),
                status,
            })
            .await
            .is_err();
    }

    /// Writes what waits, replaces the live lines by ordinary ones, and ends. Gives up after a second on a reader
    /// that does not read.
    pub(crate) async fn close(&self) {
        let (closed, is_closed) = oneshot::channel();
        let closing = async {
            if self.events.send(Event::Close(closed)).await.is_ok() {
                let _writer_is_gone = is_closed.await.is_err();
            }
        };
        let _gave_up = tokio::time::timeout(CLOSE_PATIENCE, closing).await.is_err();
    }
}

struct Writer {
    workers: BufWriter<Box<dyn Write + Send>>,
    own: BufWriter<Box<dyn Write + Send>>,
    live: Option<MultiProgress>,
    statuses: BTreeMap<String, (ProgressBar, String)>,
}

impl Writer {
    fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut batch = Vec::with_capacity(WAITING_LINES);
        while events.blocking_recv_many(&mut batch, WAITING_LINES) > 0 {
            if let Some(closed) = self.write(&mut batch) {
                self.end();
                let _nobody_waits = closed.send(()).is_err();
                return;
            }
        }
        self.end();
    }

    /// Writes a batch with one clearing of the live lines. Returns who waits for the end, if it is in the batch.
    fn write(&mut self, batch: &mut Vec<Event>) -> Option<oneshot::Sender<()>> {
        let Self {
            workers,
            own,
            live,
            statuses,
        } = self;
        let Some(live) = live else {
            return write_lines(workers, own, batch.drain(..));
        };
        // While they are cleared the live lines are locked, so they change afterwards.
        let (changes, lines): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .partition(|event| matches!(event, Event::Status { .. }));
        let closing = if lines.is_empty() {
            None
        } else {
            live.suspend(|| write_lines(workers, own, lines.into_iter()))
        };
        for change in changes {
            if let Event::Status { worker, status } = change {
                show_live(live, statuses, worker, status);
            }
        }
        closing
    }

    fn end(&mut self) {
        let Some(live) = self.live.take() else { return };
        for (bar, _) in self.statuses.values() {
            bar.finish_and_clear();
        }
        let _not_a_terminal_any_more = live.clear().is_err();
        for (worker, (_, status)) in &self.statuses {
            let _dropped = writeln!(self.own, "{worker}: {status}");
        }
        let _dropped = self.own.flush();
    }
}

/// Writes events as ordinary lines. Returns who waits for the end, if that is among them.
///
/// A stream that was closed by its reader is no reason to stop the workers: what cannot be written is dropped.
fn write_lines(
    workers: &mut impl Write,
    own: &mut impl Write,
    events: impl Iterator<Item = Event>,
) -> Option<oneshot::Sender<()>> {
    let mut closing = None;
    for event in events {
        // Both streams may be the same terminal: each is flushed before the other is written to.
        let _dropped = match event {
            Event::WorkerLine(line) => own.flush().and_then(|()| writeln!(workers, "{line}")),
            Event::Note(line) => workers.flush().and_then(|()| writeln!(own, "{line}")),
            Event::Status { worker, status } => {
                workers.flush().and_then(|()| writeln!(own, "{worker}: {status}"))
            }
            Event::Close(closed) => {
                closing = Some(closed);
                Ok(())
            }
        };
    }
    let _dropped = workers.flush().and(own.flush());
    closing
}

fn show_live(
    live: &MultiProgress,
    statuses: &mut BTreeMap<String, (ProgressBar, String)>,
    worker: String,
    status: String,
) {
    let (bar, last) = statuses.entry(worker.clone()).or_insert_with(|| {
        let style = ProgressStyle::with_template("{prefix:.bold}: {wide_msg}")
            .expect("invariant: the template is a constant");
        let bar = ProgressBar::hidden().with_style(style).with_prefix(worker);
        (live.add(bar), String::new())
    });
    bar.set_message(status.clone());
    *last = status;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Collects what a screen writes to one stream.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Collected(Arc<Mutex<Vec<u8>>>);

    impl Collected {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_go_to_their_streams_in_order() {
        let (workers, own) = (Collected::default(), Collected::default());
        let screen = Screen::plain(Box::new(workers.clone()), Box::new(own.clone())).unwrap();
        screen.worker_line("orders-1", "hello").await;
        screen.note("a note");
        screen.status("orders", "state=zero".to_owned()).await;
        screen.worker_line("orders-2", "again").await;
        screen.close().await;
        assert_eq!(workers.text(), "orders-1 | hello\norders-2 | again\n");
        assert_eq!(own.text(), "a note\norders: state=zero\n");
        screen.note("after the end");
        screen.worker_line("orders-1", "after the end").await;
    }

    /// Collects what is drawn and ignores where.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Collected);

    impl indicatif::TermLike for Terminal {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.clone().write_all(text.as_bytes())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_terminal_gets_live_lines_and_keeps_the_last_of_them() {
        let (workers, own) = (Collected::default(), Collected::default());
        let terminal = Terminal::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 200);
        let live = MultiProgress::with_draw_target(target);
        let screen = Screen::start(Box::new(workers.clone()), Box::new(own.clone()), Some(live)).unwrap();
        screen.status("orders", "state=zero".to_owned()).await;
        screen.status("emails", "state=zero".to_owned()).await;
        screen.worker_line("orders-1", "hello").await;
        screen.status("orders", "state=ready".to_owned()).await;
        screen.close().await;
        assert_eq!(workers.text(), "orders-1 | hello\n");
        assert_eq!(own.text(), "emails: state=zero\norders: state=ready\n");
        assert!(
            terminal.0.text().contains("orders: state=zero"),
            "{}",
            terminal.0.text()
        );
    }

    /// A reader that never reads.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            let _never = self.0.recv().is_err();
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_blocks_neither_notes_nor_the_end() {
        let (release, held) = std::sync::mpsc::channel();
        let screen = Screen::plain(Box::new(Stuck(held)), Box::new(io::sink())).unwrap();
        screen.worker_line("orders-1", "hello").await;
        for number in 0..2 * WAITING_LINES {
            screen.note(number.to_string());
        }
        screen.close().await;
        drop(release);
    }
}
