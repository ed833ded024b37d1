//! Two signals end a process: *drain* (take no new work, finish what is there) and *force* (drop what remains).
//!
//! Signal handlers, the admin endpoint and tests all pull the same two levers.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two levers, shared by everything that must stop. Cheap to clone; force implies drain.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    force: CancellationToken,
}

impl Shutdown {
    /// Levers that nobody has pulled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Levers of a part: pulling them leaves the whole alone, pulling the whole's pulls them too.
    pub fn child(&self) -> Self {
        Self {
            drain: self.drain.child_token(),
            force: self.force.child_token(),
        }
    }

    /// Asks for the graceful end. Idempotent.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Asks for the end now. Idempotent.
    pub fn force(&self) {
        self.drain.cancel();
        self.force.cancel();
    }

    /// Whether the graceful end has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether the end was forced.
    pub fn is_forced(&self) -> bool {
        self.force.is_cancelled()
    }

    /// Waits for [`drain`](Self::drain) or [`force`](Self::force). Cancel safe.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits for [`force`](Self::force). Cancel safe.
    pub async fn forced(&self) {
        self.force.cancelled().await;
    }
}

/// Pulls the levers on signals until the process ends: the first SIGTERM or SIGINT drains, the second forces.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals(shutdown: Shutdown) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            // Both branches are cancel safe: a signal that arrived is kept until it is received.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_draining() {
                shutdown.force();
                return;
            }
            shutdown.drain();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn force_implies_drain() {
        let shutdown = Shutdown::new();
        shutdown.force();
        assert!(shutdown.is_draining() && shutdown.is_forced());
    }

    #[test]
    fn a_part_stops_alone_and_with_the_whole() {
        let whole = Shutdown::new();
        let (first, second) = (whole.child(), whole.child());
        first.drain();
        assert!(!whole.is_draining() && !second.is_draining());
        whole.drain();
        assert!(second.is_draining() && !second.is_forced());
    }
}
