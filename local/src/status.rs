//! Shows the status of a worker whenever it has changed, at a bounded rate.

use crate::display::Screen;
use crate::domain::summary::Summary;
use crate::fleet::WorkerFleet;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// The least time between two status lines.
const LEAST: Duration = Duration::from_millis(100);
/// How often counts are looked at; nothing tells when they change.
const LOOK: Duration = Duration::from_millis(250);
/// The least time between two ordinary lines that differ in nothing but counts.
const LEAST_FOR_COUNTS: Duration = Duration::from_secs(1);

/// Shows `fleet`'s status until `stop`, and then once more if it has changed.
pub(crate) async fn show(fleet: WorkerFleet, screen: Screen, stop: CancellationToken) {
    let mut last: Option<(Summary, Instant)> = None;
    loop {
        let is_over = stop.is_cancelled();
        let summary = fleet.summary();
        let now = Instant::now();
        let is_due = match last {
            None => true,
            Some((shown, _)) if shown == summary => false,
            Some((shown, at)) => {
                is_over
                    || screen.is_live()
                    || !shown.differs_in_counts_only(&summary)
                    || now - at >= LEAST_FOR_COUNTS
            }
        };
        if is_due {
            screen.status(fleet.label(), summary.to_string()).await;
            last = Some((summary, now));
        }
        if is_over {
            return;
        }
        // All are cancel safe.
        tokio::select! {
            () = fleet.changed() => {}
            () = sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
        if !stop.is_cancelled() {
            sleep_until(now + LEAST).await;
        }
    }
}
