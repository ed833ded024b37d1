//! Addresses of brokers.

use crate::Target;
use crate::input::text;
use contract::broker::{BrokerUrl, Secret};

pub(crate) const TARGET: Target = Target {
    name: "broker-url",
    what: "addresses of brokers: printed without the password, written so that they are read the same",
    run,
};

fn run(input: &[u8]) {
    let Some(address) = text(input) else { return };
    match address.parse::<BrokerUrl>() {
        Ok(url) => check_url(&url),
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
            check_hidden(address, &sentence);
        }
    }
}

fn check_url(url: &BrokerUrl) {
    assert!(
        !url.host.is_empty() && url.port > 0 && url.vhost.len() <= 255,
        "{url:?}"
    );
    let again: BrokerUrl = url.reveal().parse().expect("an address");
    assert_eq!(&again, url);
    // What is shown does not depend on the password.
    let other = BrokerUrl {
        password: Secret::new("another password"),
        ..url.clone()
    };
    assert_eq!(url.to_string(), other.to_string());
    assert_eq!(format!("{url:?}"), format!("{other:?}"));
    // And is an address itself, of the same place.
    let shown: BrokerUrl = url.to_string().parse().expect("an address");
    let guest = BrokerUrl {
        password: Secret::new("guest"),
        ..url.clone()
    };
    assert_eq!(shown, guest);
}

/// What is said of an address that cannot be used does not depend on its password either, as long as the password is
/// not what is wrong with it.
fn check_hidden(address: &str, sentence: &str) {
    let Some((scheme, rest)) = address.split_once("://") else {
        return;
    };
    let Some((credentials, place)) = rest.rsplit_once('@') else {
        return;
    };
    let Some((username, password)) = credentials.split_once(':') else {
        return;
    };
    if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        || !password.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return;
    }
    let other = format!("{scheme}://{username}:another@{place}");
    let said = other
        .parse::<BrokerUrl>()
        .map(|_| ())
        .map_err(|error| error.to_string());
    assert_eq!(said, Err(sentence.to_owned()));
}
