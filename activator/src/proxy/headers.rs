//! What an intermediary may pass on, must take off and has to add.
//!
//! Sources: RFC 9110 §7.2 (Host), §7.6.1 (Connection and what else ends at each hop), §7.6.3 (Via), §10.1.1 (Expect),
//! §10.1.4 (TE); RFC 9112 §3.2 (Host and the request target), §6.1 (Transfer-Encoding); RFC 9113 §8.2.3 (Cookie).

use crate::domain::reject::{Reason, Reject};
use http::header::{
    CONNECTION, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, request};
use std::net::IpAddr;
use std::time::Duration;

/// On answers to calls that waited for their worker: how long, in milliseconds.
pub(crate) const COLD_START: HeaderName = HeaderName::from_static("x-kubedaemon-cold-start");
/// The id of an asynchronous call, OpenFaaS's name for it.
pub(crate) const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that concern one connection only, whether or not `Connection` lists them.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Checks what hyper leaves to its user, and returns the authority that the request names.
///
/// # Errors
///
/// [`Reject`] for a request that is ambiguous or that cannot be forwarded.
pub(crate) fn authority(head: &request::Parts) -> Result<Option<String>, Reject> {
    if head.method == Method::CONNECT {
        return Err(Reject::new(
            Reason::MethodNotAllowed,
            "CONNECT asks for a tunnel, and this is no open proxy",
        ));
    }
    let bad = |detail: &str| Err(Reject::new(Reason::BadRequest, detail));
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Reject::new(
            Reason::TransferCoding,
            "the only transfer coding taken here is chunked",
        ));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (_, Some(_)) => return bad("the request has several Host headers; send one"),
        (Some(Err(_)), _) => return bad("the Host header holds bytes that no host name has"),
        (Some(Ok(host)), None) => Some(host.to_owned()),
        (None, None) => None,
    };
    // A target in absolute form outweighs Host, and HTTP/2 has its :authority there (RFC 9112 §3.2.2).
    let authority = head.uri.authority().map(|authority| {
        let authority = authority.as_str();
        authority
            .rsplit_once('@')
            .map_or(authority, |(_user, host)| host)
            .to_owned()
    });
    match authority.or(host) {
        None if head.version == Version::HTTP_11 => bad("an HTTP/1.1 request needs a Host header"),
        named => Ok(named),
    }
}

/// What a forwarded request says about the way it came.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// The caller's address.
    pub(crate) peer: IpAddr,
    /// The authority that the caller named.
    pub(crate) authority: Option<&'a str>,
    /// The version that the caller spoke.
    pub(crate) version: Version,
    /// What was taken off the path.
    pub(crate) prefix: Option<&'a str>,
    /// The protocol to switch to, when the caller asks for that.
    pub(crate) upgrade: Option<HeaderValue>,
}

