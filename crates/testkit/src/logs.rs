//! Reading in a test what the code under test logged.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

/// Dependencies log in their own words; tests are about ours.
const SILENT: [&str; 4] = ["hyper", "hyper_util", "lapin", "rustls"];

/// Captures what this thread logs, from `debug` up, until the result is dropped.
///
/// One line an event: `LEVEL target: message field=value`. Tasks of a current-thread runtime (the default of
/// `#[tokio::test]`) run on the test's own thread and are captured too; other threads are not.
#[must_use = "capturing ends when the value is dropped"]
pub fn capture() -> Logs {
    let buffer = Buffer::default();
    let targets = Targets::new()
        .with_default(LevelFilter::DEBUG)
        .with_targets(SILENT.map(|library| (library, LevelFilter::OFF)));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(buffer.clone())
        .with_ansi(false)
        .without_time();
    let subscriber = Registry::default().with(targets).with(lines);
    Logs {
        buffer,
        _guard: tracing::subscriber::set_default(subscriber),
    }
}

/// What was logged since [`capture`].
pub struct Logs {
    buffer: Buffer,
    _guard: DefaultGuard,
}

impl Logs {
    /// Every line so far, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.text()
            .lines()
            .map(|line| line.trim_start().to_owned())
            .collect()
    }

    /// Every line so far as one text.
    pub fn text(&self) -> String {
        let bytes = self.buffer.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines that contain `needle`.
    pub fn matching(&self, needle: &str) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line.contains(needle))
            .collect()
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines()).finish()
    }
}

/// A writer that keeps everything.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Buffer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::capture;

    #[tokio::test]
    async fn captures_level_message_and_fields_of_tasks_too() {
        let logs = capture();
        tracing::warn!(attempt = 2, "broker lost");
        tokio::spawn(async { tracing::debug!("in a task") })
            .await
            .unwrap();
        assert_eq!(logs.lines().len(), 2, "{logs:?}");
        assert_eq!(logs.matching("broker lost attempt=2").len(), 1, "{logs:?}");
        assert!(logs.lines()[0].starts_with("WARN testkit::"), "{logs:?}");
    }

    #[test]
    fn ends_when_dropped() {
        drop(capture());
        let logs = capture();
        assert_eq!(logs.text(), "");
    }
}
