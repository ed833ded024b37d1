//! Certificates of our own: an authority, whose certificate callers have to trust, and server certificates from it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::time::Duration;

/// How far back validity begins: clocks differ.
pub(super) const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// The authority's name. Certificates name their issuer by it, so one that was stored is found again under it.
const AUTHORITY: &str = "kubedaemon webhook-injector CA";
const SERVER: &str = "kubedaemon webhook-injector";

/// An authority and its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM. Debug does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one; `now` is time since 1970.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn new(now: Duration, lifetime: Duration) -> Result<(Self, Pair), String> {
        let params = authority_params(now, lifetime)?;
        let key = KeyPair::generate().map_err(wrong)?;
        let pair = Pair {
            certificate: params.self_signed(&key).map_err(wrong)?.pem(),
            key: key.serialize_pem(),
        };
        let issuer = Issuer::new(params, key);
        Ok((Self { issuer }, pair))
    }

    /// The one with this key, which [`new`](Self::new) wrote as PEM.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn read(key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key)
            .map_err(|error| format!("the authority's key cannot be read as PEM: {error}"))?;
        // Of an issuer only name and key reach the certificates that it signs.
        let params = authority_params(Duration::ZERO, Duration::ZERO)?;
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer })
    }

    /// The public key, as it stands in the authority's certificate.
    pub(super) fn public_key(&self) -> &[u8] {
        self.issuer.key().public_key_raw()
    }

    /// A server's certificate for these names and addresses.
    ///
    /// # Errors
    /// One sentence; that of a name which is none, for example.
    pub(super) fn issue(&self, names: &[String], now: Duration, lifetime: Duration) -> Result<Pair, String> {
        let mut params = params(names.to_vec(), SERVER, now, lifetime)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Tells which of two authorities of one name it is from.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn authority_params(now: Duration, lifetime: Duration) -> Result<CertificateParams, String> {
    let mut params = params(Vec::new(), AUTHORITY, now, lifetime)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
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
