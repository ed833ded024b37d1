//! Who may pull the levers of intake: this machine, and whoever shows a permission for this pod.

use std::net::IpAddr;
use std::time::Duration;
use token::{Action, Refusal, Verifier};

/// The pod that permissions speak of, and the key that they are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// `namespace/name`.
    pub pod: String,
    /// Checks signatures.
    pub verifier: Verifier,
}

/// What a call says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Its address.
    pub ip: IpAddr,
    /// Whether a page in a browser asks: a page from anywhere reaches loopback too.
    pub is_from_page: bool,
    /// The token of `Authorization: Bearer …`.
    pub bearer: Option<&'a str>,
}

/// Why a lever is not pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A page in a browser asked.
    Page,
    /// The call came from the network and there is no key to check a permission with.
    NoKey,
    /// The call came from the network without a permission.
    NoToken,
    /// Its permission permits nothing.
    Token(Refusal),
}

impl Refused {
    /// The word in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::NoKey => "no_key",
            Self::NoToken => "no_token",
            Self::Token(Refusal::Malformed) => "malformed",
            Self::Token(Refusal::Signature) => "signature",
            Self::Token(Refusal::Pod) => "pod",
            Self::Token(Refusal::Action) => "action",
            Self::Token(Refusal::Expired) => "expired",
        }
    }

    /// Whether another, valid permission would help.
    pub fn is_unauthorized(self) -> bool {
        match self {
            Self::NoToken | Self::Token(Refusal::Malformed | Refusal::Signature | Refusal::Expired) => true,
            Self::Page | Self::NoKey | Self::Token(Refusal::Pod | Refusal::Action) => false,
        }
    }

    /// The sentence for the caller; `path` is what was called.
    pub fn sentence(self, path: &str) -> String {
        match self {
            Self::Page => format!("{path} is not for pages in a browser"),
            Self::NoKey => format!("{path} is answered to loopback only; in a pod use `sidecar drain`"),
            Self::NoToken => {
                format!("{path} from the network needs a permission: send `Authorization: Bearer <token>`")
            }
            Self::Token(refusal) => format!("{path} is refused: {refusal}"),
        }
    }
}

/// Decides on one call; `now` counts from the Unix epoch.
///
/// # Errors
/// Why not.
pub fn permit(
    caller: Caller<'_>,
    remote: Option<&Remote>,
    action: Action,
    now: Duration,
) -> Result<(), Refused> {
    if caller.is_from_page {
        return Err(Refused::Page);
    }
    // Processes of this machine, in a pod those of the pod, can end the worker anyway.
    if caller.ip.to_canonical().is_loopback() {
        return Ok(());
    }
    let remote = remote.ok_or(Refused::NoKey)?;
    let bearer = caller.bearer.ok_or(Refused::NoToken)?;
    let checked = remote.verifier.check(bearer, &remote.pod, action, now);
    checked.map_err(Refused::Token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use token::Signer;

    const NOW: Duration = Duration::from_hours(500_000);
    const POD: &str = "shop/worker-1";
    const NETWORK: &str = "10.0.0.7";

    fn caller<'a>(ip: &str, bearer: Option<&'a str>) -> Caller<'a> {
        Caller {
            ip: ip.parse().unwrap(),
            is_from_page: false,
            bearer,
        }
    }

    fn remote(signer: &Signer) -> Remote {
        Remote {
            pod: POD.to_owned(),
            verifier: Verifier::read(&signer.public_key()).unwrap(),
        }
    }

    #[test]
    fn loopback_needs_no_permission_and_a_page_gets_none() {
        let signer = Signer::generate().unwrap();
        let remote = remote(&signer);
        let token = signer.sign(POD, Action::Drain, NOW);
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            for remote in [None, Some(&remote)] {
                assert_eq!(permit(caller(ip, None), remote, Action::Drain, NOW), Ok(()));
                let page = Caller {
                    is_from_page: true,
                    ..caller(ip, Some(&token))
                };
                assert_eq!(permit(page, remote, Action::Drain, NOW), Err(Refused::Page));
            }
        }
    }

    #[test]
    fn the_network_needs_a_valid_permission() {
        let (signer, stranger) = (Signer::generate().unwrap(), Signer::generate().unwrap());
        let remote = remote(&signer);
        let token = signer.sign(POD, Action::Drain, NOW);
        for ip in [
            NETWORK,
            "::ffff:10.0.0.7",
            "fe80::1",
            "0.0.0.0",
            "::",
            "128.0.0.1",
        ] {
            let without_key = permit(caller(ip, Some(&token)), None, Action::Drain, NOW);
            assert_eq!(without_key, Err(Refused::NoKey), "{ip}");
            let permitted = permit(caller(ip, Some(&token)), Some(&remote), Action::Drain, NOW);
            assert_eq!(permitted, Ok(()), "{ip}");
        }
        let ask = |bearer, action, now| permit(caller(NETWORK, bearer), Some(&remote), action, now);
        let refused = |refusal| Err(Refused::Token(refusal));
        assert_eq!(ask(None, Action::Drain, NOW), Err(Refused::NoToken));
        assert_eq!(ask(Some("x"), Action::Drain, NOW), refused(Refusal::Malformed));
        assert_eq!(ask(Some(&token), Action::Resume, NOW), refused(Refusal::Action));
        let later = NOW + token::LIFETIME;
        assert_eq!(ask(Some(&token), Action::Drain, later), refused(Refusal::Expired));
        let other = signer.sign("shop/worker-2", Action::Drain, NOW);
        assert_eq!(ask(Some(&other), Action::Drain, NOW), refused(Refusal::Pod));
        let forged = stranger.sign(POD, Action::Drain, NOW);
        assert_eq!(
            ask(Some(&forged), Action::Drain, NOW),
            refused(Refusal::Signature)
        );
    }
}
