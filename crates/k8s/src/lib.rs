//! Process plumbing for programs that talk to a Kubernetes API server. No product words.
//!
//! | need | use |
//! |---|---|
//! | clients that give up on a server that does not answer | [`connect`], [`connect_with`], [`Clients`] |
//! | what the cluster looks like now, and to be told when it changes | [`View`] |
//! | an error of the API server as a sentence | [`sentence`] |
//! | what keeps a pod from running | [`pods`] |

mod clients;
pub mod pods;
mod view;

pub use clients::{Clients, ConnectError, connect, connect_with, sentence};
pub use view::{Trouble, View};
