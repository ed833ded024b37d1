//! Certificate files that are read again and again: a projected Secret changes under its path, by a link that is
//! turned, so what is in the files is compared, not what the file system says about them.

use super::tls::{Certificates, Usable};
use crate::telemetry;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A certificate and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// How often they are read.
    pub every: Duration,
}

/// What was in the files: the bytes of both, or why they cannot be read.
type Content = Result<(Vec<u8>, Vec<u8>), String>;

impl Files {
    /// Reads both and uses them.
    ///
    /// # Errors
    /// One sentence.
    pub(super) async fn load(&self) -> Result<(Usable, Content), String> {
        let content = self.read().await;
        let usable = usable(&content)?;
        Ok((usable, content))
    }

    async fn read(&self) -> Content {
        let read = async |path: &PathBuf| {
            tokio::fs::read(path)
                .await
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))
        };
        Ok((read(&self.certificate).await?, read(&self.key).await?))
    }

    /// Takes over every usable change. Never returns. Cancel safe.
    ///
    /// Two files are not written at once: what does not fit together is complained about, once, when it is still so
    /// at the next look.
    pub(super) async fn follow(&self, certificates: Arc<Certificates>, first: Content) {
        let mut in_use = first;
        let mut doubtful: Option<(Content, bool)> = None;
        loop {
            tokio::time::sleep(self.every).await;
            let content = self.read().await;
            if content == in_use {
                doubtful = None;
                continue;
            }
            match usable(&content) {
                Ok(usable) => {
                    telemetry::certificate_loaded(usable.expiry);
                    certificates.replace(usable);
                    in_use = content;
                    doubtful = None;
                }
                Err(sentence) => {
                    let (is_the_same, told) = match &doubtful {
                        Some((before, told)) if *before == content => (true, *told),
                        _ => (false, false),
                    };
                    if is_the_same && !told {
                        telemetry::certificate_refused(&sentence);
                    }
                    doubtful = Some((content, is_the_same));
                }
            }
        }
    }
}

fn usable(content: &Content) -> Result<Usable, String> {
    let (certificate, key) = content.as_ref().map_err(Clone::clone)?;
    Usable::read(certificate, key)
}
