//! The address of a broker: `amqp://user:password@host:port/vhost`.
//!
//! Reads what the AMQP URI rules allow (<https://www.rabbitmq.com/docs/uri-spec>) and is more lenient in one place:
//! `@`, `:` and `/` in a password may also be written as they are, because that is how passwords get pasted.

mod percent;
mod redact;

pub(crate) use redact::redact;

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port of `amqp://`.
pub const AMQP_PORT: u16 = 5672;
/// The port of `amqps://`.
pub const AMQPS_PORT: u16 = 5671;

/// Text that must not be seen in a log: its `Debug` prints `<redacted>`, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for handing it to the broker.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// An `amqp://` or `amqps://` address.
///
/// `Display` and `Debug` never show the password; [`reveal`](Self::reveal) does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Whether the connection is encrypted: `amqps://`.
    pub tls: bool,
    /// Host name or address; IPv6 without its brackets.
    pub host: String,
    /// 5672, or 5671 with TLS, unless the address says otherwise.
    pub port: u16,
    /// `guest` unless the address says otherwise.
    pub username: String,
    /// `guest` unless the address says otherwise.
    pub password: Secret,
    /// `/` unless the address says otherwise; at most 255 bytes.
    pub vhost: String,
    /// Seconds between heartbeats; 0 turns them off, `None` leaves it to the broker.
    pub heartbeat: Option<u16>,
}

impl BrokerUrl {
    /// The same broker, another virtual host.
    pub fn with_vhost(self, vhost: impl Into<String>) -> Self {
        Self {
            vhost: vhost.into(),
            ..self
        }
    }

    /// The whole address with its password, in the form that [`FromStr`] reads back to an equal value. For handing on
    /// to another process, never for a log.
    pub fn reveal(&self) -> String {
        let credentials = format!(
            "{}:{}",
            percent::encode(&self.username),
            percent::encode(self.password.reveal())
        );
        self.write(&credentials)
    }

    fn write(&self, credentials: &str) -> String {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let vhost = if self.vhost == "/" {
            String::new()
        } else {
            percent::encode(&self.vhost)
        };
        let heartbeat = self
            .heartbeat
            .map_or_else(String::new, |seconds| format!("?heartbeat={seconds}"));
        format!("{scheme}://{credentials}@{host}:{}/{vhost}{heartbeat}", self.port)
    }
}

impl fmt::Display for BrokerUrl {
    /// `amqp://user@host:port/vhost`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write(&percent::encode(&self.username)))
    }
}

/// Why an address of a broker cannot be understood. Displays as one sentence, without the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} {why}")]
pub struct BrokerUrlError {
    /// What was written, quoted, shortened, and without what may be a password.
    address: String,
    why: &'static str,
}

impl BrokerUrlError {
    /// What is wrong, as the rest of a sentence that begins with the address: `names no host`.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(address: &str) -> Result<Self, BrokerUrlError> {
        parse(address).map_err(|why| BrokerUrlError {
            address: crate::show::quoted(&redact(address)),
            why,
        })
    }
}

/// What is wrong with an address. Fixed words, so that no part of a password can be among them.
type Why = &'static str;

fn parse(address: &str) -> Result<BrokerUrl, Why> {
    let (tls, rest) = scheme(address).ok_or("does not begin with amqp:// or amqps://")?;
    // The last '@' ends the credentials, so that a password may hold one; a host cannot.
    let (credentials, rest) = rest
        .rsplit_once('@')
        .map_or((None, rest), |(user, rest)| (Some(user), rest));
    let (username, password) = match credentials {
        None => ("guest".to_owned(), "guest".to_owned()),
        Some(credentials) => {
            let (username, password) = credentials.split_once(':').unwrap_or((credentials, "guest"));
            (credential(username)?, credential(password)?)
        }
    };
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, ""), |(rest, query)| (rest, query));
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, ""), |(authority, path)| (authority, path));
    let (host, port) = host_and_port(authority)?;
    Ok(BrokerUrl {
        tls,
        host: host.to_owned(),
        port: port.unwrap_or(if tls { AMQPS_PORT } else { AMQP_PORT }),
        username,
        password: Secret::new(password),
        vhost: vhost(path)?,
        heartbeat: heartbeat(query)?,
    })
}

/// Whether TLS is asked for, and what follows the scheme. Schemes are not case-sensitive (RFC 3986, 3.1).
fn scheme(address: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "amqp" => Some((false, rest)),
        "amqps" => Some((true, rest)),
        _ => None,
    }
}

fn credential(encoded: &str) -> Result<String, Why> {
    let decoded = percent::decode(encoded).ok_or(
        "has a % in its credentials that is not part of a percent-encoded character (write % as %25)",
    )?;
    // SASL PLAIN separates the user name from the password with NUL (RFC 4616), so neither may hold one.
    if decoded.contains('\0') {
        return Err("has a NUL in its credentials, which AMQP cannot carry");
    }
    Ok(decoded)
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), Why> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest
            .split_once(']')
            .ok_or("has a [ before its host without the closing ]")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("has something in [ ] that is not an IPv6 address");
        }
        let port = match port {
            "" => None,
            port => Some(
                port.strip_prefix(':')
                    .ok_or("has something between its host's ] and the port")?,
            ),
        };
        (host, port)
    } else {
        let (host, port) = authority
            .split_once(':')
            .map_or((authority, None), |(host, port)| (host, Some(port)));
        if host.is_empty() {
            return Err("names no host");
        }
        if port.is_some_and(|port| port.contains(':')) {
            return Err("has more than one : after the credentials (write an IPv6 address in [ ])");
        }
        if !host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        {
            return Err("has a host with characters other than letters, digits, '-', '.' and '_'");
        }
        (host, port)
    };
    match port {
        // A bare "host:" means the default port (RFC 3986, 3.2.3).
        None | Some("") => Ok((host, None)),
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok((host, Some(port))),
            // The port is not repeated: it may be the password of an address that forgot its host.
            _ => Err("has a port that is not a whole number from 1 to 65535"),
        },
    }
}

fn vhost(path: &str) -> Result<String, Why> {
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    if path.contains('/') {
        return Err("has a / in its virtual host that is not written as %2f");
    }
    if path.contains('#') {
        return Err("has a # in its virtual host that is not written as %23");
    }
    let vhost = percent::decode(path).ok_or(
        "has a % in its virtual host that is not part of a percent-encoded character (write % as %25)",
    )?;
    // As in the setting of its own: RabbitMQ drops line breaks from names.
    if vhost.chars().any(char::is_control) {
        return Err("has a control character in its virtual host");
    }
    if vhost.len() > crate::names::MAX_NAME_BYTES {
        return Err("has a virtual host that is longer than 255 bytes");
    }
    Ok(vhost)
}

/// Options other than the heartbeat are refused rather than ignored: some of them are about security (`verify`,
/// `cacertfile`), and an address that is believed to hold must not silently do something else.
fn heartbeat(query: &str) -> Result<Option<u16>, Why> {
    let mut heartbeat = None;
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if name != "heartbeat" {
            return Err("has an option after its ? that is not heartbeat=SECONDS");
        }
        heartbeat = Some(
            value
                .parse()
                .map_err(|_| "has a heartbeat that is not a whole number from 0 to 65535")?,
        );
    }
    Ok(heartbeat)
}
