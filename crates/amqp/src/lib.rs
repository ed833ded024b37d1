//! One way to connect to RabbitMQ, to declare its topology and to publish with a confirm, shared by the components
//! that speak AMQP 0-9-1, so that each of their traps is stepped around in one place.
//!
//! Nothing here recovers by itself: a connection that is lost stays lost, its owner opens a new one. Only so can the
//! owner know that delivery tags of the old one are void (ADR 0002).

mod connection;
mod error;
pub mod legible;
mod publisher;
pub mod topology;
pub mod version;

pub use connection::{Connection, Frames, connect, connect_with};
pub use error::Error;
pub use publisher::{PublishError, Publisher};
