//! Connections that have switched to another protocol, such as WebSocket: bytes both ways until one side ends.

use crate::load::InFlight;
use crate::proxy::pool::Lease;
use crate::telemetry::Access;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns the tunnels.
#[derive(Debug, Clone)]
pub(crate) struct Tunnels {
    tasks: TaskTracker,
    /// Cancelled when what is still open must end.
    cut: CancellationToken,
}

impl Tunnels {
    /// No tunnels; cancelling `cut` will end all that are opened.
    pub(crate) fn new(cut: CancellationToken) -> Self {
        Self {
            tasks: TaskTracker::new(),
            cut,
        }
    }

    /// Joins the two sides once both have switched. The call counts as in flight until the tunnel ends.
    pub(crate) fn open(&self, caller: OnUpgrade, worker: OnUpgrade, counted: (Lease, InFlight, Access)) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            let _counted = counted;
            let joined = async {
                // A side that never switches, or that breaks off later, has been told so by its own connection.
                let Ok((caller, worker)) = tokio::try_join!(caller, worker) else {
                    return;
                };
                let (mut caller, mut worker) = (TokioIo::new(caller), TokioIo::new(worker));
                let _bytes = tokio::io::copy_bidirectional(&mut caller, &mut worker).await;
            };
            // Dropping the tunnel closes both sides, which is what either branch is for.
            tokio::select! {
                () = joined => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// How many are open.
    pub(crate) fn open_now(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until all have ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
