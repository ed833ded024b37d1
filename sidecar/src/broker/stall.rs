//! Looks at the queue while nothing is delivered although there is room, and ends a generation that the broker has
//! forgotten.

use super::generation::Generation;
use super::settler::Settler;
use crate::domain::stall::{Decision, LOOK_EVERY, Look, Watch};
use crate::pipeline::Pipeline;
use crate::telemetry;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The longest that the broker may take to tell the depth of the queue.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often connecting anew has not brought a delivery.
#[derive(Debug, Default)]
pub(crate) struct Stalls(AtomicU32);

impl Stalls {
    /// A delivery came: whatever was wrong is over.
    pub(super) fn delivered(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

/// Waits until the broker has kept messages back for too long, and says so; to be begun anew with every delivery.
/// Cancel safe.
pub(super) async fn until_stalled(pipeline: &Pipeline, generation: &Generation, settler: &Settler) -> String {
    let queue = &pipeline.config().queue;
    let stalls = &pipeline.stalls().0;
    let mut watch = Watch::new(generation.is_single_active(), stalls.load(Relaxed));
    let mut holding = None;
    let mut pause = LOOK_EVERY;
    loop {
        // Spread, so that sidecars that were started together do not ask together.
        tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        let look = look(pipeline, generation, settler).await;
        match watch.look(look) {
            Decision::Wait(time) => {
                holding = None;
                pause = time;
            }
            Decision::StandBy(time) => {
                let _held = holding.get_or_insert_with(|| telemetry::stands_by(queue));
                pause = time;
            }
            Decision::Stalled => {
                stalls.fetch_add(1, Relaxed);
                let ready = look.map_or(0, |look| look.ready);
                telemetry::stalled(queue, ready);
                return format!(
                    "{ready} messages are ready in queue {queue:?}, there is room for them, and none is delivered"
                );
            }
        }
    }
}

/// On the connection that publishes: the other one is the one in doubt.
async fn look(pipeline: &Pipeline, generation: &Generation, settler: &Settler) -> Option<Look> {
    if !has_room(pipeline, settler) {
        return None;
    }
    let asking = generation.depth(&pipeline.config().queue);
    let depth = tokio::time::timeout(ANSWER_TIMEOUT, asking).await.ok()?.ok()?;
    Some(Look {
        ready: depth.ready,
        consumers: depth.consumers,
        has_room: has_room(pipeline, settler),
    })
}

/// Whether the worker could take one more message, and the broker may hand it over.
fn has_room(pipeline: &Pipeline, settler: &Settler) -> bool {
    pipeline.has_room() && settler.has_room()
}
