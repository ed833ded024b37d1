//! Shapes of load, from the publish to the last replica's end. `World` panics when a busy replica is removed.

use crate::stage::Stage;
use crate::world::policy;
use autoscaler::domain::Calls;
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn the_first_message_starts_a_replica_within_a_poll() {
    let stage = Stage::new(policy(0, 10, 10, 1));
    for offset in [0, 1, 17, 100, 249, 250, 251, 333] {
        stage
            .until("zero replicas", |world| world.workers.is_empty())
            .await;
        sleep(Duration::from_millis(2000 + offset)).await;
        stage.world().publish(1, 5);
        let took = stage.until("a replica", |world| !world.workers.is_empty()).await;
        assert!(took <= 260, "{took} ms from the publish to the start");
        stage
            .until("the message's end", |world| {
                world.queue.is_empty() && world.in_flight() == 0
            })
            .await;
    }
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_scales_to_the_maximum_and_back_to_zero() {
    let stage = Stage::new(policy(0, 10, 10, 30));
    stage.pass(5).await;
    stage.world().publish(500, 1000);
    let up = stage.until("ten replicas", |world| world.active() == 10).await;
    assert!(up <= 260, "{up}");
    stage
        .until("the end of the work", |world| world.done == 500)
        .await;
    assert_eq!(stage.snapshot().active(), 10, "all stay through the cool-down");
    let down = stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    assert!((29_000..35_000).contains(&down), "{down}");
    assert_eq!(stage.snapshot().turns(), 1);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn steady_load_keeps_a_steady_count() {
    let stage = Stage::new(policy(0, 10, 2, 30));
    // Ten messages a second of 0.4 s: four at work at any time, two replicas' worth and a little more.
    for _ in 0..1200 {
        stage.world().publish(5, 400);
        sleep(Duration::from_millis(500)).await;
    }
    let (turns, active) = (stage.snapshot().turns(), stage.snapshot().active());
    // In ten minutes with a cool-down of 30 s there is time for twenty changes of direction.
    assert!(
        turns <= 2,
        "{turns} changes of direction: {:?}",
        stage.snapshot().history
    );
    assert!((4..=7).contains(&active), "{active}");
    stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    assert_eq!(stage.snapshot().done, 6000);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_trickle_faster_than_the_cool_down_keeps_one_replica() {
    let stage = Stage::new(policy(0, 10, 10, 60));
    for _ in 0..60 {
        // Too short to be seen by a sample: only the replica knows when it was at work.
        stage.world().publish(1, 5);
        sleep(Duration::from_millis(10_037)).await;
    }
    assert_eq!(
        stage.snapshot().history.len(),
        2,
        "up once: {:?}",
        stage.snapshot().history
    );
    assert_eq!(stage.snapshot().done, 60);
    let down = stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    assert!((45_000..60_000).contains(&down), "{down}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_trickle_slower_than_the_cool_down_wakes_for_each_message() {
    let stage = Stage::new(policy(0, 10, 10, 5));
    for _ in 0..10 {
        stage.world().publish(1, 5);
        sleep(Duration::from_millis(20_037)).await;
    }
    let world = stage.snapshot();
    assert_eq!((world.done, world.workers.len()), (10, 0));
    let starts = world.history.iter().filter(|(_, active)| *active == 1).count();
    assert_eq!(starts, 10, "{:?}", world.history);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_message_and_an_empty_queue_never_lose_their_replica() {
    let stage = Stage::new(policy(0, 10, 1, 5));
    stage.world().publish(1, 600_000);
    stage.until("it is taken", |world| world.in_flight() == 1).await;
    for _ in 0..590 {
        stage.pass(1).await;
        let world = stage.snapshot();
        assert_eq!((world.queue.len(), world.in_flight(), world.active()), (0, 1, 1));
    }
    stage.until("it is done", |world| world.done == 1).await;
    stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn idle_neighbours_of_a_slow_message_go() {
    let stage = Stage::new(policy(0, 10, 1, 5));
    stage.world().publish(4, 100);
    stage.world().publish(1, 600_000);
    stage
        .until("the short ones are done", |world| world.done == 4)
        .await;
    stage.pass(10).await;
    let world = stage.snapshot();
    assert_eq!((world.in_flight(), world.workers.len()), (1, 1));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn load_that_returns_takes_draining_replicas_back() {
    let stage = Stage::new(policy(0, 3, 1, 5));
    stage.world().concurrency = 1;
    stage.world().publish(3, 100);
    stage.until("three replicas", |world| world.active() == 3).await;
    stage
        .until("they are draining", |world| {
            !world.workers.is_empty() && world.active() == 0
        })
        .await;
    let names: Vec<_> = stage
        .world()
        .workers
        .iter()
        .map(|worker| worker.id.clone())
        .collect();
    stage.world().publish(3, 1000);
    stage
        .until("they are at work again", |world| world.in_flight() == 3)
        .await;
    assert_eq!(
        stage
            .world()
            .workers
            .iter()
            .map(|worker| worker.id.clone())
            .collect::<Vec<_>>(),
        names
    );
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_wakes_at_once_and_its_end_begins_the_cool_down() {
    let stage = Stage::new(policy(0, 10, 10, 20));
    stage.pass(60).await;
    sleep(Duration::from_millis(77)).await;
    stage.calls.send_replace(Calls::Known(1));
    let took = stage.until("a replica", |world| world.active() == 1).await;
    assert!(took <= 10, "{took} ms from the call to the start");
    // A call of ten minutes: nothing is in the queue, nothing in flight at the sidecar.
    stage.pass(600).await;
    assert_eq!(stage.snapshot().active(), 1);
    stage.calls.send_replace(Calls::Known(0));
    let down = stage
        .until("zero replicas", |world| world.workers.is_empty())
        .await;
    assert!((19_000..23_000).contains(&down), "{down}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn short_calls_between_samples_keep_one_replica() {
    let stage = Stage::with(policy(0, 10, 10, 15), None, None);
    for _ in 0..40 {
        stage.calls.send_replace(Calls::Known(1));
        sleep(Duration::from_millis(3)).await;
        stage.calls.send_replace(Calls::Known(0));
        sleep(Duration::from_millis(9_700)).await;
    }
    assert_eq!(
        stage.snapshot().history.len(),
        2,
        "up once: {:?}",
        stage.snapshot().history
    );
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_minimum_is_always_there() {
    let stage = Stage::new(policy(2, 10, 10, 5));
    let took = stage.until("two replicas", |world| world.active() == 2).await;
    assert!(took <= 10, "{took}");
    stage.world().publish(50, 100);
    stage.until("five replicas", |world| world.active() == 5).await;
    stage
        .until("two replicas", |world| world.workers.len() == 2)
        .await;
    stage.pass(300).await;
    assert_eq!(stage.snapshot().workers.len(), 2);
    stage.stop().await;
}
