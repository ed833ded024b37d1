//! The certificate in use. Each handshake takes the one that is in place at that moment, so a change fails nobody.

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, PoisonError, RwLock};

/// The certificate in use, and its key; none before the first one is there. Debug shows neither.
pub(super) struct Certificates(RwLock<Option<Arc<CertifiedKey>>>);

/// A certificate that can be used, and when it ends.
pub(super) struct Usable {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    pub(super) expiry: i64,
}

impl Usable {
    /// Reads a chain of certificates and the key of its first one, both PEM.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn read(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the certificate cannot be read as PEM: {error}"))?;
        let first = chain
            .first()
            .ok_or("there is no certificate: write one or more as PEM, the server's own first")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first)
            .map_err(|error| format!("the certificate is no X.509: {error}"))?;
        let expiry = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| format!("the private key cannot be read as PEM: {error}"))?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
            format!("the certificate and the private key cannot be used together: {error}")
        })?;
        Ok(Self {
            key: Arc::new(key),
            expiry,
        })
    }
}

impl Certificates {
    /// Handshakes fail until the first one is [put in](Self::replace).
    pub(super) fn none() -> Arc<Self> {
        Arc::new(Self(RwLock::new(None)))
    }

    /// From the next handshake on.
    pub(super) fn replace(&self, next: Usable) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(next.key);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

/// TLS 1.2 and 1.3 with these certificates; HTTP/1.1 only, which is all that a review needs.
///
/// # Errors
/// When the provider of cryptography lacks what these versions need.
pub(super) fn server_config(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
