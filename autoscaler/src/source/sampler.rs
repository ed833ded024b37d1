//! Brings the questions of many targets to one source, as many at once as there are.
//!
//! While one batch is under way the next one gathers. Targets tick in step, so in quiet times a batch is all of them.

use crate::domain::{Depth, QueueName, SampleError};
use crate::source::DepthSource;
use crate::telemetry;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// More questions than this wait in their tasks.
const BATCH_MAX: usize = 256;
/// How long a queue that could not be made is left alone.
const ENSURE_AGAIN: Duration = Duration::from_secs(5);

/// The targets' end.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    queue: QueueName,
    /// Makes the queue before it is asked about, with this one behind it.
    dead_letter: Option<String>,
    answer: oneshot::Sender<Result<Depth, SampleError>>,
}

/// The source's end.
#[derive(Debug)]
pub(crate) struct Questions {
    questions: mpsc::Receiver<Question>,
    ensured: HashMap<QueueName, Ensured>,
}

#[derive(Debug)]
enum Ensured {
    Done,
    Failed { at: Instant, why: String },
}

/// The two ends.
pub(crate) fn sampler() -> (Sampler, Questions) {
    let (sender, receiver) = mpsc::channel(BATCH_MAX);
    (
        Sampler { questions: sender },
        Questions {
            questions: receiver,
            ensured: HashMap::new(),
        },
    )
}

impl Sampler {
    /// The depth of a queue, waited for no longer than `patience`. With `dead_letter` the queue is made first unless
    /// it exists. Dropping the future drops the question.
    pub(crate) async fn depth(
        &self,
        queue: &QueueName,
        dead_letter: Option<&str>,
        patience: Duration,
    ) -> Result<Depth, SampleError> {
        let stopped = || SampleError::BrokerUnreachable("the autoscaler is stopping".to_owned());
        let (sender, answer) = oneshot::channel();
        let question = Question {
            queue: queue.clone(),
            dead_letter: dead_letter.map(str::to_owned),
            answer: sender,
        };
        let asked = async {
            self.questions.send(question).await.map_err(|_closed| stopped())?;
            answer.await.map_err(|_closed| stopped())?
        };
        let timed_out = SampleError::TimedOut {
            queue: queue.clone(),
            within: patience,
        };
        timeout(patience, asked).await.unwrap_or(Err(timed_out))
    }
}

impl Questions {
    /// Answers until every [`Sampler`] is gone.
    pub(crate) async fn answer_from(mut self, source: &mut impl DepthSource) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.questions.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.ensure(source, &batch).await;
            let mut queues: Vec<QueueName> = batch.iter().map(|question| question.queue.clone()).collect();
            queues.sort_unstable();
            queues.dedup();
            let began = Instant::now();
            let results = source.sample(&queues).await;
            telemetry::sampled(source.name(), &results, began.elapsed());
            let results: HashMap<_, _> = queues.into_iter().zip(results).collect();
            for question in batch.drain(..) {
                self.forget_missing(&question.queue, results.get(&question.queue));
                let unanswered = || {
                    Err(SampleError::BrokerUnreachable(
                        "the source did not answer".to_owned(),
                    ))
                };
                let result = results.get(&question.queue).cloned().unwrap_or_else(unanswered);
                // Whoever asked may have lost patience.
                let _unheard = question.answer.send(result);
            }
        }
    }

    /// Makes the queues that are to be made and were not yet. A failure does not keep us from asking: the queue may
    /// be there all the same.
    async fn ensure(&mut self, source: &mut impl DepthSource, batch: &[Question]) {
        for Question {
            queue, dead_letter, ..
        } in batch
        {
            let Some(dead_letter) = dead_letter else { continue };
            let before = self.ensured.get(queue);
            match before {
                Some(Ensured::Done) => continue,
                Some(Ensured::Failed { at, .. }) if at.elapsed() < ENSURE_AGAIN => continue,
                Some(Ensured::Failed { .. }) | None => {}
            }
            let now = match source.ensure(queue, dead_letter).await {
                Ok(()) => Ensured::Done,
                // The source says once that the broker is away, and sampling costs nothing until it is back.
                Err(SampleError::BrokerUnreachable(_)) => continue,
                Err(error) => {
                    let why = error.to_string();
                    if !matches!(before, Some(Ensured::Failed { why: known, .. }) if *known == why) {
                        telemetry::queue_not_ensured(queue, &why);
                    }
                    Ensured::Failed {
                        at: Instant::now(),
                        why,
                    }
                }
            };
            self.ensured.insert(queue.clone(), now);
        }
    }

    /// A queue that was there and is missing now is made again.
    fn forget_missing(&mut self, queue: &QueueName, result: Option<&Result<Depth, SampleError>>) {
        if matches!(result, Some(Err(SampleError::QueueMissing(_))))
            && matches!(self.ensured.get(queue), Some(Ensured::Done))
        {
            self.ensured.remove(queue);
        }
    }
}
