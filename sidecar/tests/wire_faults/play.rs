//! One case: load, a fault, its end, and the account.

use crate::support::{PATIENCE, Scene};
use lapin::BasicProperties;
use sidecar::State;
use std::collections::BTreeMap;
use std::time::Duration;
use testkit::logs::Logs;
use testkit::say;
use testkit::toxic::{Fault, Toxic};
use testkit::wait::until;
use testkit::worker::{Answer, Received};
use tokio::time::Instant;

/// Concurrency 8 and a spare of 7.
const PREFETCH: usize = 15;

/// Of one generation: one that consumes, one that publishes.
const CONNECTIONS: usize = 2;

/// What the sidecar is to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// No connection is lost.
    Carries,
    /// The connection is given up with a sentence that contains this, and another one made.
    Reconnects(&'static str),
    /// The subscription is made anew on the same connection; the sentence contains this.
    Resubscribes(&'static str),
}

impl Then {
    /// The words of the reference page.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Carries => "goes on".to_owned(),
            Self::Reconnects(why) => format!("connects anew: \"{why}\""),
            Self::Resubscribes(why) => format!("subscribes anew: \"{why}\""),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) network: &'static str,
    pub(crate) then: Then,
}

/// How a row is played.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) fault: Fault,
    /// Messages that are published.
    pub(crate) messages: usize,
    /// How many the worker has had when it begins.
    pub(crate) after: usize,
    /// How long it lasts once it has harmed somebody; of what breaks a connection, at least until that is noticed.
    pub(crate) lasts: Duration,
    /// How many connections it harms.
    pub(crate) harms: usize,
    /// Seconds between heartbeats.
    pub(crate) heartbeat: u16,
    /// What follows at once and lasts in its place: for faults of connections that are being opened.
    pub(crate) and_then: Option<Fault>,
}

impl Wire {
    /// 300 messages; the fault begins with the fiftieth, and harms one connection.
    pub(crate) fn of(fault: Fault) -> Self {
        Self {
            fault,
            messages: 300,
            after: 50,
            lasts: Duration::ZERO,
            harms: 1,
            heartbeat: 10,
            and_then: None,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads its seed from the environment"
)]
pub(crate) fn seed(name: &str) -> u64 {
    let given = std::env::var("KUBEDAEMON_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    say(&format!(
        "{name}: seed {seed}, replay with KUBEDAEMON_SEED={seed}"
    ));
    seed
}

/// A message whose first attempt fails, so that copies are published too.
pub(crate) fn fails_first(body: &str) -> bool {
    body.ends_with('7')
}

pub(crate) async fn scene(toxic: &Toxic, heartbeat: u16) -> Scene {
    let broker = testkit::broker().await;
    let through = format!("127.0.0.1:{}/", toxic.port());
    let url = broker
        .url()
        .replace(&format!("127.0.0.1:{}/", broker.port()), &through);
    let url = format!("{url}?heartbeat={heartbeat}");
    let script = |request: &Received| {
        let fails = fails_first(&request.text()) && request.header("x-delivery-attempt") == "1";
        Answer::status(if fails { 500 } else { 200 }).after(Duration::from_millis(5))
    };
    Scene::with(broker, script, |config| {
        config.concurrency = 8;
        config.broker = url.parse().unwrap();
    })
    .await
}

async fn publish(scene: &Scene, messages: usize) {
    let bodies = (0..messages).map(|number| (number.to_string(), BasicProperties::default()));
    scene.amqp.publish_many(&scene.queue, bodies).await;
}

/// Lines about connections and subscriptions that ended.
fn ends(logs: &Logs) -> Vec<String> {
    let mut ends = logs.matching("broker connection lost");
    ends.extend(logs.matching("the broker ended the consumer"));
    ends
}

