//! What is in a dead-letter queue, without the bodies.

use crate::fate::hash_bytes;
use crate::worker_log::number;
use testkit::{Amqp, Message};

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The number of its message; `None` when its id is none of ours.
    pub message: Option<usize>,
    /// Why it was given up; empty when it does not say.
    pub reason: String,
    /// Attempts that count.
    pub attempts: i64,
    /// The reasons of its attempts, from its journal.
    pub journal: Vec<String>,
    /// Whether it is persistent and its body is what was published.
    pub is_whole: bool,
}

impl Letter {
    fn of(seed: u64, message: &Message) -> Self {
        let checksum = hash_bytes(seed, &message.body).to_string();
        let id = message.properties.message_id().as_ref();
        Self {
            message: id.and_then(|id| number(id.as_str())),
            reason: message.header_text("x-kubedaemon-reason").unwrap_or_default(),
            attempts: message.header_number("x-kubedaemon-attempts").unwrap_or(0),
            journal: journal(message),
            is_whole: message.header_text("checksum").as_deref() == Some(checksum.as_str())
                && *message.properties.delivery_mode() == Some(2),
        }
    }

    /// Whether something else than the worker's answers had a part in it: its process died with the message in hand.
    pub fn tells_of_a_fault(&self) -> bool {
        let crash = "crashed_worker";
        self.reason == crash || self.journal.iter().any(|reason| reason == crash)
    }
}

fn journal(message: &Message) -> Vec<String> {
    let Some(lapin::types::AMQPValue::FieldArray(lines)) = message.header("x-kubedaemon-journal") else {
        return Vec::new();
    };
    let line = |value: &lapin::types::AMQPValue| match value {
        lapin::types::AMQPValue::LongString(line) => String::from_utf8_lossy(line.as_bytes()).into_owned(),
        _ => String::new(),
    };
    let reason = |line: String| {
        let reason = line.split(' ').find_map(|word| word.strip_prefix("reason="));
        reason.unwrap_or_default().to_owned()
    };
    lines.as_slice().iter().map(|value| reason(line(value))).collect()
}

/// Takes every letter out of the queue.
pub async fn take_all(amqp: &Amqp, queue: &str, seed: u64) -> Vec<Letter> {
    let mut letters = Vec::new();
    amqp.take_all(queue, |message| letters.push(Letter::of(seed, &message)))
        .await;
    letters
}
