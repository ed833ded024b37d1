//! AMQP 0-9-1: connections, consuming, settling, copies, replies.

mod copies;
mod generation;
pub mod port;
mod properties;
mod rabbitmq;
mod replies;
mod session;
mod settler;
mod stall;
mod supervisor;

pub use copies::Copies;
pub use properties::{Original, of_copy, take_apart};
pub use rabbitmq::RabbitMq;
pub use settler::Receipt;
pub(crate) use stall::Stalls;
pub use supervisor::Supervisor;
