use super::*;
use proptest::prelude::*;

struct Known(Vec<TargetName>);

impl Directory for Known {
    fn knows(&self, target: &TargetName) -> bool {
        self.0.contains(target)
    }
    fn names(&self) -> Vec<TargetName> {
        self.0.clone()
    }
    fn queue(&self, _: &TargetName) -> Option<String> {
        Some("jobs".to_owned())
    }
}

fn target(full: &str) -> TargetName {
    let (namespace, name) = full.split_once('/').unwrap();
    TargetName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn known() -> Known {
    Known(
        [
            "shop/orders",
            "default/resize",
            "shop/mail",
            "ops/mail",
            "shop/v1.api",
            "orders/x",
        ]
        .map(target)
        .into(),
    )
}

/// `forward <target> <path> <prefix>`, `enqueue <target> <rest>`, `unknown <asked>` or `ambiguous <asked>`.
fn said(routing: &Routing, host: Option<&str>, path: &str) -> String {
    match resolve(routing, host, path, &known()) {
        Ok(Route::Forward { target, path, prefix }) => {
            format!("forward {target} {path} {}", prefix.as_deref().unwrap_or("-"))
        }
        Ok(Route::Enqueue { target, rest }) => {
            format!("enqueue {target} {}", rest.as_deref().unwrap_or("-"))
        }
        Err(Unrouted::Unknown { asked, .. }) => format!("unknown {asked}"),
        Err(Unrouted::Ambiguous { asked, candidates }) => {
            format!("ambiguous {asked} {}", candidates.len())
        }
    }
}

#[test]
fn by_path() {
    for (path, expected) in [
        ("/shop/orders", "forward shop/orders / /shop/orders"),
        ("/shop/orders/", "forward shop/orders / /shop/orders"),
        (
            "/shop/orders/a/b?c=d/e",
            "forward shop/orders /a/b?c=d/e /shop/orders",
        ),
        ("/shop/orders?c=d", "forward shop/orders /?c=d /shop/orders"),
        ("/shop/orders//a", "forward shop/orders //a /shop/orders"),
        (
            "/shop/orders/%2e%2e/a",
            "forward shop/orders /%2e%2e/a /shop/orders",
        ),
        ("/shop/order", "unknown shop/order"),
        ("/shop/%6frders", "unknown shop/%6frders"),
        ("//shop/orders", "unknown /shop"),
        ("/shop?a=b", "unknown /shop"),
        ("/", "unknown /"),
        ("*", "unknown *"),
        ("", "unknown "),
        ("/async", "unknown /async"),
        ("/asynchronous/orders", "unknown asynchronous/orders"),
    ] {
        assert_eq!(
            said(&Routing::ByName, Some("127.0.0.1:8080"), path),
            expected,
            "{path}"
        );
    }
}

#[test]
fn by_host() {
    for (host, expected) in [
        ("orders", "forward shop/orders /async/resize -"),
        ("orders:8080", "forward shop/orders /async/resize -"),
        ("ORDERS.Shop", "forward shop/orders /async/resize -"),
        ("orders.shop.svc", "forward shop/orders /async/resize -"),
        (
            "orders.shop.svc.cluster.local.:80",
            "forward shop/orders /async/resize -",
        ),
        ("v1.api", "forward shop/v1.api /async/resize -"),
        (
            "v1.api.shop.svc.cluster.local",
            "forward shop/v1.api /async/resize -",
        ),
        ("mail.ops", "forward ops/mail /async/resize -"),
        ("mail", "ambiguous mail 2"),
        ("orders.shop.example.com", "enqueue default/resize -"),
        ("orders.shop.svcs", "enqueue default/resize -"),
        ("localhost:8080", "enqueue default/resize -"),
        ("[::1]:8080", "enqueue default/resize -"),
        ("::1", "enqueue default/resize -"),
        (":80", "enqueue default/resize -"),
        ("", "enqueue default/resize -"),
        (".", "enqueue default/resize -"),
    ] {
        assert_eq!(
            said(&Routing::ByName, Some(host), "/async/resize"),
            expected,
            "{host}"
        );
    }
    assert_eq!(
        said(&Routing::ByName, None, "/shop/orders"),
        "forward shop/orders / /shop/orders"
    );
}

#[test]
fn asynchronous() {
    for (path, expected) in [
        ("/async/resize", "enqueue default/resize -"),
        ("/async/resize/", "enqueue default/resize -"),
        ("/async/resize/a?b=c", "enqueue default/resize /a?b=c"),
        ("/async/resize?b=c", "enqueue default/resize /?b=c"),
        ("/async/shop/orders", "enqueue shop/orders -"),
        ("/async/shop/orders/a", "enqueue shop/orders /a"),
        ("/async/orders/x", "enqueue orders/x -"),
        ("/async/orders/y", "enqueue shop/orders /y"),
        ("/async/mail", "ambiguous mail 2"),
        ("/async/ops/mail", "enqueue ops/mail -"),
        ("/async-function/resize", "enqueue default/resize -"),
        ("/async-function/mail.ops/a", "enqueue ops/mail /a"),
        ("/async/", "unknown "),
        ("/async/nobody", "unknown nobody"),
    ] {
        assert_eq!(
            said(&Routing::ByName, Some("activator.kubedaemon"), path),
            expected,
            "{path}"
        );
    }
}

#[test]
fn single_target() {
    let routing = Routing::Single(target("shop/orders"));
    for (host, path, expected) in [
        ("resize", "/", "forward shop/orders / -"),
        (
            "x",
            "/default/resize/a?b",
            "forward shop/orders /default/resize/a?b -",
        ),
        ("x", "/shop/orders/a", "forward shop/orders /shop/orders/a -"),
        ("x", "*", "forward shop/orders * -"),
        ("x", "/async", "forward shop/orders /async -"),
        ("x", "/asyncio/a", "forward shop/orders /asyncio/a -"),
        ("x", "/async/orders", "enqueue shop/orders -"),
        ("x", "/async/shop/orders/a", "enqueue shop/orders /a"),
        ("x", "/async/orders/a", "enqueue shop/orders /a"),
        ("x", "/async/jobs", "enqueue shop/orders -"),
        ("x", "/async/orders.shop", "enqueue shop/orders -"),
        ("x", "/async-function/orders", "enqueue shop/orders -"),
        ("x", "/async/resize", "unknown resize"),
        ("x", "/async/", "unknown "),
    ] {
        assert_eq!(said(&routing, Some(host), path), expected, "{path}");
    }
    assert_eq!(
        said(&Routing::Single(target("shop/gone")), None, "/"),
        "unknown shop/gone"
    );
}

#[test]
fn a_port_of_its_own_belongs_to_the_target_whole() {
    let routing = Routing::Whole(target("shop/orders"));
    for (host, path, expected) in [
        (None, "/", "forward shop/orders / -"),
        (
            Some("mail.ops"),
            "/ops/mail?a=b",
            "forward shop/orders /ops/mail?a=b -",
        ),
        (None, "/async/orders", "forward shop/orders /async/orders -"),
    ] {
        assert_eq!(said(&routing, host, path), expected);
    }
    let gone = Routing::Whole(target("shop/gone"));
    assert_eq!(said(&gone, None, "/"), "unknown shop/gone");
}

#[test]
fn unknown_names_the_known_ones_in_order() {
    let Err(Unrouted::Unknown { known, .. }) = resolve(&Routing::ByName, None, "/a/b", &known()) else {
        panic!("a route to a target that does not exist")
    };
    assert_eq!(
        known.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "default/resize",
            "ops/mail",
            "orders/x",
            "shop/mail",
            "shop/orders",
            "shop/v1.api"
        ]
    );
}

