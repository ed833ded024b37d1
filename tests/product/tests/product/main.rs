//! The product on a real Kubernetes, as a user meets it.
#![expect(clippy::unwrap_used, reason = "everything here is a test")]

mod adopt;
mod calls;
mod rights;
mod scaling_down;
mod trouble;
