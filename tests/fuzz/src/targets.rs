//! The targets, a file each.

mod answer;
mod broker_url;
mod frames;
mod manifest;
mod message;
mod quantity;
mod response;
mod retry_after;
mod review;
mod route;
mod settings;
mod sidecar_config;
mod sockets;
mod token;
mod verdict;

use crate::Target;

pub(crate) const ALL: &[Target] = &[
    frames::TARGET,
    message::TARGET,
    answer::TARGET,
    response::TARGET,
    verdict::TARGET,
    retry_after::TARGET,
    settings::TARGET,
    quantity::TARGET,
    broker_url::TARGET,
    sidecar_config::TARGET,
    manifest::TARGET,
    review::TARGET,
    route::TARGET,
    sockets::TARGET,
    token::TARGET,
];