proptest! {
    /// Whatever is asked for: a route leads to a target that there is, and what the worker sees is the path that
    /// the caller sent, less the prefix.
    #[test]
    fn routes_lead_to_targets_and_keep_the_rest_of_the_path(
        single in prop::bool::ANY,
        host in prop::option::of("[a-zA-Z0-9.:\\[\\]é-]{0,24}"),
        path in prop_oneof![
            "[/a-z0-9?.%é]{0,24}",
            "/(shop|default|async|async-function)/(orders|resize|mail|shop/orders|mail\\.ops)[/?a-z]{0,8}",
        ],
    ) {
        let routing = if single { Routing::Single(target("shop/orders")) } else { Routing::ByName };
        match resolve(&routing, host.as_deref(), &path, &known()) {
            Ok(Route::Forward { target, path: rest, prefix }) => {
                prop_assert!(known().knows(&target));
                let whole = format!("{}{rest}", prefix.unwrap_or_default());
                let added_slash = whole.replacen("/?", "?", 1) == path || whole == format!("{path}/");
                prop_assert!(whole == path || whole == rooted(&path) || added_slash, "{whole} of {path}");
            }
            Ok(Route::Enqueue { target, rest }) => {
                prop_assert!(known().knows(&target));
                let rest = rest.unwrap_or_default();
                prop_assert!(path.ends_with(rest.trim_start_matches('/')), "{rest} of {path}");
            }
            Err(Unrouted::Unknown { known: named, .. }) => {
                prop_assert!(named.iter().all(|name| known().knows(name)));
            }
            Err(Unrouted::Ambiguous { candidates, .. }) => prop_assert!(candidates.len() > 1),
        }
    }
}
