//! The one place that writes acknowledgements on a channel, in order.
//!
//! `Ok` from lapin means "written to the socket", never "processed" (RabbitMQ does not confirm acknowledgements). So
//! a written acknowledgement may still be lost with its connection; then the broker delivers the message again.

use super::port::Channel;
use crate::domain::ack_window::{AckWindow, FlushPolicy, Tag, Write};
use crate::status::{Fate, Ledger};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The longest that a broker may take to answer the close of a channel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Hands out the rights to settle on one channel. When the last right is used and the settler dropped, what waits is
/// written and the channel closed.
#[derive(Debug, Clone)]
pub(super) struct Settler(Arc<Rights>);

/// What all rights on a channel share.
#[derive(Debug)]
struct Rights {
    commands: mpsc::Sender<Command>,
    outstanding: Arc<AtomicUsize>,
    ledger: Arc<Ledger>,
    channel: Arc<dyn Channel>,
}

#[derive(Debug, Clone, Copy)]
struct Command {
    tag: Tag,
    action: Action,
    fate: Option<Fate>,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Ack,
    Release,
}

/// The single right to settle one delivery. Settling consumes it; dropping it unused counts the message as lost: the
/// broker delivers it again when the channel closes.
#[derive(Debug)]
pub struct Receipt {
    tag: Tag,
    settler: Option<Settler>,
}

impl Settler {
    /// A settler for `channel`, with room for `prefetch` rights at once.
    pub(super) fn start(
        channel: Arc<dyn Channel>,
        prefetch: u16,
        policy: FlushPolicy,
        ledger: Arc<Ledger>,
        tasks: &TaskTracker,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(usize::from(prefetch).max(1));
        let outstanding = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            policy,
            channel: Arc::clone(&channel),
            window: AckWindow::new(),
            waiting: Vec::new(),
            outstanding: Arc::clone(&outstanding),
            ledger: Arc::clone(&ledger),
        };
        // Ends when the last right is gone.
        tasks.spawn(writer.run(receiver));
        Self(Arc::new(Rights {
            commands,
            outstanding,
            ledger,
            channel,
        }))
    }

    /// Whether the broker may hand over another delivery: fewer are out than the prefetch.
    pub(super) fn has_room(&self) -> bool {
        self.0.outstanding.load(Relaxed) < self.0.commands.max_capacity()
    }

    /// The right to settle the delivery with this tag.
    pub(super) fn receipt(&self, tag: Tag) -> Receipt {
        self.0.outstanding.fetch_add(1, Relaxed);
        Receipt {
            tag,
            settler: Some(self.clone()),
        }
    }
}

impl Receipt {
    /// Acknowledges: the message's fate is safe.
    pub fn ack(mut self, fate: Fate) {
        self.send(Action::Ack, Some(fate));
    }

    /// Gives the message back.
    pub fn release(mut self, fate: Fate) {
        self.send(Action::Release, Some(fate));
    }

    /// Whether nothing can be settled any more: the channel is gone, and the broker delivers the message again.
    pub(crate) fn is_void(&self) -> bool {
        self.settler
            .as_ref()
            .is_none_or(|Settler(rights)| !rights.channel.is_open())
    }

    /// Gives back a message that was never dispatched, and so has no fate to count.
    pub(super) fn hand_back(mut self) {
        self.send(Action::Release, None);
    }

    fn send(&mut self, action: Action, fate: Option<Fate>) {
        let Some(Settler(rights)) = self.settler.take() else {
            return;
        };
        rights.outstanding.fetch_sub(1, Relaxed);
        let command = Command {
            tag: self.tag,
            action,
            fate,
        };
        // Never full: the broker hands out no more than prefetch, and there is room for as many. Closed means that
        // the writer has gone with its channel.
        if rights.commands.try_send(command).is_err() && fate.is_some() {
            rights.ledger.count(Fate::Lost);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(Settler(rights)) = self.settler.take() {
            rights.outstanding.fetch_sub(1, Relaxed);
            rights.ledger.count(Fate::Lost);
        }
    }
}

struct Writer {
    policy: FlushPolicy,
    channel: Arc<dyn Channel>,
    window: AckWindow,
    /// Fates of what was taken and not written yet.
    waiting: Vec<Fate>,
    outstanding: Arc<AtomicUsize>,
    ledger: Arc<Ledger>,
}

impl Writer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // One timer for all: it is set with the first acknowledgement that waits.
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let waited_before = self.window.pending() > 0;
            // Both branches are cancel safe.
            let command = tokio::select! {
                biased;
                command = commands.recv() => command,
                () = &mut timer, if waited_before => {
                    self.flush();
                    continue;
                }
            };
            let Some(command) = command else { break };
            let now = Instant::now().into_std();
            self.take(command, now);
            while let Ok(command) = commands.try_recv() {
                self.take(command, now);
            }
            let is_idle = self.outstanding.load(Relaxed) == 0;
            if self.window.is_due(self.policy, now, is_idle) {
                self.flush();
            } else if let Some(due) = self.window.due(self.policy).filter(|_| !waited_before) {
                timer.as_mut().reset(due.into());
            }
        }
        self.flush();
        // The broker processes what was written before it answers the close.
        let _closed = tokio::time::timeout(CLOSE_TIMEOUT, self.channel.close()).await;
    }

    fn take(&mut self, command: Command, now: std::time::Instant) {
        let Command { tag, action, fate } = command;
        match action {
            Action::Ack => {
                let is_first = self.window.ack(tag, now);
                debug_assert!(is_first, "a receipt settles once");
                self.waiting.extend(fate);
            }
            Action::Release => {
                let write = self.window.release(tag);
                debug_assert!(write.is_some(), "a receipt settles once");
                let is_written = write.is_none_or(|write| self.write(write));
                self.count(fate, is_written);
            }
        }
    }

    fn flush(&mut self) {
        let mut is_written = true;
        for write in self.window.flush() {
            is_written &= self.write(write);
        }
        for fate in std::mem::take(&mut self.waiting) {
            self.count(Some(fate), is_written);
        }
    }

    fn count(&self, fate: Option<Fate>, is_written: bool) {
        let Some(fate) = fate else { return };
        let fate = if is_written { fate } else { Fate::Lost };
        self.ledger.count(fate);
    }

    fn write(&self, write: Write) -> bool {
        match write {
            Write::Ack { tag, multiple } => self.channel.ack(tag, multiple),
            Write::Release { tag } => self.channel.release(tag),
        }
    }
}

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "the checker tells how far it went")]
mod model;
