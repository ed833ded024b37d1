//! Before the first message: the worker's port answers, and the worker knows its work.

use super::Pipeline;
use crate::dispatch::Post;
use crate::domain::introduction::{self, Introduced, Work};
use crate::telemetry;
use ops::backoff::Backoff;
use std::time::Duration;

/// Between two tries to introduce a worker to its work.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Pipeline {
    /// Waits until the worker's port answers and, where that is asked for, the worker knows its work. Cancel safe; an
    /// introduction that was begun may come twice.
    pub(crate) async fn until_worker_ready(&self) {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut said = String::new();
        loop {
            self.dispatcher.until_up().await;
            let Some(path) = self
                .config
                .init_path
                .as_ref()
                .filter(|_| !self.dispatcher.is_introduced())
            else {
                return;
            };
            let work = Work {
                target: &self.target,
                concurrency: self.config.concurrency,
                reply_max_bytes: self.config.reply_max_bytes,
                max_defer_seconds: self.config.max_defer.as_secs(),
            };
            let document = introduction::document(work);
            let head = self.target.json_head(path, &document);
            let post = Post {
                head: |bytes: &mut Vec<u8>| bytes.extend_from_slice(&head),
                body: &document,
            };
            let outcome = self.dispatcher.introduce(post).await;
            match introduction::judge(&outcome) {
                Introduced::Ready => self.dispatcher.set_introduced(),
                Introduced::Unsupported => {
                    telemetry::introduction_unsupported(path.path());
                    self.dispatcher.set_introduced();
                }
                Introduced::NotYet(why) => {
                    if why != said {
                        telemetry::not_introduced(path.path(), &why);
                        said = why;
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }
}
