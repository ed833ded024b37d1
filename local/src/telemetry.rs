//! Our own log lines, above the live status lines.

use crate::display::Screen;
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins logging to `screen`. `filter` is a level, or levels by module. A second call in the same process changes
/// nothing.
///
/// # Errors
/// One sentence when `filter` cannot be read.
pub(crate) fn init(screen: &Screen, filter: &str) -> Result<(), String> {
    let targets: Targets = filter.parse().map_err(|error| {
        format!("KUBEDAEMON_LOG={filter}: {error}; accepted is a level such as info, or sidecar=debug,info")
    })?;
    let lines = fmt::layer()
        .with_writer(Notes {
            screen: screen.clone(),
        })
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time();
    let _already_installed = Registry::default().with(targets).with(lines).try_init().is_err();
    Ok(())
}

struct Notes {
    screen: Screen,
}

impl<'a> MakeWriter<'a> for Notes {
    type Writer = Note;

    fn make_writer(&'a self) -> Note {
        Note {
            screen: self.screen.clone(),
            line: Vec::new(),
        }
    }
}

/// One log line; shown when it is dropped.
struct Note {
    screen: Screen,
    line: Vec<u8>,
}

impl Write for Note {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if !line.is_empty() {
            self.screen.note(line);
        }
    }
}
