//! Which target a call is for. An input is lines: how calls are routed (`name`, `single`, `whole`), the host, path and
//! query, and then the targets as `namespace/name` or `namespace/name=queue`.

use crate::Target;
use crate::input::text;
use activator::TargetName;
use activator::domain::route::{Directory, Route, Routing, Unrouted, resolve};
use http::uri::PathAndQuery;

pub(crate) const TARGET: Target = Target {
    name: "route",
    what: "calls to targets: a target that there is, and a path that is the caller's without what was taken off",
    run,
};

struct Targets(Vec<(TargetName, Option<String>)>);

impl Directory for Targets {
    fn knows(&self, target: &TargetName) -> bool {
        self.0.iter().any(|(known, _)| known == target)
    }

    fn names(&self) -> Vec<TargetName> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    fn queue(&self, target: &TargetName) -> Option<String> {
        self.0.iter().find(|(known, _)| known == target)?.1.clone()
    }
}

fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut lines = text.lines();
    let (kind, host, path) = (lines.next(), lines.next(), lines.next());
    let host = host.filter(|host| !host.is_empty());
    // The HTTP server lets nothing else through.
    let Some(path) = path.filter(|path| path.parse::<PathAndQuery>().is_ok() && path.starts_with('/')) else {
        return;
    };
    let targets: Vec<_> = lines.filter_map(target).collect();
    let first = || {
        targets
            .first()
            .map_or_else(|| name("default", "web"), |(first, _)| first.clone())
    };
    let routing = match kind {
        Some("single") => Routing::Single(first()),
        Some("whole") => Routing::Whole(first()),
        _ => Routing::ByName,
    };
    let targets = Targets(targets);
    match resolve(&routing, host, path, &targets) {
        Ok(Route::Forward {
            target,
            path: left,
            prefix,
        }) => {
            assert!(targets.knows(&target));
            assert!(
                left.starts_with('/') && left.parse::<PathAndQuery>().is_ok(),
                "{left}"
            );
            let prefix = prefix.unwrap_or_default();
            assert!(!prefix.ends_with('/'), "{prefix}");
            let rest = path
                .strip_prefix(&prefix)
                .expect("the prefix was taken off the path");
            let rooted = if rest.starts_with('/') {
                rest.to_owned()
            } else {
                format!("/{rest}")
            };
            assert_eq!(left, rooted);
        }
        Ok(Route::Enqueue { target, rest }) => {
            assert!(targets.knows(&target) && path.starts_with("/async"));
            if let Some(rest) = rest {
                assert!(
                    rest.starts_with('/') && rest.parse::<PathAndQuery>().is_ok(),
                    "{rest}"
                );
                assert!(path.ends_with(rest.trim_start_matches('/')), "{rest}");
            }
        }
        Err(Unrouted::Unknown { known, .. }) => assert!(known.is_sorted()),
        Err(Unrouted::Ambiguous { asked, candidates }) => {
            assert!(candidates.len() > 1 && candidates.is_sorted());
            assert!(candidates.iter().all(|target| target.name == asked));
        }
    }
}

fn target(line: &str) -> Option<(TargetName, Option<String>)> {
    let (target, queue) = match line.split_once('=') {
        Some((target, queue)) => (target, Some(queue.to_owned())),
        None => (line, None),
    };
    let (namespace, rest) = target.split_once('/')?;
    // As Kubernetes names things.
    let is_name = |text: &str| {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        !text.is_empty() && text.chars().all(is_part)
    };
    (is_name(namespace) && !namespace.contains('.') && is_name(rest)).then(|| (name(namespace, rest), queue))
}

fn name(namespace: &str, name: &str) -> TargetName {
    TargetName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}
