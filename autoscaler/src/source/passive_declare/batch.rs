//! One round of questions: which queues are still to be asked, and in which order. Pure.

use crate::domain::{Depth, QueueName, SampleError};
use std::collections::VecDeque;

/// Longest name in bytes. Source: AMQP 0-9-1 specification, short string.
const MAX_NAME_BYTES: usize = 255;

/// What is already known of a queue before it is asked.
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// It made trouble some time ago: to be asked last.
    Trouble,
    /// It made trouble just now: not to be asked again yet.
    TroubleJustNow(SampleError),
}

/// The broker answers in the order of the questions, so whoever is first in `rest` is the one that an answer, a
/// refusal or a silence is about.
pub(super) struct Batch<'a> {
    queues: &'a [QueueName],
    results: Vec<Option<Result<Depth, SampleError>>>,
    rest: VecDeque<usize>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(queues: &'a [QueueName], before: impl Fn(&QueueName) -> Before) -> Self {
        let mut batch = Self {
            queues,
            results: vec![None; queues.len()],
            rest: VecDeque::new(),
        };
        let mut last = VecDeque::new();
        for (index, queue) in queues.iter().enumerate() {
            if let Err(error) = check(queue) {
                batch.results[index] = Some(Err(error));
                continue;
            }
            match before(queue) {
                Before::Nothing => batch.rest.push_back(index),
                Before::Trouble => last.push_back(index),
                Before::TroubleJustNow(error) => batch.results[index] = Some(Err(error)),
            }
        }
        batch.rest.append(&mut last);
        batch
    }

    /// The queues without an answer, in the order in which they are to be asked.
    pub(super) fn rest(&self) -> impl Iterator<Item = &'a QueueName> + use<'_, 'a> {
        self.rest.iter().map(|index| &self.queues[*index])
    }

    /// The queue that the next answer is about; `None` when all are answered.
    pub(super) fn first(&self) -> Option<&'a QueueName> {
        self.rest.front().map(|index| &self.queues[*index])
    }

    /// Takes what came for the first of the rest.
    pub(super) fn answer(&mut self, answer: Result<Depth, SampleError>) {
        if let Some(index) = self.rest.pop_front() {
            self.results[index] = Some(answer);
        }
    }

    /// Gives all of the rest up.
    pub(super) fn give_up(&mut self, error: impl Fn(&QueueName) -> SampleError) {
        for index in self.rest.drain(..) {
            self.results[index] = Some(Err(error(&self.queues[index])));
        }
    }

    /// One result for each queue, in their order.
    pub(super) fn into_results(mut self) -> Vec<Result<Depth, SampleError>> {
        self.give_up(|_| SampleError::BrokerUnreachable("the broker was not asked".to_owned()));
        self.results.into_iter().flatten().collect()
    }
}

/// What lapin would not send, or what means something else: an empty name is "the queue declared last".
fn check(queue: &QueueName) -> Result<(), SampleError> {
    let cause = match queue.as_str().len() {
        0 => "its name is empty",
        bytes if bytes > MAX_NAME_BYTES => "its name is longer than 255 bytes",
        _ => return Ok(()),
    };
    Err(SampleError::Refused {
        queue: queue.clone(),
        cause: cause.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(names: &[&str]) -> Vec<QueueName> {
        names.iter().copied().map(QueueName::new).collect()
    }

    fn rest(batch: &Batch<'_>) -> Vec<String> {
        batch.rest().map(ToString::to_string).collect()
    }

    #[test]
    fn troubled_queues_go_last_and_results_keep_the_order_of_the_question() {
        let queues = queues(&["missing", "a", "just-now", "b"]);
        let mut batch = Batch::new(&queues, |queue| match queue.as_str() {
            "missing" => Before::Trouble,
            "just-now" => Before::TroubleJustNow(SampleError::QueueMissing(queue.clone())),
            _ => Before::Nothing,
        });
        assert_eq!(rest(&batch), ["a", "b", "missing"]);
        batch.answer(Ok(Depth {
            ready: 1,
            consumers: 0,
        }));
        batch.answer(Ok(Depth {
            ready: 2,
            consumers: 0,
        }));
        batch.answer(Err(SampleError::QueueMissing(queues[0].clone())));
        batch.answer(Ok(Depth::default()));
        let results = batch.into_results();
        assert_eq!(results[0], Err(SampleError::QueueMissing(queues[0].clone())));
        assert_eq!(
            results[1],
            Ok(Depth {
                ready: 1,
                consumers: 0
            })
        );
        assert_eq!(results[2], Err(SampleError::QueueMissing(queues[2].clone())));
        assert_eq!(
            results[3],
            Ok(Depth {
                ready: 2,
                consumers: 0
            })
        );
    }

    #[test]
    fn every_queue_gets_a_result_also_when_none_was_asked() {
        let queues = queues(&["a", "b"]);
        let results = Batch::new(&queues, |_| Before::Nothing).into_results();
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Err(SampleError::BrokerUnreachable(_))))
        );
        assert_eq!(results.len(), 2);
    }

    #[test]
    fn impossible_names_are_not_asked() {
        let queues = queues(&["", &"x".repeat(256), &"y".repeat(255)]);
        let batch = Batch::new(&queues, |_| Before::Nothing);
        assert_eq!(rest(&batch).len(), 1);
        let results = batch.into_results();
        assert!(
            results[..2]
                .iter()
                .all(|result| matches!(result, Err(SampleError::Refused { .. })))
        );
    }
}
