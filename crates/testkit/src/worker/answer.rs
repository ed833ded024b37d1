//! What a test worker answers, and when.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// One answer of a [`Worker`](super::Worker). A number stands for an empty answer with that status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) after: Option<Duration>,
    pub(super) gate: Option<Gate>,
    pub(super) ending: Ending,
}

/// How the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The whole answer is sent; the connection stays open.
    Whole,
    /// Head and body are sent but the announced length is one byte more; then the connection is closed.
    CutShort,
    /// The connection is reset before any byte of an answer.
    Reset,
    /// Nothing is ever sent.
    Never,
}

impl Answer {
    /// An empty answer with `status`.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            after: None,
            gate: None,
            ending: Ending::Whole,
        }
    }

    /// `200 OK`, empty.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// The connection is reset before any byte of an answer.
    pub fn reset() -> Self {
        Self {
            ending: Ending::Reset,
            ..Self::ok()
        }
    }

    /// No answer, ever; the connection stays open.
    pub fn never() -> Self {
        Self {
            ending: Ending::Never,
            ..Self::ok()
        }
    }

    /// The connection is closed after this answer's head and body, one byte short of the announced length.
    pub fn cut_short(self) -> Self {
        Self {
            ending: Ending::CutShort,
            ..self
        }
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    /// Sent only after this much time.
    pub fn after(self, delay: Duration) -> Self {
        Self {
            after: Some(delay),
            ..self
        }
    }

    /// Sent only when `gate` is open.
    pub fn when(self, gate: &Gate) -> Self {
        Self {
            gate: Some(gate.clone()),
            ..self
        }
    }
}

impl From<u16> for Answer {
    fn from(status: u16) -> Self {
        Self::status(status)
    }
}

/// Something that is shut until a test opens it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A gate that is shut.
    pub fn shut() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Opens it: every answer that waits is sent, later ones do not wait.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns once it is open.
    pub async fn opened(&self) {
        // The sender is alive: it is this gate.
        let mut state = self.0.subscribe();
        let _open = state.wait_for(|open| *open).await;
    }
}
