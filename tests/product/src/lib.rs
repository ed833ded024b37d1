//! For tests only: the product as a user installs it, on a real Kubernetes.
//!
//! | need | use |
//! |---|---|
//! | the chart installed, with a broker, which all tests of a process share | [`Product::shared`] |
//! | a cluster and a broker, to install it | [`Product::prepare`] |
//! | a namespace with the broker's Secret, Deployments of an ordinary worker in it | [`Shop`] |
//! | what workers did, told by themselves | [`Recorder`] |
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod images;
mod install;
mod kube_api;
mod recorder;
mod shop;

pub use images::{WORKER, root};
pub use install::{Product, SYSTEM};
pub use kube_api::KubeApi;
pub use recorder::{Recorded, Recorder};
pub use shop::{Shop, Worker};