/// Makes a caller's headers into those of the request to the worker.
///
/// `X-Forwarded-Proto` and `X-Forwarded-Host` stay as they are when a proxy before us has set them.
pub(crate) fn to_worker(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let takes_trailers = origin.upgrade.is_none() && lists(headers, &TE, "trailers");
    take_off(headers);
    // We have already said "100 Continue" ourselves by the time the body flows.
    headers.remove(EXPECT);
    join(headers, &COOKIE, "; ");
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(authority) = origin
        .authority
        .and_then(|authority| HeaderValue::try_from(authority).ok())
    {
        headers.entry(FORWARDED_HOST).or_insert_with(|| authority.clone());
        headers.insert(HOST, authority);
    }
    append(headers, FORWARDED_FOR, &origin.peer.to_canonical().to_string());
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    if let Some(prefix) = origin
        .prefix
        .and_then(|prefix| HeaderValue::try_from(prefix).ok())
    {
        headers.insert(FORWARDED_PREFIX, prefix);
    }
    append(headers, VIA, &format!("{} kubedaemon", hop(origin.version)));
    if let Some(protocol) = &origin.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

/// Makes a worker's headers into those of the answer to the caller; `waited` is how long the call had to wait.
pub(crate) fn to_caller(headers: &mut HeaderMap, waited: Option<Duration>) {
    take_off(headers);
    if let Some(waited) = waited {
        explain(headers, waited);
    }
}

/// Says how long a call waited for its worker: whole milliseconds, and with one decimal (cut off, so that both agree)
/// where browsers show it.
///
/// Source: <https://www.w3.org/TR/server-timing/>.
pub(crate) fn explain(headers: &mut HeaderMap, waited: Duration) {
    let tenths = u64::try_from(waited.as_micros() / 100).unwrap_or(u64::MAX);
    headers.insert(COLD_START, HeaderValue::from(tenths / 10));
    let timing = format!("wake;dur={}.{}", tenths / 10, tenths % 10);
    if let Ok(timing) = HeaderValue::try_from(timing) {
        headers.append(SERVER_TIMING, timing);
    }
}

/// The protocol that a request asks to switch to, as in a WebSocket handshake.
///
/// `h2c` is not among them: RFC 9113 has removed it, and tunnelling it would carry requests past every check here.
pub(crate) fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    let protocol = head.headers.get(UPGRADE)?;
    let is_asked_for = head.version == Version::HTTP_11 && lists(&head.headers, &CONNECTION, "upgrade");
    let is_h2c = protocol.to_str().map_or(true, |text| {
        text.split(',').any(|name| {
            name.trim()
                .get(..2)
                .is_some_and(|start| start.eq_ignore_ascii_case("h2"))
        })
    });
    (is_asked_for && !is_h2c).then(|| protocol.clone())
}

/// The headers that a message in a queue carries of a request: those that are meant for its receiver.
pub(crate) fn end_to_end(headers: &mut HeaderMap) {
    take_off(headers);
    for hop in [EXPECT, HOST, TRAILER, VIA] {
        headers.remove(hop);
    }
}

/// Removes what ends at this hop.
fn take_off(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // Listing it must not make a request's destination disappear.
        .filter(|name| name != HOST)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whether a list-valued field holds `member`, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    let mut values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.any(|value| {
        value
            .split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(member))
    })
}

/// Adds a member to a list-valued field, in one line with what was there.
fn append(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    join(headers, &name, ", ");
    let list = match headers.get(&name).map(HeaderValue::as_bytes) {
        Some(before) if !before.is_empty() => [before, b", ", member.as_bytes()].concat(),
        _ => member.as_bytes().to_vec(),
    };
    if let Ok(list) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(name, list);
    }
}

/// Joins repeated lines of a field into one.
fn join(headers: &mut HeaderMap, name: &HeaderName, separator: &str) {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(lines.join(separator.as_bytes())))
    {
        headers.insert(name, line);
    }
}

