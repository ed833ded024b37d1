//! What a soak is told.

use crate::lane::QueueType;
use crate::settings::{MESSAGES, SEED, count, number};
use std::time::Duration;

/// How long, how much, from which seed, on which queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Over how long the messages are published and the faults spread. What is open then is waited for.
    pub duration: Duration,
    /// Messages over all queues.
    pub messages: usize,
    /// From which all draws come.
    pub seed: u64,
    /// One lane each.
    pub queue_types: Vec<QueueType>,
    /// Whether anything is killed; without, memory can be told from what faults do to it.
    pub faults: bool,
}

impl Options {
    /// Reads the command line; what it does not say comes from `KUBEDAEMON_MESSAGES` and `KUBEDAEMON_SEED`, or is the
    /// default: 30 minutes, a million messages, a new seed, both types of queue.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut minutes = 30;
        let mut options = Self {
            duration: Duration::ZERO,
            messages: count(MESSAGES, 1_000_000),
            seed: number(SEED).unwrap_or_else(|| fastrand::u64(..)),
            queue_types: vec![QueueType::Classic, QueueType::Quorum],
            faults: true,
        };
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
            let parsed = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{flag}={value} is no whole number"))
            };
            match flag.as_str() {
                "--minutes" => minutes = parsed()?,
                "--messages" => options.messages = usize::try_from(parsed()?).map_err(|e| e.to_string())?,
                "--seed" => options.seed = parsed()?,
                "--queue" => options.queue_types = queue_types(&value)?,
                "--faults" => {
                    options.faults = match value.as_str() {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(format!("--faults={value} is neither yes nor no")),
                    }
                }
                _ => {
                    return Err(format!(
                        "{flag} is not known: use --minutes, --messages, --seed, --queue, --faults"
                    ));
                }
            }
        }
        if minutes == 0 || options.messages == 0 {
            return Err("a soak takes at least a minute and a message".to_owned());
        }
        options.duration = Duration::from_secs(minutes * 60);
        Ok(options)
    }
}

fn queue_types(word: &str) -> Result<Vec<QueueType>, String> {
    match word {
        "classic" => Ok(vec![QueueType::Classic]),
        "quorum" => Ok(vec![QueueType::Quorum]),
        "both" => Ok(vec![QueueType::Classic, QueueType::Quorum]),
        _ => Err(format!("--queue={word} is none of classic, quorum, both")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(words.iter().map(ToString::to_string))
    }

    #[test]
    fn flags_are_read() {
        let options = parse(&[
            "--minutes",
            "2",
            "--messages",
            "7",
            "--seed",
            "5",
            "--queue",
            "quorum",
        ]);
        assert_eq!(
            options.unwrap(),
            Options {
                duration: Duration::from_mins(2),
                messages: 7,
                seed: 5,
                queue_types: vec![QueueType::Quorum],
                faults: true,
            }
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, part) in [
            (&["--minutes"][..], "--minutes needs a value"),
            (&["--messages", "many"], "no whole number"),
            (&["--hours", "1"], "--hours is not known"),
            (&["--queue", "stream"], "none of classic, quorum, both"),
            (&["--faults", "some"], "neither yes nor no"),
            (&["--minutes", "0"], "at least a minute"),
        ] {
            let sentence = parse(words).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
