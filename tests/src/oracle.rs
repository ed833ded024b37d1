//! The judge: what the broker confirmed to the publisher against what became of it. Every message has exactly one
//! fate, the one that the worker's answers ask for; what differs is explained by a fault or is found here.

use crate::fate::Fate;
use crate::lane::Setup;
use crate::letters::Letter;
use crate::worker_log::{WorkerLog, id};
use std::collections::BTreeMap;

/// What became of the messages of a lane.
#[derive(Debug, Default)]
pub struct Findings {
    /// Messages that the broker confirmed to the publisher.
    pub published: usize,
    /// Of them, those that the worker accepted.
    pub accepted: usize,
    /// Of them, those that were dead-lettered, by reason.
    pub dead: BTreeMap<String, usize>,
    /// Neither.
    pub lost: Vec<String>,
    /// Both, without a fault that explains it.
    pub contradictory: Vec<String>,
    /// Ended otherwise than the worker's answers say, without a fault that explains it.
    pub unexpected: Vec<String>,
    /// Not what was published: another body, not persistent, or nobody published it.
    pub corrupt: Vec<String>,
    /// Dead letters without reason or journal.
    pub silent: Vec<String>,
    /// Settled more than once: how often too often, over all.
    pub duplicates: usize,
    /// Attempts that the worker was asked for a second time.
    pub repeats: usize,
    /// POSTs.
    pub calls: usize,
}

impl Findings {
    /// Judges the messages `0..published`.
    pub fn of(setup: Setup, published: usize, log: &WorkerLog, letters: &[Letter]) -> Self {
        let mut by_message: Vec<Vec<&Letter>> = vec![Vec::new(); published];
        let mut findings = Self {
            published,
            accepted: log.accepted,
            corrupt: log.corrupt.clone(),
            repeats: log.repeats.len(),
            calls: log.total,
            ..Self::default()
        };
        for letter in letters {
            let known = letter.message.and_then(|number| by_message.get_mut(number));
            match known {
                Some(of_message) if letter.is_whole => of_message.push(letter),
                _ => findings.corrupt.push(format!("{letter:?}")),
            }
        }
        for (number, letters) in by_message.iter().enumerate() {
            findings.judge(setup, number, log.calls(number).accepted as usize, letters);
        }
        findings
    }

    fn judge(&mut self, setup: Setup, number: usize, accepted: usize, letters: &[&Letter]) {
        let id = id(number);
        self.duplicates += (accepted + letters.len()).saturating_sub(1);
        if let Some(letter) = letters.first() {
            *self.dead.entry(letter.reason.clone()).or_default() += 1;
            if letters
                .iter()
                .any(|letter| letter.reason.is_empty() || letter.journal.is_empty())
            {
                self.silent.push(id.clone());
            }
        }
        let is_explained = !letters.is_empty() && letters.iter().all(|letter| letter.tells_of_a_fault());
        let fate = match (accepted, letters.len()) {
            (0, 0) => return self.lost.push(id),
            (1.., 1..) if is_explained => return,
            (1.., 1..) => return self.contradictory.push(id),
            (1.., 0) => Fate::Accepted,
            (0, 1..) => Fate::DeadLettered,
        };
        if fate != setup.mix.row(setup.seed, &id).fate() && !is_explained {
            self.unexpected.push(id);
        }
    }

    /// All dead letters' messages.
    pub fn dead(&self) -> usize {
        self.dead.values().sum()
    }

    /// What must not be, in words; empty when all is well. `bound` is how many duplicates the faults explain.
    pub fn problems(&self, bound: usize) -> Vec<String> {
        let lists = [
            ("lost", &self.lost),
            ("both accepted and dead-lettered", &self.contradictory),
            ("ended otherwise than the worker said", &self.unexpected),
            ("not what was published", &self.corrupt),
            ("dead-lettered without reason or journal", &self.silent),
        ];
        let mut problems: Vec<String> = lists
            .into_iter()
            .filter(|(_, ids)| !ids.is_empty())
            .map(|(what, ids)| format!("{} {what}: {:?}", ids.len(), &ids[..ids.len().min(10)]))
            .collect();
        if self.duplicates > bound {
            problems.push(format!(
                "{} duplicates, which are more than {bound}",
                self.duplicates
            ));
        }
        problems
    }

    /// Panics when there are problems.
    pub fn check(&self, bound: usize) {
        let problems = self.problems(bound);
        assert!(problems.is_empty(), "{problems:#?}");
    }

