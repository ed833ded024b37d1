//! What the simulation has found, each with the few events that it takes.

use crate::oracle::Oracle;
use crate::scenario::{DEAD_LETTER, Plan, Process, QUEUE, plan, start};
use crate::worker::{Script, Worker};
use crate::world::{Shared, World, lock};
use amqp::topology::QueuePlan;
use fastrand::Rng;
use lapin::BasicProperties;
use sidecar::{Drained, State};
use std::sync::Arc;
use std::time::Duration;

/// Simulated; nothing here takes as long.
const PATIENCE: Duration = Duration::from_mins(1);
const MOMENT: Duration = Duration::from_millis(200);

struct Scene {
    world: Shared,
    process: Process,
    plan: Plan,
}

impl Scene {
    /// A sidecar with two slots, a queue of messages with these scripts, and no faults but those of the test.
    async fn new(scripts: Vec<Script>, listens: bool, prepare: impl FnOnce(&mut World)) -> Self {
        let mut plan = plan(&mut Rng::with_seed(0));
        plan.config.concurrency = 2;
        plan.config.timeout = Duration::from_secs(1);
        plan.config.grace = Duration::from_secs(6);
        plan.config.max_attempts = 3;
        plan.scripts = scripts;
        let world = World::new(0, Duration::ZERO, None, false);
        {
            let mut world = lock(&world);
            world.is_faulty = false;
            world.oracle = Oracle::of(&plan.config);
            world.declare(&QueuePlan::worker(QUEUE, DEAD_LETTER));
            for _ in &plan.scripts {
                let number = world.oracle.message();
                assert!(world.store(QUEUE, BasicProperties::default(), number.to_string().into_bytes()));
                world.oracle.published(number);
            }
            prepare(&mut world);
        }
        let timeout = plan.config.timeout;
        let worker = Worker::new(Arc::clone(&world), plan.scripts.clone(), timeout, listens);
        let process = start(&world, &plan, 0, worker).await;
        Self { world, process, plan }
    }

    async fn until(&self, wanted: State) {
        let mut state = self.process.handle.watch_state();
        let reached = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state == wanted)).await;
        assert!(reached.is_ok(), "it does not come to be {wanted:?}");
    }

    /// The connection with this role.
    fn connection(&self, role: &str) -> u64 {
        let world = lock(&self.world);
        let found = world
            .connections
            .iter()
            .rfind(|(_, conn)| conn.name.ends_with(role));
        *found.unwrap().0
    }

    /// Drains; everything is right then.
    async fn end(self) {
        self.process.shutdown.drain();
        let drained = tokio::time::timeout(PATIENCE, self.process.task).await.unwrap();
        assert_eq!(drained.unwrap(), Drained::Completely);
        let world = lock(&self.world);
        assert!(world.oracle.wrongs().is_empty(), "{:?}", world.oracle.wrongs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_publishing_connection_ends_a_subscription_that_is_refused() {
    let scene = Scene::new(vec![Script::Good], true, |world| {
        world.rabbit.refuses_consumers = true;
    })
    .await;
    tokio::time::sleep(MOMENT).await;
    let publishing = scene.connection("publishing");
    lock(&scene.world).cut(publishing, Duration::ZERO, Duration::ZERO, "gone");
    tokio::time::sleep(MOMENT).await;
    lock(&scene.world).rabbit.refuses_consumers = false;
    scene.until(State::Consuming).await;
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_alarm_does_not_keep_a_sidecar_from_subscribing_again() {
    let scene = Scene::new(vec![Script::Status(400, 1)], true, |_| {}).await;
    scene.until(State::Consuming).await;
    // A copy was published: that connection is held up.
    tokio::time::sleep(Duration::from_secs(2)).await;
    lock(&scene.world).set_alarm(true);
    let channel = *lock(&scene.world).rabbit.channels.keys().next().unwrap();
    lock(&scene.world).cancel_by_broker(channel);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let consumes = |world: &World| {
        world
            .rabbit
            .channels
            .values()
            .any(|channel| channel.consumes.is_some())
    };
    assert!(consumes(&lock(&scene.world)), "nobody consumes under the alarm");
    lock(&scene.world).set_alarm(false);
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slot_when_its_channel_closes_is_not_posted() {
    let scene = Scene::new(vec![Script::Hang(1); 3], true, |_| {}).await;
    scene.until(State::Consuming).await;
    tokio::time::sleep(MOMENT).await;
    let channel = *lock(&scene.world).rabbit.channels.keys().next().unwrap();
    lock(&scene.world).close_by_broker(channel, "delivery acknowledgement timed out");
    // The two that were posted time out, and the third gets a slot: as it is delivered again.
    tokio::time::sleep(scene.plan.config.timeout * 2).await;
    scene.end().await;
}