pub(crate) async fn play(row: Row, wire: Wire) {
    let broker = testkit::broker().await;
    let toxic = Toxic::before(broker.port(), seed(row.name));
    let scene = scene(&toxic, wire.heartbeat).await;
    let logs = testkit::logs::capture();
    publish(&scene, wire.messages).await;
    scene.worker.wait_for(wire.after).await;

    let begun = Instant::now();
    toxic.set(wire.fault);
    until("the fault has harmed a connection", PATIENCE, || async {
        toxic.harmed() >= wire.harms
    })
    .await;
    let opens = wire.and_then.is_some();
    if let Some(fault) = wire.and_then {
        toxic.set(fault);
    }
    tokio::time::sleep(wire.lasts).await;
    let noticed = match row.then {
        Then::Carries => None,
        Then::Reconnects(_) | Then::Resubscribes(_) => {
            until("the fault is noticed", 2 * PATIENCE, || async {
                !ends(&logs).is_empty()
            })
            .await;
            Some(begun.elapsed())
        }
    };
    toxic.heal();
    let healed = Instant::now();
    scene.until_state(State::Consuming).await;
    let back = healed.elapsed();
    let account = Account::at_the_end(&scene, &toxic, wire.messages).await;
    let all = healed.elapsed();

    let ends = ends(&logs);
    let connections = toxic.connections().len();
    let tries = logs.matching("broker cannot be used");
    assert!(
        tries.len() <= connections / 2,
        "no more than one line a try: {tries:#?}"
    );
    say(&format!(
        "{}: noticed after {noticed:?}, back {back:?} after its end, all done {all:?} after it; {} losses, \
         {connections} connections, {} duplicates, bytes {:?}",
        row.name,
        ends.len(),
        account.duplicates,
        toxic.bytes(),
    ));
    for end in &ends {
        say(&format!("{}: {end}", row.name));
    }
    match row.then {
        Then::Carries => assert!(ends.is_empty(), "{ends:#?}"),
        Then::Reconnects(why) | Then::Resubscribes(why) => {
            assert!(ends[0].contains(why), "{why:?} is not in {ends:#?}");
            let is_whole = ends[0].contains("broker connection lost");
            assert_eq!(is_whole, matches!(row.then, Then::Reconnects(_)), "{ends:#?}");
            assert!(ends.len() <= 2, "{ends:#?}");
        }
    }
    // While none can be opened there are more tries, with a pause of 3 s at most between them.
    let generations = ends.len() + 1;
    let most = CONNECTIONS * generations + if opens { 30 } else { 2 };
    assert!(
        connections <= most,
        "{connections} connections for {generations} generations"
    );
    assert!(
        account.duplicates <= 2 * PREFETCH * ends.len(),
        "{} duplicates of {} losses",
        account.duplicates,
        ends.len()
    );
    scene.end().await;
}

/// What the worker has had.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) duplicates: usize,
}

impl Account {
    /// Waits until every message has been accepted and nothing is left anywhere.
    pub(crate) async fn at_the_end(scene: &Scene, toxic: &Toxic, messages: usize) -> Self {
        // What a connection held that the broker believes in comes back when it no longer does.
        until(
            "those that ended are gone on either side",
            2 * PATIENCE,
            || async { toxic.open() <= CONNECTIONS },
        )
        .await;
        let is_done =
            |request: &Received| !fails_first(&request.text()) || request.header("x-delivery-attempt") != "1";
        until("the worker has accepted every message", PATIENCE, || async {
            let mut accepted = BTreeMap::new();
            for request in scene.worker.requests().iter().filter(|request| is_done(request)) {
                *accepted.entry(request.text()).or_insert(0_usize) += 1;
            }
            accepted.len() == messages
        })
        .await;
        for delay in ["100ms", "200ms"] {
            let retries = format!("{}.retry.{delay}", scene.queue);
            until("no copy is left", PATIENCE, || async {
                scene
                    .amqp
                    .depth(&retries)
                    .await
                    .is_none_or(|(ready, _)| ready == 0)
            })
            .await;
        }
        until("nothing is in flight and nothing waits", PATIENCE, || async {
            scene.sidecar.handle.status().in_flight == 0
                && scene
                    .amqp
                    .depth(&scene.queue)
                    .await
                    .is_some_and(|(ready, _)| ready == 0)
        })
        .await;
        let twice = (0..messages)
            .filter(|number| fails_first(&number.to_string()))
            .count();
        Self {
            duplicates: scene.worker.count() - messages - twice,
        }
    }
}
