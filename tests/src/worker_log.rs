//! What a test worker wrote down: every POST that it got, and what it did.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

/// The id of message `number`, of a fixed length.
pub fn id(number: usize) -> String {
    format!("m{number:07}")
}

/// The number of the message with this id; `None` when we did not name it.
pub fn number(id: &str) -> Option<usize> {
    id.strip_prefix('m')?.parse().ok()
}

/// What the worker had to do with one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// POSTs.
    pub all: u32,
    /// POSTs that were answered with a yes.
    pub accepted: u32,
    /// When the latest one was answered, in nanoseconds since the epoch.
    latest_ns: u64,
    /// Whether the latest one was answered completely.
    answered: bool,
    /// A bit for each attempt number that was seen.
    attempts: u64,
}

/// The same attempt of the same message, asked for a second time: the first one's settlement was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// When the earlier POST was answered, in nanoseconds since the epoch.
    pub earlier_ns: u64,
    /// Whether that answer was a whole one.
    pub answered: bool,
    /// When the later one was answered.
    pub later_ns: u64,
}

/// The log of one worker, read as it grows.
#[derive(Debug)]
pub struct WorkerLog {
    reader: BufReader<File>,
    calls: Vec<Calls>,
    /// POSTs in all.
    pub total: usize,
    /// Messages with at least one yes.
    pub accepted: usize,
    /// Ids whose bodies were not what was published, or that nobody published.
    pub corrupt: Vec<String>,
    /// Attempts that came again.
    pub repeats: Vec<Repeat>,
    line: String,
}

impl WorkerLog {
    /// The log at `path`, of `messages` messages.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path, messages: usize) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::new(File::open(path)?),
            calls: vec![Calls::default(); messages],
            total: 0,
            accepted: 0,
            corrupt: Vec::new(),
            repeats: Vec::new(),
            line: String::new(),
        })
    }

    /// What the worker had to do with message `number`.
    pub fn calls(&self, number: usize) -> Calls {
        self.calls.get(number).copied().unwrap_or_default()
    }

    /// Reads what was written since.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self) -> io::Result<()> {
        let mut line = std::mem::take(&mut self.line);
        loop {
            line.clear();
            let read = self.reader.read_line(&mut line)?;
            if read == 0 {
                break;
            }
            if !line.ends_with('\n') {
                // Half a line: the rest comes later.
                let back = i64::try_from(read).map_err(io::Error::other)?;
                self.reader.seek(SeekFrom::Current(-back))?;
                break;
            }
            self.take(&line);
        }
        self.line = line;
        Ok(())
    }

    fn take(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_default();
        let (id, attempt, said, at) = (word(), word(), word(), word());
        let attempt: u32 = attempt.parse().unwrap_or(0);
        let at: u64 = at.parse().unwrap_or(0);
        self.total += 1;
        let Some(calls) = number(id).and_then(|number| self.calls.get_mut(number)) else {
            self.corrupt.push(id.to_owned());
            return;
        };
        calls.all += 1;
        let bit = 1_u64.checked_shl(attempt).unwrap_or(1);
        if calls.attempts & bit != 0 {
            self.repeats.push(Repeat {
                earlier_ns: calls.latest_ns,
                answered: calls.answered,
                later_ns: at,
            });
        }
        calls.attempts |= bit;
        calls.latest_ns = at;
        calls.answered = !matches!(said, "hang" | "drop" | "cut" | "crash");
        match said {
            "200" | "204" => {
                self.accepted += usize::from(calls.accepted == 0);
                calls.accepted += 1;
            }
            "corrupt" => self.corrupt.push(id.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_counted_also_when_they_come_in_halves() {
        let path = std::env::temp_dir().join(testkit::unique("worker-log"));
        let mut file = File::create(&path).unwrap();
        let mut log = WorkerLog::open(&path, 3).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"m0000001 1 500 10\nm0000001 1 500 11\nm0000001 2 20")
            .unwrap();
        log.read().unwrap();
        assert_eq!((log.total, log.accepted), (2, 0));
        file.write_all(b"0 12\nm0000002 1 corrupt 13\nm0000009 1 200 14\n")
            .unwrap();
        log.read().unwrap();
        assert_eq!((log.total, log.accepted), (5, 1));
        let calls = log.calls(1);
        assert_eq!((calls.all, calls.accepted), (3, 1));
        assert_eq!(
            log.repeats,
            [Repeat {
                earlier_ns: 10,
                answered: true,
                later_ns: 11
            }]
        );
        assert_eq!(log.corrupt, ["m0000002", "m0000009"]);
    }
}
