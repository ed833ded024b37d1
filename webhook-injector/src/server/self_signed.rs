//! Certificates of our own: an authority that lives as long as the process, and certificates from it that are renewed
//! when two thirds of their time are over. The authority's certificate is what callers have to trust.

use super::tls::{Certificates, Usable};
use crate::telemetry;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::sync::Arc;
use std::time::Duration;

/// How long the authority lives: longer than any process.
const AUTHORITY_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// How far back validity begins: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_hours(1);
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

/// An authority and its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate that callers have to trust, as PEM.
    pub(super) pem: String,
}

impl Authority {
    /// A new one; `now` is time since 1970.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn new(now: Duration) -> Result<Self, String> {
        let mut params = params(
            Vec::new(),
            "kubedaemon webhook-injector CA",
            now,
            AUTHORITY_LIFETIME,
        )?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(wrong)?;
        let pem = params.self_signed(&key).map_err(wrong)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// A server's certificate.
    ///
    /// # Errors
    /// One sentence; that of a name which is none, for example.
    pub(super) fn issue(&self, wanted: &SelfSigned, now: Duration) -> Result<Usable, String> {
        let mut params = params(
            wanted.names.clone(),
            "kubedaemon webhook-injector",
            now,
            wanted.lifetime,
        )?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?;
        Usable::read(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
    }

    /// Renews in time, for ever. Cancel safe.
    pub(super) async fn renew(&self, wanted: &SelfSigned, certificates: Arc<Certificates>) {
        let mut pause = wanted.lifetime * 2 / 3;
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.issue(wanted, ops::clock::since_epoch()) {
                Ok(usable) => {
                    telemetry::certificate_loaded(usable.expiry);
                    certificates.replace(usable);
                    wanted.lifetime * 2 / 3
                }
                Err(sentence) => {
                    telemetry::certificate_refused(&sentence);
                    RETRY
                }
            };
        }
    }
}

fn params(
    names: Vec<String>,
    common_name: &str,
    now: Duration,
    lifetime: Duration,
) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(names).map_err(wrong)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + lifetime;
    Ok(params)
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err as it is")]
fn wrong(error: rcgen::Error) -> String {
    format!("a certificate cannot be made: {error}")
}
