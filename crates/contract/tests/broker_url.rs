//! Addresses of brokers: what is read, what is refused, and that a password is never shown.

use contract::broker::{BrokerUrl, Secret};
use contract::settings::{self, Annotations};
use proptest::prelude::*;

fn read(address: &str) -> BrokerUrl {
    address.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_is_left_out_has_a_default() {
    let url = read("amqp://broker");
    let expected = BrokerUrl {
        tls: false,
        host: "broker".to_owned(),
        port: 5672,
        username: "guest".to_owned(),
        password: Secret::new("guest"),
        vhost: "/".to_owned(),
        heartbeat: None,
    };
    assert_eq!(url, expected);
    assert_eq!(read("amqps://broker").port, 5671);
    assert_eq!(read("AMQPS://broker:5673").port, 5673);
    assert_eq!(read("amqp://broker:").port, 5672);
    assert_eq!(read("amqp://ann@broker").password.reveal(), "guest");
    assert_eq!(read("amqp://ann:@broker").password.reveal(), "");
    assert_eq!(read("amqp://broker?heartbeat=30").heartbeat, Some(30));
}

#[test]
fn credentials_may_hold_at_colon_and_slash_raw_or_encoded() {
    for address in [
        "amqp://ann:p@ss:w/rd?#x@broker/v",
        "amqp://ann:p%40ss%3aw%2Frd%3f%23x@broker/v",
    ] {
        let url = read(address);
        assert_eq!(
            (
                url.username.as_str(),
                url.password.reveal(),
                url.host.as_str(),
                url.vhost.as_str()
            ),
            ("ann", "p@ss:w/rd?#x", "broker", "v"),
            "{address}"
        );
    }
    assert_eq!(read("amqp://a%3ab:x@broker").username, "a:b");
}

#[test]
fn the_path_is_the_virtual_host() {
    let rows = [
        ("", "/"),
        ("/", "/"),
        ("/%2f", "/"),
        ("/%2F", "/"),
        ("/team", "team"),
        ("/a%2fb", "a/b"),
        ("/%2fteam", "/team"),
    ];
    for (path, vhost) in rows {
        assert_eq!(read(&format!("amqp://broker:5672{path}")).vhost, vhost, "{path}");
    }
    assert_eq!(read("amqp://broker/a").with_vhost("b").vhost, "b");
}

#[test]
fn ipv6_stands_in_brackets() {
    let url = read("amqps://ann:x@[2001:db8::1]:5673/team");
    assert_eq!((url.host.as_str(), url.port), ("2001:db8::1", 5673));
    assert_eq!(read("amqp://[::1]").port, 5672);
    assert_eq!(url.to_string(), "amqps://ann@[2001:db8::1]:5673/team");
}

#[test]
fn the_password_is_not_shown() {
    let url = read("amqp://ann:s3cret@broker/team?heartbeat=5");
    assert_eq!(url.to_string(), "amqp://ann@broker:5672/team?heartbeat=5");
    assert!(!format!("{url:?}").contains("s3cret"));
    assert_eq!(read("amqp://broker").to_string(), "amqp://guest@broker:5672/");
}

/// Address, how the sentence about it ends.
const WRONG: &[(&str, &str)] = &[
    ("", r#""" does not begin with amqp:// or amqps://"#),
    (
        "broker:5672",
        r#""broker:5672" does not begin with amqp:// or amqps://"#,
    ),
    (
        "http://u:s3cret@h",
        r#""http://u:***@h" does not begin with amqp:// or amqps://"#,
    ),
    (
        "u:s3cret@h",
        r#""***:***@h" does not begin with amqp:// or amqps://"#,
    ),
    ("amqp://", r#""amqp://" names no host"#),
    ("amqp:///team", r#""amqp:///team" names no host"#),
    ("amqp://u:s3cret@", r#""amqp://u:***@" names no host"#),
    (
        "amqp://h:0",
        r#""amqp://h:0" has a port that is not a whole number from 1 to 65535"#,
    ),
    (
        "amqp://h:70000",
        r#""amqp://h:70000" has a port that is not a whole number from 1 to 65535"#,
    ),
    // The host was forgotten: what stands where the port should is the password.
    (
        "amqp://u:s3cret/team",
        r#""amqp://u:***" has a port that is not a whole number from 1 to 65535"#,
    ),
    ("amqp://::1", r#""amqp://:***" names no host"#),
    (
        "amqp://a:1:2",
        r#""amqp://a:***" has more than one : after the credentials (write an IPv6 address in [ ])"#,
    ),
    ("amqp://[::1", " has a [ before its host without the closing ]"),
    (
        "amqp://[nope]",
        " has something in [ ] that is not an IPv6 address",
    ),
    (
        "amqp://[::1]5672",
        " has something between its host's ] and the port",
    ),
    (
        "amqp://ho st",
        " has a host with characters other than letters, digits, '-', '.' and '_'",
    ),
    (
        "amqp://u:100%@h",
        "has a % in its credentials that is not part of a percent-encoded character (write % as %25)",
    ),
    (
        "amqp://u:%00@h",
        "has a NUL in its credentials, which AMQP cannot carry",
    ),
    (
        "amqp://h/a/b",
        "has a / in its virtual host that is not written as %2f",
    ),
    (
        "amqp://h/a#b",
        "has a # in its virtual host that is not written as %23",
    ),
    (
        "amqp://h/%zz",
        "has a % in its virtual host that is not part of a percent-encoded character (write % as %25)",
    ),
    (
        "amqp://h/%ff",
        "has a % in its virtual host that is not part of a percent-encoded character (write % as %25)",
    ),
    ("amqp://h/a%0ab", "has a control character in its virtual host"),
    (
        "amqp://h?verify=s3cret",
        r#""amqp://h?verify=***" has an option after its ? that is not heartbeat=SECONDS"#,
    ),
    (
        "amqp://h?heartbeat=often",
        "has a heartbeat that is not a whole number from 0 to 65535",
    ),
];

#[test]
fn a_wrong_address_is_told_in_one_sentence() {
    let long = format!("amqp://broker/{}", "v".repeat(256));
    let long = (long.as_str(), "has a virtual host that is longer than 255 bytes");
    for (address, expected) in WRONG.iter().copied().chain([long]) {
        let error = address.parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(error.ends_with(expected), "{address}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

/// An address with a mistake in it and SECRET where a careless hand may have put the password.
fn mangled() -> impl Strategy<Value = String> {
    let templates = [
        "amqp://u:SECRET@h:port/v",
        "amqp:/u:SECRET@h",
        "amqp//u:SECRET@h",
        "u:SECRET@h",
        "u:SECRET://x@h",
        "u:x://SECRET@h",
        "http://u:SECRET@h",
        "amqp://u:a@SECRET@h:x",
        "amqp://u:SECRET@x@",
        "amqp://u:a/SECRET@h:x",
        "amqp://u:a?SECRET@h:x",
        "amqp://u:a#SECRET@h:x",
        "amqp://u:SECRET",
        "amqp://u:SECRET/v",
        "amqp://u:a/SECRET",
        "amqp://u:a?SECRET",
        "amqp://u:a:SECRET",
        "amqp://[::1]:SECRET",
        "amqp://u:%SECRET@h",
        "amqp://h?password=SECRET",
        "amqp://h?verify=a&x=SECRET",
        "ftp://u:SECRET",
    ];
    (prop::sample::select(templates.to_vec()), "[g-z]{12}")
        .prop_map(|(template, secret)| template.replace("SECRET", &secret))
}

/// Any text that SASL PLAIN can carry.
fn credential() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("no NUL", |text| !text.contains('\0'))
}

proptest! {
    #[test]
    fn any_address_that_is_written_is_read_back(
        tls: bool,
        host in "[a-zA-Z0-9._-]{1,30}|[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}",
        port in 1..=u16::MAX,
        username in credential(),
        password in credential(),
        vhost in any::<String>().prop_filter("1 to 255 bytes", |v| (1..=255).contains(&v.len())),
        heartbeat: Option<u16>,
    ) {
        let url = BrokerUrl { tls, host, port, username, password: Secret::new(password), vhost, heartbeat };
        prop_assert_eq!(&read(&url.reveal()), &url);
        let shown = url.to_string();
        let read: BrokerUrl = shown.parse().unwrap();
        prop_assert_eq!(read.vhost, url.vhost);
        prop_assert_eq!(read.username, url.username);
        prop_assert!(!shown.contains(char::is_control));
    }

    #[test]
    fn anything_may_be_given_to_the_parser(text: String, like in "(amqps?)?(://)?[a-z:@/%?#\\[\\]0-9&=é]{0,30}") {
        for text in [text, like] {
            if let Err(error) = text.parse::<BrokerUrl>() {
                let sentence = error.to_string();
                prop_assert!(!sentence.contains('\n'));
                prop_assert!(sentence.len() < 600);
            }
        }
    }

    #[test]
    fn a_password_in_a_wrong_address_is_never_repeated(address in mangled()) {
        let secret: String = {
            let mut runs: Vec<&str> = address.split(|c: char| !('g'..='z').contains(&c)).collect();
            runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
            runs[0].to_owned()
        };
        let error = address.parse::<BrokerUrl>();
        prop_assert!(error.is_err(), "{} was accepted", address);
        let annotations = Annotations::new([("kubedaemon.io/broker".to_owned(), address)]);
        let problems = settings::parse(&annotations).unwrap_err();
        for sentence in [error.unwrap_err().to_string(), problems.to_string(), format!("{problems:?}")] {
            prop_assert!(!sentence.contains(&secret), "{}", sentence);
        }
    }
}
