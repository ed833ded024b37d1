//! What all replicas share: authorities that callers have to trust, the newest one's key, and the certificate in use.
//! What happens to it next is decided here, from it and the time alone.
//!
//! A new authority comes in three steps, so that no caller ever meets a certificate that it does not trust:
//! 1. its certificate is put before the others, and the API server is told to trust all of them;
//! 2. when that has been so for a while, the server's certificate comes from the new one;
//! 3. when every replica has had a day to take that into use, the others go.

use super::super::authority::{Authority, CLOCK_SKEW, Pair};
use super::EVERY;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// The entry with the certificates of the authorities, the newest first: what callers have to trust.
pub(super) const AUTHORITIES: &str = "ca.crt";
/// The entry with the key of the newest authority.
pub(super) const AUTHORITY_KEY: &str = "ca.key";
/// The entry with the server's certificate.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// The entry with the server's key.
pub(super) const KEY: &str = "tls.key";

/// More authorities than this are never kept, however often somebody asks for a new one.
const MAX_AUTHORITIES: usize = 4;

/// How long things live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// An authority.
    pub authority: Duration,
    /// A server's certificate.
    pub certificate: Duration,
    /// How long callers are given to learn of a new authority before they meet a certificate from it: API servers
    /// follow the configuration of webhooks, and take a moment.
    pub settle: Duration,
    /// How long an authority is still trusted when no certificate in use is from it any more.
    pub overlap: Duration,
    /// How often everything is looked at when nothing tells that it has changed.
    pub every: Duration,
}

impl Default for Times {
    /// 10 years, 90 days, 10 s, a day, 5 s.
    fn default() -> Self {
        Self {
            authority: Duration::from_hours(10 * 365 * 24),
            certificate: Duration::from_hours(90 * 24),
            settle: Duration::from_secs(10),
            overlap: Duration::from_hours(24),
            every: EVERY,
        }
    }
}

/// What is stored. Debug shows no key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    /// Newest first; at least one.
    authorities: Vec<Certificate>,
    authority_key: String,
    certificate: Certificate,
    pub(super) pair: Pair,
}

/// What matters of a certificate.
#[derive(Clone, PartialEq, Eq)]
struct Certificate {
    pem: String,
    /// When it was made and when it ends: time since 1970.
    made: Duration,
    ends: Duration,
    /// The subject's public key as it stands in it.
    public_key: Vec<u8>,
    /// Which key is its own, for an authority; which key signed it, for a server's.
    own_key_id: Option<Vec<u8>>,
    issuer_key_id: Option<Vec<u8>>,
    /// The names that it is for.
    names: BTreeSet<String>,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A new authority comes before the others.
    NewAuthority,
    /// The server gets a new certificate from the newest authority.
    NewCertificate,
    /// Authorities of which no certificate in use is go.
    DropAuthorities,
}

impl Step {
    /// The step in logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NewAuthority => "new_authority",
            Self::NewCertificate => "new_certificate",
            Self::DropAuthorities => "drop_authorities",
        }
    }
}

