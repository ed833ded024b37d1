//! The product on a real Kubernetes while parts of it, or of what it stands on, are away. The tests take turns: each
//! takes something away from all.
#![expect(clippy::unwrap_used, reason = "everything here is a test")]

mod away;
mod leader;
mod node;
mod turns;
