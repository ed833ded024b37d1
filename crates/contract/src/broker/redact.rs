//! Takes passwords out of text that was meant to be a broker's address, whatever else is wrong with it.

/// The text without anything that may be a password.
///
/// Nothing can be assumed of an address that does not parse, so this errs on the side of hiding: everything from
/// the first `:` after the scheme to the last `@`, a port that is no number, and the values of options.
pub(crate) fn redact(address: &str) -> String {
    let is_scheme = |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let (scheme, rest) = address
        .split_once("://")
        .filter(|(scheme, _)| is_scheme(scheme))
        .unwrap_or(("", address));
    let mut shown = String::new();
    if !scheme.is_empty() {
        shown.push_str(scheme);
        shown.push_str("://");
    }
    let Some((credentials, rest)) = rest.rsplit_once('@') else {
        return shown + &after_credentials(rest);
    };
    let (username, password) = credentials
        .split_once(':')
        .map_or((credentials, ""), |(user, _)| (user, ":***"));
    // Without a scheme it is not even sure that this is a user name.
    shown.push_str(if scheme.is_empty() { "***" } else { username });
    shown.push_str(password);
    shown.push('@');
    shown + &after_credentials(rest)
}

/// Host, port, path and options. "user:secret" and "user:secret/vhost" are addresses whose host was forgotten.
fn after_credentials(rest: &str) -> String {
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (before, port_and_path) = split_port(rest);
    let mut shown = before.to_owned();
    if let Some(port_and_path) = port_and_path {
        let port = port_and_path.split('/').next().unwrap_or_default();
        shown.push(':');
        let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        shown.push_str(if is_port { port_and_path } else { "***" });
    }
    if let Some(query) = query {
        let options = query.split('&').map(|option| match option.split_once('=') {
            Some(("heartbeat", _)) => option.to_owned(),
            Some((name, _)) => format!("{name}=***"),
            None => "***".to_owned(),
        });
        shown.push('?');
        shown.push_str(&options.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// Splits at the `:` before a port; the ones inside an IPv6 address's brackets are not it.
fn split_port(rest: &str) -> (&str, Option<&str>) {
    let from = if rest.starts_with('[') {
        rest.find(']').unwrap_or(0)
    } else {
        0
    };
    match rest[from..].find(':') {
        Some(at) => (&rest[..from + at], Some(&rest[from + at + 1..])),
        None => (rest, None),
    }
}