fn hop(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        headers
    }

    fn said(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    fn origin() -> Origin<'static> {
        Origin {
            peer: "::ffff:10.1.2.3".parse().unwrap(),
            authority: Some("orders.shop:80"),
            version: Version::HTTP_11,
            prefix: None,
            upgrade: None,
        }
    }

    const ADDED: [&str; 5] = [
        "host: orders.shop:80",
        "via: 1.1 kubedaemon",
        "x-forwarded-for: 10.1.2.3",
        "x-forwarded-host: orders.shop:80",
        "x-forwarded-proto: http",
    ];

    #[test]
    fn what_ends_at_this_hop_is_taken_off() {
        let mut headers = map(&[
            ("host", "elsewhere"),
            ("connection", "close, X-Secret"),
            ("connection", "host,, bad name"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
            ("te", "gzip"),
            ("expect", "100-continue"),
        ]);
        to_worker(&mut headers, &origin());
        assert_eq!(said(&headers), ADDED);
    }

    #[test]
    fn what_is_meant_for_the_worker_stays() {
        let mut headers = map(&[
            ("content-length", "3"),
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("te", "trailers"),
            ("trailer", "digest"),
            ("traceparent", "00-x"),
            ("via", "1.0 edge"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-proto", "https"),
        ]);
        let upgrade = Some(HeaderValue::from_static("websocket"));
        to_worker(
            &mut headers,
            &Origin {
                prefix: Some("/shop/orders"),
                upgrade,
                ..origin()
            },
        );
        assert_eq!(
            said(&headers),
            [
                "authorization: Bearer x",
                "connection: upgrade",
                "content-length: 3",
                "cookie: a=1; b=2",
                "host: orders.shop:80",
                "traceparent: 00-x",
                "trailer: digest",
                "upgrade: websocket",
                "via: 1.0 edge, 1.1 kubedaemon",
                "x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.1.2.3",
                "x-forwarded-host: shop.example",
                "x-forwarded-prefix: /shop/orders",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn trailers_are_taken_when_the_caller_takes_them() {
        let mut headers = map(&[("connection", "te"), ("te", "deflate;q=0.5, Trailers")]);
        to_worker(&mut headers, &origin());
        headers.remove(VIA);
        let said = said(&headers);
        assert!(
            said.contains(&"te: trailers".to_owned()) && said.contains(&"connection: te".to_owned()),
            "{said:?}"
        );
    }

    #[test]
    fn an_answer_says_how_long_its_call_waited() {
        let mut headers = map(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("server-timing", "db;dur=3"),
            ("etag", "e"),
        ]);
        to_caller(&mut headers, Some(Duration::from_micros(1_234_567)));
        assert_eq!(
            said(&headers),
            [
                "etag: e",
                "server-timing: db;dur=3",
                "server-timing: wake;dur=1234.5",
                "x-kubedaemon-cold-start: 1234",
            ]
        );
        let mut warm = map(&[("etag", "e")]);
        to_caller(&mut warm, None);
        assert_eq!(said(&warm), ["etag: e"]);
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let head = |builder: request::Builder| builder.body(()).unwrap().into_parts().0;
        let get = || Request::get("/");
        let reason = |head: &request::Parts| authority(head).map_err(|reject| reject.reason);
        assert_eq!(reason(&head(get().header(HOST, "a"))), Ok(Some("a".to_owned())));
        assert_eq!(reason(&head(get())), Err(Reason::BadRequest));
        assert_eq!(reason(&head(get().version(Version::HTTP_10))), Ok(None));
        assert_eq!(
            reason(&head(get().header(HOST, "a").header(HOST, "a"))),
            Err(Reason::BadRequest)
        );
        assert_eq!(
            reason(&head(get().header(HOST, &b"\xff"[..]))),
            Err(Reason::BadRequest)
        );
        assert_eq!(
            reason(&head(Request::get("http://user@b:1/").header(HOST, "a"))),
            Ok(Some("b:1".to_owned())),
            "absolute form outweighs Host"
        );
        let coded = |coding: &str| head(get().header(HOST, "a").header(TRANSFER_ENCODING, coding));
        assert_eq!(reason(&coded("Chunked")), Ok(Some("a".to_owned())));
        assert_eq!(reason(&coded("gzip, chunked")), Err(Reason::TransferCoding));
        assert_eq!(
            reason(&head(Request::connect("b:1"))),
            Err(Reason::MethodNotAllowed)
        );
    }

    #[test]
    fn only_upgrades_that_can_be_tunnelled_are_passed_on() {
        let asked = |connection: &str, protocol: &str| {
            let request = Request::get("/")
                .header(CONNECTION, connection)
                .header(UPGRADE, protocol)
                .body(())
                .unwrap();
            upgrade(&request.into_parts().0).is_some()
        };
        assert!(asked("keep-alive, Upgrade", "websocket"));
        assert!(!asked("keep-alive", "websocket"));
        assert!(!asked("upgrade, http2-settings", "h2c"));
        assert!(!asked("upgrade", "websocket, H2C"));
        assert!(!asked("upgrade", "é"));
    }
}
