//! Queues: made when they are missing, used as they are when they exist, and looked at for settings that lose
//! messages.
//!
//! A queue that exists is never declared with other arguments in earnest. What it was declared with is found out by
//! asking: a declare that differs is refused with a text that names one difference (`PRECONDITION_FAILED -
//! inequivalent arg …`), so each refusal teaches one argument, until a declare that differs in nothing is accepted
//! and changes nothing. Arguments that a policy sets are not visible this way.
//!
//! Channels are dropped when they are done with, and lapin closes them: nobody waits for the broker to say that it knows.

mod inspect;
mod plan;

pub use inspect::Risk;
pub use plan::{QueuePlan, RETRY_QUEUE_SPARE};

use crate::version::Server;
use crate::{Connection, Error};
use inspect::Observed;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

/// What [`ensure_queue`] found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// Whether the queue was missing and has been made.
    pub created: bool,
    /// Settings of a queue that existed already with which messages can be lost.
    pub risks: Vec<Risk>,
    /// Whether it feeds one consumer at a time (`x-single-active-consumer`).
    pub is_single_active: bool,
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Makes the queue of `plan` unless there is one of that name; looks at the one that is there.
///
/// Two callers at once are fine: both declare the same.
///
/// # Errors
/// [`Error::AccessRefused`] without the right to configure a missing queue, [`Error::Locked`] when another connection
/// owns it exclusively, and whatever befalls the connection.
pub async fn ensure_queue(connection: &Connection, plan: &QueuePlan) -> Result<Ensured, Error> {
    let channel = connection.create_channel().await?;
    match passive_declare(&channel, plan.name()).await {
        Ok(_depth) => {
            let observed = if plan.is_worth_inspecting() {
                inspect_queue(connection, channel, plan).await?
            } else {
                Observed::default()
            };
            Ok(Ensured {
                created: false,
                risks: observed.risks(&plan.arguments(), connection.server().and_then(Server::rabbitmq)),
                is_single_active: observed.is_single_active(),
            })
        }
        // The refusal has closed that channel.
        Err(Error::NotFound(_)) => {
            declare_queue(connection, plan).await?;
            Ok(Ensured {
                created: true,
                risks: Vec::new(),
                is_single_active: false,
            })
        }
        Err(error) => Err(error),
    }
}

/// Declares a queue as planned, whether or not it is there; renews the lease of one that expires.
///
/// # Errors
/// [`Error::Precondition`] when it is there with other arguments, and those of [`ensure_queue`].
pub async fn declare_queue(connection: &Connection, plan: &QueuePlan) -> Result<(), Error> {
    let channel = connection.create_channel().await?;
    declare(&channel, plan.name(), &Observed::default(), plan.arguments()).await
}

/// How full a queue is now.
///
/// # Errors
/// [`Error::NotFound`] when there is none, and whatever befalls the connection.
pub async fn depth(connection: &Connection, name: &str) -> Result<Depth, Error> {
    passive_declare(&connection.create_channel().await?, name).await
}

async fn passive_declare(channel: &Channel, name: &str) -> Result<Depth, Error> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await?;
    Ok(Depth {
        ready: declared.message_count(),
        consumers: declared.consumer_count(),
    })
}

/// Learns how a queue was declared, one refusal at a time. Each of them closes its channel.
async fn inspect_queue(
    connection: &Connection,
    mut channel: Channel,
    plan: &QueuePlan,
) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let ours = plan.arguments();
    // Every round learns one of a dozen arguments; a text that teaches nothing ends it.
    for _ in 0..inspect::ARGUMENTS {
        let refusal = match declare(&channel, plan.name(), &observed, observed.arguments_like(&ours)).await {
            Err(Error::Precondition(text)) => text,
            // Without the right to configure, a queue can be used but not looked at.
            Ok(()) | Err(Error::AccessRefused(_)) => break,
            Err(error) => return Err(error),
        };
        if !observed.learn(&refusal) {
            break;
        }
        channel = connection.create_channel().await?;
    }
    Ok(observed)
}

async fn declare(channel: &Channel, name: &str, like: &Observed, arguments: FieldTable) -> Result<(), Error> {
    let options = QueueDeclareOptions {
        durable: like.durable,
        auto_delete: like.auto_delete,
        ..QueueDeclareOptions::default()
    };
    channel.queue_declare(name.into(), options, arguments).await?;
    Ok(())
}
