//! Certificates of our own, kept in memory: an authority that lives as long as the process, and certificates from it
//! that are renewed when two thirds of their time are over.

use super::authority::Authority;
use super::tls::{Certificates, Usable};
use crate::telemetry;
use std::sync::Arc;
use std::time::Duration;

/// How long the authority lives: longer than any process.
const AUTHORITY_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Between two tries when a certificate cannot be made.
const RETRY: Duration = Duration::from_mins(1);

/// What certificates are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfSigned {
    /// DNS names under which callers reach the server; at least one.
    pub names: Vec<String>,
    /// How long each certificate lives.
    pub lifetime: Duration,
}

impl SelfSigned {
    /// A new authority, and its certificate as PEM.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn authority(now: Duration) -> Result<(Authority, String), String> {
        let (authority, pair) = Authority::new(now, AUTHORITY_LIFETIME)?;
        Ok((authority, pair.certificate))
    }

    /// A certificate from the authority; `now` is time since 1970.
    ///
    /// # Errors
    /// One sentence; that of a name which is none, for example.
    pub(super) fn issue(&self, authority: &Authority, now: Duration) -> Result<Usable, String> {
        let pair = authority.issue(&self.names, now, self.lifetime)?;
        Usable::read(pair.certificate.as_bytes(), pair.key.as_bytes())
    }

    /// Renews in time, for ever. Cancel safe.
    pub(super) async fn renew(&self, authority: &Authority, certificates: Arc<Certificates>) {
        let mut pause = self.lifetime * 2 / 3;
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.issue(authority, ops::clock::since_epoch()) {
                Ok(usable) => {
                    telemetry::certificate_loaded(usable.expiry);
                    certificates.replace(usable);
                    self.lifetime * 2 / 3
                }
                Err(sentence) => {
                    telemetry::certificate_refused(&sentence);
                    RETRY
                }
            };
        }
    }
}