    /// The figures in one line.
    pub fn line(&self, bound: usize) -> String {
        format!(
            "published={} accepted={} dead={} lost={} duplicates={} (bound {bound}) repeats={} calls={}",
            self.published,
            self.accepted,
            self.dead(),
            self.lost.len(),
            self.duplicates,
            self.repeats,
            self.calls
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fate::Mix;
    use crate::lane::QueueType;
    use std::fs::File;
    use std::io::Write;

    const SETUP: Setup = Setup {
        queue_type: QueueType::Quorum,
        mix: Mix::Quick,
        seed: 7,
        concurrency: 8,
        timeout_seconds: 2,
        max_attempts: 5,
    };

    fn log(lines: &[String], messages: usize) -> WorkerLog {
        let path = std::env::temp_dir().join(testkit::unique("oracle"));
        File::create(&path)
            .unwrap()
            .write_all(lines.concat().as_bytes())
            .unwrap();
        let mut log = WorkerLog::open(&path, messages).unwrap();
        std::fs::remove_file(&path).unwrap();
        log.read().unwrap();
        log
    }

    fn letter(message: usize, reason: &str) -> Letter {
        Letter {
            message: Some(message),
            reason: reason.to_owned(),
            attempts: 1,
            journal: vec![reason.to_owned()],
            is_whole: true,
        }
    }

    /// The numbers of messages that are to be accepted, and to be dead-lettered.
    fn drawn(fate: Fate) -> Vec<usize> {
        (0..100)
            .filter(|number| SETUP.mix.row(SETUP.seed, &id(*number)).fate() == fate)
            .collect()
    }

    fn everything_well() -> (Vec<String>, Vec<Letter>) {
        let lines = drawn(Fate::Accepted)
            .into_iter()
            .map(|number| format!("{} 1 200 5\n", id(number)))
            .collect();
        let letters = drawn(Fate::DeadLettered)
            .into_iter()
            .map(|number| letter(number, "rejected"))
            .collect();
        (lines, letters)
    }

    #[test]
    fn nothing_is_found_when_all_is_well() {
        let (lines, letters) = everything_well();
        let findings = Findings::of(SETUP, 100, &log(&lines, 100), &letters);
        findings.check(0);
        assert_eq!(findings.accepted + findings.dead(), 100);
    }

    /// Takes well-ended logs and letters, and two messages: one accepted, one dead-lettered.
    type Spoil = fn(&mut Vec<String>, &mut Vec<Letter>, usize, usize);

    #[test]
    fn each_thing_that_must_not_be_is_found() {
        let (yes, no) = (drawn(Fate::Accepted)[0], drawn(Fate::DeadLettered)[0]);
        let cases: [(&str, Spoil); 9] = [
            ("1 lost", |lines, _, _, _| drop(lines.remove(0))),
            ("1 lost", |_, letters, _, _| drop(letters.remove(0))),
            ("1 both", |_, letters, yes, _| {
                letters.push(letter(yes, "rejected"));
            }),
            ("1 ended otherwise", |lines, letters, yes, _| {
                lines.remove(0);
                letters.push(letter(yes, "attempts_exhausted"));
            }),
            ("1 ended otherwise", |lines, letters, _, no| {
                letters.remove(0);
                lines.push(format!("{} 1 200 5\n", id(no)));
            }),
            ("1 not what was published", |lines, _, yes, _| {
                lines.push(format!("{} 1 corrupt 5\n", id(yes)));
            }),
            ("1 not what was published", |_, letters, yes, _| {
                letters.push(Letter {
                    is_whole: false,
                    ..letter(yes, "rejected")
                });
            }),
            ("1 dead-lettered without reason", |_, letters, _, _| {
                letters[0].journal.clear();
            }),
            ("1 duplicates", |lines, _, yes, _| {
                lines.push(format!("{} 1 200 6\n", id(yes)));
            }),
        ];
        for (expected, spoil) in cases {
            let (mut lines, mut letters) = everything_well();
            spoil(&mut lines, &mut letters, yes, no);
            let problems = Findings::of(SETUP, 100, &log(&lines, 100), &letters).problems(0);
            assert!(
                problems.iter().any(|problem| problem.starts_with(expected)),
                "{expected}: {problems:?}"
            );
        }
    }

    #[test]
    fn a_worker_that_died_explains_a_dead_letter() {
        let (mut lines, mut letters) = everything_well();
        let yes = drawn(Fate::Accepted)[0];
        lines.remove(0);
        letters.push(letter(yes, "crashed_worker"));
        Findings::of(SETUP, 100, &log(&lines, 100), &letters).check(0);
    }
}
