//! Tasks that stay. A task for every delivery would cost as much as all that is decided about it: tokio aligns a task to
//! 128 bytes, which is dear with the C library's allocator.

use super::{Delivery, Pipeline};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// The lanes of a pipeline, as many as there ever were deliveries at once. Each sees one delivery through after another.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The last to become idle is the first to get work: its memory is warm.
    lanes: Vec<Arc<Lane>>,
    is_closed: bool,
}

/// What a lane is handed its work through.
#[derive(Debug, Default)]
struct Lane {
    next: Mutex<Option<Delivery>>,
    /// There is work, or there will be none any more.
    called: Notify,
}

impl Lanes {
    /// Sees a delivery through, on a lane that is idle or on a new one.
    pub(super) fn hand_over(&self, pipeline: &Arc<Pipeline>, delivery: Delivery) {
        let idle = lock(&self.idle).lanes.pop();
        if let Some(lane) = idle {
            *lock(&lane.next) = Some(delivery);
            lane.called.notify_one();
        } else {
            pipeline.tasks.spawn(run(Arc::clone(pipeline), delivery));
        }
    }

    /// Ends every lane once it is idle.
    pub(super) fn close(&self) {
        let mut idle = lock(&self.idle);
        idle.is_closed = true;
        for lane in idle.lanes.drain(..) {
            lane.called.notify_one();
        }
    }

    /// `false` when there will be no more work.
    fn park(&self, lane: &Arc<Lane>) -> bool {
        let mut idle = lock(&self.idle);
        if !idle.is_closed {
            idle.lanes.push(Arc::clone(lane));
        }
        !idle.is_closed
    }
}

async fn run(pipeline: Arc<Pipeline>, first: Delivery) {
    let lane = Arc::new(Lane::default());
    let work = async {
        let mut next = Some(first);
        while let Some(delivery) = next {
            pipeline.handle(delivery).await;
            if !pipeline.lanes.park(&lane) {
                return;
            }
            lane.called.notified().await;
            next = lock(&lane.next).take();
        }
    };
    // When the end is forced the delivery is dropped where it stands: its receipt counts it, and the broker delivers it
    // again.
    tokio::select! {
        biased;
        () = pipeline.shutdown.forced() => {}
        () = work => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("invariant: no holder panics")
}
