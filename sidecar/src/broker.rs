//! AMQP 0-9-1: connections, consuming, settling, copies.

mod copies;
mod generation;
mod properties;
mod session;
mod settler;
mod supervisor;

pub use copies::Copies;
pub use properties::Original;
pub use settler::Receipt;
pub use supervisor::Supervisor;
