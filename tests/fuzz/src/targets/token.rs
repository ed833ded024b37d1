//! Signed permissions, and keys.

use crate::Target;
use crate::input::text;
use std::time::Duration;
use token::{Action, Signer, Verifier};

pub(crate) const TARGET: Target = Target {
    name: "token",
    what: "permissions and keys: no text is a permission without the private key",
    run,
};

/// The public key of RFC 8032, 7.1, test 1.
const PUBLIC_KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let verifier = Verifier::read(PUBLIC_KEY).expect("a public key");
    for action in [Action::Drain, Action::Resume] {
        let refusal = verifier
            .check(text, "shop/worker-1", action, Duration::from_hours(500_000))
            .expect_err("a token that nobody signed");
        assert!(!refusal.to_string().is_empty());
    }
    if let Ok(signer) = Signer::read(text) {
        let public_key = signer.public_key();
        assert!(Verifier::read(&public_key).is_ok());
        assert!(
            !format!("{signer:?}").contains(text.trim()),
            "a private key is shown"
        );
    }
    if let Ok(verifier) = Verifier::read(text) {
        assert!(
            verifier
                .check(text, "a/b", Action::Drain, Duration::ZERO)
                .is_err()
        );
    }
}