impl Material {
    /// A new authority and a certificate from it for these names; `now` is time since 1970.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn new(names: &[String], times: &Times, now: Duration) -> Result<Self, String> {
        let (authority, own) = Authority::new(now, times.authority)?;
        let pair = authority.issue(names, now, times.certificate)?;
        Ok(Self {
            authorities: certificates(&own.certificate)?,
            authority_key: own.key,
            certificate: certificate(&pair.certificate)?,
            pair,
        })
    }

    /// Reads what [`entries`](Self::entries) wrote.
    ///
    /// # Errors
    /// One sentence that says what is missing or wrong.
    pub(super) fn read<'a>(entry: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, String> {
        let text = |name| {
            let bytes = entry(name).ok_or_else(|| format!("{name} is missing"))?;
            String::from_utf8(bytes.to_vec()).map_err(|_| format!("{name} is no text"))
        };
        let (authorities, authority_key) = (certificates(&text(AUTHORITIES)?)?, text(AUTHORITY_KEY)?);
        let newest = authorities
            .first()
            .ok_or_else(|| format!("{AUTHORITIES} has no certificate"))?;
        if Authority::read(&authority_key)?.public_key() != newest.public_key {
            return Err(format!(
                "{AUTHORITY_KEY} is not the key of the first certificate in {AUTHORITIES}"
            ));
        }
        let pair = Pair {
            certificate: text(CERTIFICATE)?,
            key: text(KEY)?,
        };
        Ok(Self {
            certificate: certificate(&pair.certificate)?,
            authorities,
            authority_key,
            pair,
        })
    }

    /// What is stored, by the names of the entries.
    pub(super) fn entries(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            (AUTHORITIES, self.bundle()),
            (AUTHORITY_KEY, self.authority_key.clone()),
            (CERTIFICATE, self.pair.certificate.clone()),
            (KEY, self.pair.key.clone()),
        ])
    }

    /// What callers have to trust, as PEM.
    pub(super) fn bundle(&self) -> String {
        self.authorities
            .iter()
            .map(|authority| authority.pem.as_str())
            .collect()
    }

    /// What has to happen next, if anything. `is_settled` says that callers have had time to learn of the newest
    /// authority.
    pub(super) fn step(
        &self,
        names: &[String],
        times: &Times,
        now: Duration,
        is_settled: bool,
    ) -> Option<Step> {
        let newest = self.authorities.first()?;
        if newest.is_due(now) {
            return Some(Step::NewAuthority);
        }
        if !self.is_from_newest() {
            return is_settled.then_some(Step::NewCertificate);
        }
        let lacks_a_name = names.iter().any(|name| !self.certificate.names.contains(name));
        if lacks_a_name || self.certificate.is_due(now) {
            return Some(Step::NewCertificate);
        }
        let is_over = now >= self.certificate.made + times.overlap;
        (self.authorities.len() > 1 && is_over).then_some(Step::DropAuthorities)
    }

    /// As it is after a step.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn after(
        &self,
        step: Step,
        names: &[String],
        times: &Times,
        now: Duration,
    ) -> Result<Self, String> {
        let mut next = self.clone();
        match step {
            Step::NewAuthority => {
                let (_, own) = Authority::new(now, times.authority)?;
                next.authorities.insert(0, certificate(&own.certificate)?);
                next.authorities.truncate(MAX_AUTHORITIES);
                next.authority_key = own.key;
            }
            Step::NewCertificate => {
                // Replicas that were told other names, as during an upgrade, would take turns otherwise.
                let mut names = names.to_vec();
                if !self.certificate.is_due(now) && self.is_from_newest() {
                    names.extend(self.certificate.names.iter().cloned());
                }
                names.sort();
                names.dedup();
                next.pair = Authority::read(&self.authority_key)?.issue(&names, now, times.certificate)?;
                next.certificate = certificate(&next.pair.certificate)?;
            }
            Step::DropAuthorities => next.authorities.truncate(1),
        }
        Ok(next)
    }

    fn is_from_newest(&self) -> bool {
        let newest = self
            .authorities
            .first()
            .and_then(|newest| newest.own_key_id.as_ref());
        newest.is_some() && self.certificate.issuer_key_id.as_ref() == newest
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("authorities", &self.authorities.len())
            .field("names", &self.certificate.names)
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// Whether two thirds of its time are over.
    fn is_due(&self, now: Duration) -> bool {
        now >= self.made + self.ends.saturating_sub(self.made) * 2 / 3
    }
}

/// The only certificate in this text.
fn certificate(pem: &str) -> Result<Certificate, String> {
    certificates(pem)?
        .into_iter()
        .next()
        .ok_or_else(|| "there is no certificate".to_owned())
}

/// Every certificate in this text.
fn certificates(pem: &str) -> Result<Vec<Certificate>, String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .map(str::trim)
        .filter(|block| !block.is_empty())
        .map(|block| {
            let der = CertificateDer::from_pem_slice(block.as_bytes())
                .map_err(|error| format!("a certificate cannot be read as PEM: {error}"))?;
            let (_, parsed) = x509_parser::parse_x509_certificate(&der)
                .map_err(|error| format!("a certificate is no X.509: {error}"))?;
            Ok(facts(format!("{block}\n"), &parsed))
        })
        .collect()
}

