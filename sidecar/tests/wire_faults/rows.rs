//! The table.

use crate::play::{Row, Then, Wire, play};
use bytes::Bytes;
use std::time::Duration;
use testkit::toxic::{Fault, Harm, Inject, Role, Way, text};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// `basic.deliver`, by class and method.
const DELIVER: (u16, u16) = (60, 60);
/// `basic.ack` down: a publisher confirm.
const CONFIRM: (u16, u16) = (60, 80);

const UP: &[Way] = &[Way::Up];
const DOWN: &[Way] = &[Way::Down];
const BOTH: &[Way] = &[Way::Up, Way::Down];

fn lasting(lasts: Duration, fault: Fault) -> Wire {
    Wire {
        lasts,
        ..Wire::of(fault)
    }
}

/// A connection falls silent: only time tells.
fn half_open(ways: &'static [Way]) -> Wire {
    Wire {
        harms: 2,
        heartbeat: 3,
        ..Wire::of(Fault::BlackHole(ways))
    }
}

/// Both connections are reset, and while others are opened this is wrong.
fn opening(lasts: Duration, fault: Fault) -> Wire {
    Wire {
        harms: 2,
        lasts,
        and_then: Some(fault),
        ..Wire::of(Fault::Reset)
    }
}

fn harm((class, method): (u16, u16), harm: Harm) -> Wire {
    Wire::of(Fault::Harm(class, method, harm))
}

fn inject(role: Role, inject: Inject) -> Wire {
    Wire::of(Fault::Inject(role, inject))
}

macro_rules! rows {
    ($($name:ident: $network:literal, $then:expr, $wire:expr;)+) => {
        /// Every row.
        pub(crate) const ROWS: &[Row] = &[$(Row { name: stringify!($name), network: $network, then: $then }),+];

        $(
            #[tokio::test]
            async fn $name() {
                let row = ROWS.iter().find(|row| row.name == stringify!($name)).unwrap();
                play(*row, $wire).await;
            }
        )+
    };
}

rows! {
    latency: "every byte comes 100 ms later", Then::Carries,
        lasting(SECOND, Fault::Latency(100 * MILLISECOND, Duration::ZERO));
    jitter: "every byte comes 0 to 80 ms later", Then::Carries,
        lasting(SECOND, Fault::Latency(Duration::ZERO, 80 * MILLISECOND));
    one_byte_writes: "every byte comes in a packet of its own", Then::Carries,
        lasting(2 * SECOND, Fault::OneByteWrites);
    split_and_merged_frames: "packets begin and end anywhere in frames", Then::Carries,
        lasting(2 * SECOND, Fault::Resplit);
    bandwidth_1_kib_a_second: "1 KiB/s each way", Then::Carries,
        lasting(5 * SECOND, Fault::Bandwidth(1024));
    stalled_from_the_broker: "nothing is read from the broker for 2 s, and everything comes after that", Then::Carries,
        lasting(2 * SECOND, Fault::Stall(DOWN));
    stalled_to_the_broker: "nothing is read from the sidecar for 2 s, and everything comes after that", Then::Carries,
        lasting(2 * SECOND, Fault::Stall(UP));
    reset: "both connections are reset", Then::Reconnects("the broker cannot be reached"),
        Wire { harms: 2, ..Wire::of(Fault::Reset) };
    half_open_from_the_broker: "nothing comes from the broker any more, not even an end",
        Then::Reconnects("heartbeat"), half_open(DOWN);
    half_open_to_the_broker: "nothing reaches the broker any more, not even an end",
        Then::Reconnects("the broker cannot be reached"), half_open(UP);
    half_open_both_ways: "nothing passes any more, not even an end",
        Then::Reconnects("heartbeat"), half_open(BOTH);
    end_inside_a_frame: "the connection ends (FIN) in the middle of a delivery",
        Then::Reconnects("the broker cannot be reached"), harm(DELIVER, Harm::EndInside);
    corrupt_frame_end: "the last byte of a frame is wrong", Then::Reconnects("is no AMQP any more"),
        harm(DELIVER, Harm::WrongEnd);
    corrupt_frame_type: "a frame has a type that there is not", Then::Reconnects("is no AMQP any more"),
        harm(DELIVER, Harm::WrongType);
    frame_larger_than_negotiated: "a frame is longer than `frame_max`", Then::Reconnects("is no AMQP any more"),
        harm(DELIVER, Harm::Length(100 * 1024));
    frame_larger_than_any_buffer: "a frame says that it is 4 MiB long",
        Then::Reconnects("heartbeat"), Wire { heartbeat: 3, ..harm(DELIVER, Harm::Length(4 * 1024 * 1024)) };
    unexpected_method: "an answer comes that nobody asked for: `queue.declare-ok`", Then::Reconnects("unexpected queue declare-ok"),
        inject(Role::Consuming, Inject::Method(true, 50, 11, Bytes::from([text(b"q"), vec![0; 8]].concat())));
    method_that_there_is_not: "a method comes that AMQP does not have", Then::Reconnects("is no AMQP any more"),
        inject(Role::Consuming, Inject::Method(true, 60, 999, Bytes::new()));
    heartbeats_from_the_broker_lost: "heartbeats of the broker vanish, while the queue is empty",
        Then::Reconnects("heartbeat"),
        Wire { after: 300, harms: 0, heartbeat: 3, ..Wire::of(Fault::NoHeartbeats(DOWN)) };
    heartbeats_to_the_broker_lost: "heartbeats of the sidecar vanish, while the queue is empty",
        Then::Reconnects("the broker cannot be reached"),
        Wire { after: 300, harms: 0, heartbeat: 3, ..Wire::of(Fault::NoHeartbeats(UP)) };
    blocked_and_unblocked: "`connection.blocked` for 2 s, and nothing is read meanwhile", Then::Carries,
        lasting(2 * SECOND, Fault::Blocked("low on memory"));
    connection_close: "the broker says `connection.close` (320)", Then::Reconnects("CONNECTION_FORCED"),
        inject(Role::Consuming, Inject::ConnectionClose(320, "CONNECTION_FORCED - for a test"));
    channel_close: "the broker says `channel.close` (406) out of the blue", Then::Resubscribes("for a test"),
        inject(Role::Consuming, Inject::ChannelClose(406, "PRECONDITION_FAILED - for a test"));
    consumer_cancel: "the broker says `basic.cancel`", Then::Resubscribes("the consumer was cancelled"),
        inject(Role::Consuming, Inject::Cancel);
    slow_handshake: "every frame of the handshake comes 300 ms late, after a reset",
        Then::Reconnects("the broker cannot be reached"), opening(3 * SECOND, Fault::SlowHandshake(300 * MILLISECOND));
    accepted_and_silent: "new connections are accepted and nothing comes, for 12 s, after a reset",
        Then::Reconnects("the broker cannot be reached"), opening(12 * SECOND, Fault::Silent);
    accepted_and_closed: "new connections are closed at once, for 5 s, after a reset",
        Then::Reconnects("the broker cannot be reached"), opening(5 * SECOND, Fault::Refuse);
    deliveries_vanish: "deliveries vanish, and everything else passes", Then::Reconnects("none is delivered"),
        Wire::of(Fault::Swallow(DELIVER.0, DELIVER.1));
    delayed_confirms: "publisher confirms come 2 s late", Then::Carries,
        lasting(3 * SECOND, Fault::Delay(CONFIRM.0, CONFIRM.1, 2 * SECOND));
    delayed_deliveries: "deliveries come 500 ms late", Then::Carries,
        lasting(2 * SECOND, Fault::Delay(DELIVER.0, DELIVER.1, 500 * MILLISECOND));
}
