//! Signals: the first Ctrl-C (or SIGTERM) drains, the second ends at once. A terminal that is closed counts as one,
//! unless the process was started to outlive it (`nohup`).

use crate::display::Screen;
use ops::shutdown::{Shutdown, on_signals};
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Begins to pull the levers of `shutdown` on signals, and says so on `screen`.
///
/// # Errors
/// When the handlers cannot be installed.
pub(crate) fn install(shutdown: Shutdown, screen: Screen) -> io::Result<()> {
    on_signals(shutdown.clone())?;
    if !is_hangup_ignored() {
        let mut hangup = signal(SignalKind::hangup())?;
        let shutdown = shutdown.clone();
        // Lives as long as the process.
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                shutdown.drain();
            }
        });
    }
    tokio::spawn(async move {
        shutdown.draining().await;
        if !shutdown.is_forced() {
            screen.note(
                "draining: no new work is taken, what is in flight is finished; Ctrl-C again ends at once",
            );
        }
        shutdown.forced().await;
        screen.note("ending at once; what was in flight is delivered again");
    });
    Ok(())
}

/// Whether whoever started the process said that it is to survive its terminal.
///
/// Source: proc(5), `SigIgn` in `/proc/self/status`: a hexadecimal mask whose lowest bit is signal 1, SIGHUP.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