fn facts(pem: String, parsed: &X509Certificate<'_>) -> Certificate {
    let at = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let (mut own_key_id, mut issuer_key_id, mut names) = (None, None, BTreeSet::new());
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own_key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                issuer_key_id = authority.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectAlternativeName(alternatives) => {
                names = alternatives.general_names.iter().filter_map(name).collect();
            }
            _ => {}
        }
    }
    Certificate {
        pem,
        made: at(parsed.validity().not_before.timestamp()) + CLOCK_SKEW,
        ends: at(parsed.validity().not_after.timestamp()),
        public_key: parsed.public_key().subject_public_key.data.to_vec(),
        own_key_id,
        issuer_key_id,
        names,
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);
    const DAY: Duration = Duration::from_hours(24);

    fn names() -> Vec<String> {
        vec!["injector.ns.svc".to_owned(), "10.0.0.1".to_owned()]
    }

    fn new() -> Material {
        Material::new(&names(), &Times::default(), NOW).unwrap()
    }

    fn step(material: &Material, now: Duration, is_settled: bool) -> Option<Step> {
        material.step(&names(), &Times::default(), now, is_settled)
    }

    fn after(material: &Material, step: Step, now: Duration) -> Material {
        material.after(step, &names(), &Times::default(), now).unwrap()
    }

    #[test]
    fn what_is_new_is_read_as_it_was_written_and_stays_for_sixty_days() {
        let material = new();
        let entries = material.entries();
        let read = Material::read(|name| entries.get(name).map(String::as_bytes)).unwrap();
        assert!(read == material);
        assert_eq!(step(&material, NOW, false), None);
        assert_eq!(step(&material, NOW + 59 * DAY, false), None);
        assert_eq!(step(&material, NOW + 60 * DAY, false), Some(Step::NewCertificate));
        let renewed = after(&material, Step::NewCertificate, NOW + 60 * DAY);
        assert_eq!(step(&renewed, NOW + 61 * DAY, false), None);
        assert_eq!(renewed.bundle(), material.bundle());
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_a_day_longer() {
        let late = NOW + 7 * 365 * DAY;
        let old = new();
        assert_eq!(step(&old, late, true), Some(Step::NewAuthority));
        let both = after(&old, Step::NewAuthority, late);
        assert!(both.bundle().ends_with(&old.bundle()) && both.bundle() != old.bundle());
        assert!(both.pair == old.pair, "the certificate in use stays");
        assert_eq!(step(&both, late, false), None, "nobody may trust the new one yet");
        assert_eq!(step(&both, late, true), Some(Step::NewCertificate));
        let switched = after(&both, Step::NewCertificate, late);
        assert_eq!(switched.bundle(), both.bundle());
        assert_eq!(step(&switched, late + DAY / 2, true), None);
        assert_eq!(step(&switched, late + DAY, true), Some(Step::DropAuthorities));
        let alone = after(&switched, Step::DropAuthorities, late + DAY);
        assert!(both.bundle().starts_with(&alone.bundle()) && alone.bundle() != both.bundle());
        assert_eq!(step(&alone, late + DAY, true), None);
    }

    #[test]
    fn names_are_added_so_that_replicas_with_different_ones_agree() {
        let material = new();
        let other = vec!["other.ns.svc".to_owned()];
        assert_eq!(
            material.step(&other, &Times::default(), NOW, false),
            Some(Step::NewCertificate)
        );
        let both = material
            .after(Step::NewCertificate, &other, &Times::default(), NOW)
            .unwrap();
        for names in [&other, &names()] {
            assert_eq!(both.step(names, &Times::default(), NOW, false), None);
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_a_sentence() {
        let (one, other) = (new().entries(), new().entries());
        for (entry, value, expected) in [
            (KEY, None, "tls.key is missing"),
            (
                AUTHORITY_KEY,
                Some(other[AUTHORITY_KEY].as_str()),
                "ca.key is not the key of",
            ),
            (AUTHORITIES, Some(""), "ca.crt has no certificate"),
            (CERTIFICATE, Some("x"), "a certificate cannot be read as PEM"),
        ] {
            let mut entries = one.clone();
            match value {
                Some(value) => entries.insert(entry, value.to_owned()),
                None => entries.remove(entry),
            };
            let error = Material::read(|name| entries.get(name).map(String::as_bytes)).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn authorities_are_bounded() {
        let mut material = new();
        for _ in 0..10 {
            material = after(&material, Step::NewAuthority, NOW);
        }
        assert_eq!(material.authorities.len(), MAX_AUTHORITIES);
    }
}
