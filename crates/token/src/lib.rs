//! Short-lived signed permissions to drain or resume one pod.
//!
//! The autoscaler signs with a private key, a sidecar checks with the public one: no secret is in any pod's
//! specification, and a sidecar asks nobody. A permission names the pod and what it permits, and ends by itself, so
//! that one that was overheard is good for nothing else and not for long. Signatures are Ed25519 (RFC 8032).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How long a permission is good for. Long enough for clocks that differ by half a minute.
pub const LIFETIME: Duration = Duration::from_mins(1);

/// The longest token that is looked at, in bytes. Names of pods and namespaces have at most 253.
pub const MAX_BYTES: usize = 1024;

/// What is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// To stop the intake.
    Drain,
    /// To take messages again.
    Resume,
}

/// A permission as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Permission {
    /// `namespace/name` of the pod.
    pod: String,
    action: Action,
    /// When it ends: seconds since the Unix epoch.
    expires: u64,
}

/// Signs permissions. `Debug` does not show the key.
pub struct Signer(Ed25519KeyPair);

/// Checks permissions.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier([u8; 32]);

/// Why a key cannot be used. `Display` is one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A private key is not as [`Signer::generate`] writes it.
    #[error("the private key is no Ed25519 key in PKCS #8, base64url without padding")]
    Private,
    /// A public key is not as [`Signer::public_key`] writes it.
    #[error("the public key is no Ed25519 key: write 32 bytes in base64url without padding")]
    Public,
    /// The machine has no randomness to give.
    #[error("no key can be made: the system gives no random numbers")]
    Random,
}

/// Why a token permits nothing. `Display` is one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not of the form of a token.
    #[error("this is no token")]
    Malformed,
    /// It was not signed with the key that belongs to ours.
    #[error("the token was signed with another key")]
    Signature,
    /// It is for another pod.
    #[error("the token is for another pod")]
    Pod,
    /// It permits something else.
    #[error("the token permits something else")]
    Action,
    /// Its time is over, or further away than any token's may be.
    #[error("the token has expired, or the clocks of the two machines differ by more than half a minute")]
    Expired,
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Ed25519KeyPair::from_pkcs8(document.as_ref())
            .map(Self)
            .map_err(|_| KeyError::Random)
    }

    /// Reads what [`private_key`](Self::private_key) wrote.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn read(private_key: &str) -> Result<Self, KeyError> {
        let document = URL_SAFE_NO_PAD
            .decode(private_key.trim())
            .map_err(|_| KeyError::Private)?;
        Ed25519KeyPair::from_pkcs8(&document)
            .map(Self)
            .map_err(|_| KeyError::Private)
    }

    /// The private key as text: PKCS #8 in base64url.
    ///
    /// # Errors
    /// [`KeyError::Private`] when the key cannot be written.
    pub fn private_key(&self) -> Result<String, KeyError> {
        let document = self.0.to_pkcs8v1().map_err(|_| KeyError::Private)?;
        Ok(URL_SAFE_NO_PAD.encode(document.as_ref()))
    }

    /// The public key as text: 32 bytes in base64url.
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.public_key())
    }

    /// A token that permits `action` on the pod `namespace/name`, until [`LIFETIME`] after `now`, which counts from
    /// the Unix epoch.
    pub fn sign(&self, pod: &str, action: Action, now: Duration) -> String {
        let permission = Permission {
            pod: pod.to_owned(),
            action,
            expires: (now + LIFETIME).as_secs(),
        };
        let payload = serde_json::to_vec(&permission).expect("invariant: text and numbers are JSON");
        let signature = self.0.sign(&payload);
        format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(&payload),
            URL_SAFE_NO_PAD.encode(signature.as_ref())
        )
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads what [`Signer::public_key`] wrote.
    ///
    /// # Errors
    /// [`KeyError::Public`].
    pub fn read(public_key: &str) -> Result<Self, KeyError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(public_key.trim())
            .map_err(|_| KeyError::Public)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::Public)
    }

    /// Checks that `token` permits `action` on the pod `namespace/name` at `now`, which counts from the Unix epoch.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self, token: &str, pod: &str, action: Action, now: Duration) -> Result<(), Refusal> {
        if token.len() > MAX_BYTES {
            return Err(Refusal::Malformed);
        }
        let (payload, signature) = token.split_once('.').ok_or(Refusal::Malformed)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Malformed);
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&payload, &signature)
            .map_err(|_| Refusal::Signature)?;
        let permission: Permission = serde_json::from_slice(&payload).map_err(|_| Refusal::Malformed)?;
        if permission.pod != pod {
            return Err(Refusal::Pod);
        }
        if permission.action != action {
            return Err(Refusal::Action);
        }
        let skew = LIFETIME / 2;
        let (now, latest) = (now.as_secs(), (now + LIFETIME + skew).as_secs());
        if permission.expires <= now || permission.expires > latest {
            return Err(Refusal::Expired);
        }
        Ok(())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verifier")
            .field(&URL_SAFE_NO_PAD.encode(self.0))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);
    const POD: &str = "shop/worker-7d4b9-x2x8k";

    fn pair() -> (Signer, Verifier) {
        let signer = Signer::generate().unwrap();
        let verifier = Verifier::read(&signer.public_key()).unwrap();
        (signer, verifier)
    }

    #[test]
    fn a_token_permits_what_it_says_and_nothing_else() {
        let (signer, verifier) = pair();
        let (_, other) = pair();
        let token = signer.sign(POD, Action::Drain, NOW);
        let before = |by| NOW.saturating_sub(by);
        let check = |pod, action, now| verifier.check(&token, pod, action, now);
        assert_eq!(check(POD, Action::Drain, NOW), Ok(()));
        assert_eq!(check(POD, Action::Drain, NOW + Duration::from_secs(59)), Ok(()));
        assert_eq!(check(POD, Action::Drain, before(LIFETIME / 2)), Ok(()));
        assert_eq!(check(POD, Action::Drain, NOW + LIFETIME), Err(Refusal::Expired));
        assert_eq!(check(POD, Action::Drain, before(LIFETIME)), Err(Refusal::Expired));
        assert_eq!(check("shop/other", Action::Drain, NOW), Err(Refusal::Pod));
        assert_eq!(check(POD, Action::Resume, NOW), Err(Refusal::Action));
        assert_eq!(
            other.check(&token, POD, Action::Drain, NOW),
            Err(Refusal::Signature)
        );
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let (signer, verifier) = pair();
        let token = signer.sign(POD, Action::Drain, NOW);
        let (payload, signature) = token.split_once('.').unwrap();
        let swapped = format!("{signature}.{payload}");
        let long = format!("{}.{signature}", "e".repeat(MAX_BYTES));
        for bad in [
            "",
            ".",
            "a.b",
            "a",
            payload,
            &format!("{payload}."),
            &swapped,
            &long,
            "ä.ö",
        ] {
            assert!(verifier.check(bad, POD, Action::Drain, NOW).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_survive_being_written_and_read() {
        let (signer, verifier) = pair();
        let again = Signer::read(&signer.private_key().unwrap()).unwrap();
        assert_eq!(again.public_key(), signer.public_key());
        assert!(
            verifier
                .check(&again.sign(POD, Action::Resume, NOW), POD, Action::Resume, NOW)
                .is_ok()
        );
        assert!(!format!("{signer:?}").contains(&signer.private_key().unwrap()));
        assert_eq!(Signer::read("c2VjcmV0").unwrap_err(), KeyError::Private);
        assert_eq!(Verifier::read("c2VjcmV0"), Err(KeyError::Public));
    }
}
