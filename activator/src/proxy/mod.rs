//! HTTP on both sides: the server that callers reach, the connections to workers, and what passes between.

pub(crate) mod body;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod pool;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod tunnel;
pub(crate) mod upstream;
