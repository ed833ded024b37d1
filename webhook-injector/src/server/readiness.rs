//! Whether reviews can be answered: what has to be there first, and what is missing.

use std::fmt;

/// What has been made ready; what is ready once stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// There is a certificate.
    pub(super) certificate: bool,
    /// The API server has been told to trust it.
    pub(super) bundle: bool,
    /// The key that goes into pods is known.
    pub(super) drain_key: bool,
}

impl Progress {
    /// The first thing that is missing.
    pub(super) fn missing(self) -> Option<NotReady> {
        if !self.certificate {
            return Some(NotReady::NoCertificate);
        }
        if !self.bundle {
            return Some(NotReady::NoBundle);
        }
        (!self.drain_key).then_some(NotReady::NoDrainKey)
    }
}

/// Why reviews should not be sent here. Displays as one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotReady {
    /// The end has begun.
    Draining,
    /// There is no certificate yet.
    NoCertificate,
    /// The API server does not trust the certificate yet.
    NoBundle,
    /// The key for permissions to drain is not known yet.
    NoDrainKey,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "draining",
            Self::NoCertificate => "there is no certificate yet: the log says what is in the way",
            Self::NoBundle => {
                "the caBundle of the webhook configuration is not in place yet: the log says what is in the way"
            }
            Self::NoDrainKey => "the key for drains is not known yet: the log says what is in the way",
        })
    }
}
