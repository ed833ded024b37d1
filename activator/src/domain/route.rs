//! Which target is a call for, and what is left of its path?
//!
//! Three ways to name a target, tried in this order:
//!
//! 1. **Host**: `<name>`, `<name>.<namespace>` and `<name>.<namespace>.svc…`, the names under which Kubernetes'
//!    DNS knows a Service (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>). The call
//!    then belongs to the worker whole: its path is not looked at, not even for `/async/`.
//! 2. **Asynchronous**: `/async/<name>/…`, `/async/<namespace>/<name>/…`, and OpenFaaS's `/async-function/<name>/…`,
//!    `/async-function/<name>.<namespace>/…`. Where both readings name a target, the one with the namespace wins.
//! 3. **Path**: `/<namespace>/<name>/…`; the worker sees the rest.
//!
//! With [`Routing::Single`] there is one target: every path that does not start with `/async/` or
//! `/async-function/` goes to it unchanged, whatever the host. With [`Routing::Whole`] even those do: callers of a
//! Service that the activator stands in for mean the worker and have never heard of the activator.
//!
//! Segments are compared byte by byte. Kubernetes names need no percent-encoding, so an encoded segment names
//! nothing, and a path is never rewritten beyond the prefix that is taken off.

use crate::targets::TargetName;
use std::net::IpAddr;

/// How calls find their target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// By host or by path, among all targets.
    ByName,
    /// Every call is for this one, or for its queue when its path says so.
    Single(TargetName),
    /// Every call is for this one, whatever its path: the port on which it came is the worker's own.
    Whole(TargetName),
}

/// What routing needs to know about targets.
pub trait Directory {
    /// Whether there is such a target.
    fn knows(&self, target: &TargetName) -> bool;
    /// All targets.
    fn names(&self) -> Vec<TargetName>;
    /// The queue behind a target, an alias for its name in [`Routing::Single`].
    fn queue(&self, target: &TargetName) -> Option<String>;
}

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the worker, which is woken when it is at zero.
    Forward {
        /// The worker.
        target: TargetName,
        /// Path and query as the worker shall see them; starts with `/`.
        path: String,
        /// What was taken off the path, without a slash at its end; `None` when nothing was.
        prefix: Option<String>,
    },
    /// To the worker's queue.
    Enqueue {
        /// The worker.
        target: TargetName,
        /// What followed the name, path and query; `None` when nothing did.
        rest: Option<String>,
    },
}

/// Why a call has no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unrouted {
    /// Nothing that the call names is a target.
    Unknown {
        /// What the call named.
        asked: String,
        /// The targets that there are, in order.
        known: Vec<TargetName>,
    },
    /// A bare name that several namespaces have.
    Ambiguous {
        /// The bare name.
        asked: String,
        /// The targets of that name, in order.
        candidates: Vec<TargetName>,
    },
}

/// Finds the route of a call.
///
/// `host` is the authority that the call names, with or without a port; `path` is its path and query.
///
/// # Errors
///
/// [`Unrouted`] when the call names no target, or a bare name that more than one target has.
pub fn resolve(
    routing: &Routing,
    host: Option<&str>,
    path: &str,
    directory: &impl Directory,
) -> Result<Route, Unrouted> {
    match routing {
        Routing::Single(target) => single(target, path, directory),
        Routing::Whole(target) => whole(target, path, directory),
        Routing::ByName => by_name(host, path, directory),
    }
}

fn whole(target: &TargetName, path: &str, directory: &impl Directory) -> Result<Route, Unrouted> {
    if !directory.knows(target) {
        return Err(gone(target));
    }
    Ok(Route::Forward {
        target: target.clone(),
        path: rooted(path),
        prefix: None,
    })
}

/// The only target that there was is none any more.
fn gone(target: &TargetName) -> Unrouted {
    Unrouted::Unknown {
        asked: target.to_string(),
        known: Vec::new(),
    }
}

fn single(target: &TargetName, path: &str, directory: &impl Directory) -> Result<Route, Unrouted> {
    let unknown = |asked: &str| Unrouted::Unknown {
        asked: asked.to_owned(),
        known: vec![target.clone()],
    };
    if !directory.knows(target) {
        return Err(gone(target));
    }
    let Some(named) = after_async(path) else {
        return Ok(Route::Forward {
            target: target.clone(),
            path: rooted(path),
            prefix: None,
        });
    };
    let (first, after_first) = segment(named);
    let (second, after_second) = segment(after_first);
    let queue = directory.queue(target);
    let rest = if first == target.namespace && second == target.name {
        after_second
    } else if first == target.name
        || Some(first) == queue.as_deref()
        || dotted(first).is_some_and(|named| named == *target)
    {
        after_first
    } else {
        return Err(unknown(first));
    };
    Ok(Route::Enqueue {
        target: target.clone(),
        rest: left(rest),
    })
}

fn by_name(host: Option<&str>, path: &str, directory: &impl Directory) -> Result<Route, Unrouted> {
    if let Some(target) = host.map(|host| by_host(host, directory)).transpose()?.flatten() {
        return Ok(Route::Forward {
            target,
            path: rooted(path),
            prefix: None,
        });
    }
    if let Some(named) = after_async(path) {
        return enqueue(named, directory);
    }
    let (namespace, after_namespace) = segment(path);
    let (name, rest) = segment(after_namespace);
    let target = TargetName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    if !name.is_empty() && directory.knows(&target) {
        let prefix = Some(format!("/{target}"));
        return Ok(Route::Forward {
            target,
            path: rooted(rest),
            prefix,
        });
    }
    let asked = if name.is_empty() {
        path.split('?').next().unwrap_or(path)
    } else {
        &target.to_string()
    };
    Err(Unrouted::Unknown {
        asked: asked.to_owned(),
        known: sorted(directory.names()),
    })
}

fn enqueue(named: &str, directory: &impl Directory) -> Result<Route, Unrouted> {
    let (first, after_first) = segment(named);
    let (second, after_second) = segment(after_first);
    let explicit = TargetName {
        namespace: first.to_owned(),
        name: second.to_owned(),
    };
    if !second.is_empty() && directory.knows(&explicit) {
        return Ok(Route::Enqueue {
            target: explicit,
            rest: left(after_second),
        });
    }
    if let Some(target) = bare(first, directory)? {
        return Ok(Route::Enqueue {
            target,
            rest: left(after_first),
        });
    }
    if let Some(target) = dotted(first).filter(|target| directory.knows(target)) {
        return Ok(Route::Enqueue {
            target,
            rest: left(after_first),
        });
    }
    Err(Unrouted::Unknown {
        asked: first.to_owned(),
        known: sorted(directory.names()),
    })
}

/// The target that a host names; `Ok(None)` when it names none, as an address or the activator's own name does.
fn by_host(host: &str, directory: &impl Directory) -> Result<Option<TargetName>, Unrouted> {
    let host = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() || host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    if let Some(target) = bare(&host, directory)? {
        return Ok(Some(target));
    }
    // A Deployment's name may itself hold dots, so each dot may be the one before the namespace.
    for (dot, _) in host.match_indices('.') {
        let (name, domain) = (&host[..dot], &host[dot + 1..]);
        let namespace = domain.split('.').next().unwrap_or(domain);
        let suffix = domain[namespace.len()..].trim_start_matches('.');
        let service = suffix.is_empty() || suffix == "svc" || suffix.starts_with("svc.");
        let target = TargetName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        if service && directory.knows(&target) {
            return Ok(Some(target));
        }
    }
    Ok(None)
}

/// The one target of a name, whatever its namespace.
fn bare(name: &str, directory: &impl Directory) -> Result<Option<TargetName>, Unrouted> {
    let mut candidates: Vec<TargetName> = directory
        .names()
        .into_iter()
        .filter(|target| target.name == name)
        .collect();
    match candidates.len() {
        0 | 1 => Ok(candidates.pop()),
        _ => Err(Unrouted::Ambiguous {
            asked: name.to_owned(),
            candidates: sorted(candidates),
        }),
    }
}

/// `<name>.<namespace>`, split at the last dot because a namespace holds none.
fn dotted(segment: &str) -> Option<TargetName> {
    let (name, namespace) = segment.rsplit_once('.')?;
    Some(TargetName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// What follows `/async` or `/async-function`, when the path is under one of them.
fn after_async(path: &str) -> Option<&str> {
    ["/async-function", "/async"]
        .into_iter()
        .filter_map(|prefix| path.strip_prefix(prefix))
        .find(|rest| rest.starts_with('/'))
}

/// Splits `/first/rest?query` into `first` and `/rest?query`.
fn segment(path: &str) -> (&str, &str) {
    let Some(path) = path.strip_prefix('/') else {
        return ("", path);
    };
    let end = path.find(['/', '?']).unwrap_or(path.len());
    path.split_at(end)
}

/// Path and query with a path: `""` is `/`, `?a=b` is `/?a=b`.
fn rooted(path: &str) -> String {
    if path.is_empty() || path.starts_with('?') {
        format!("/{path}")
    } else {
        path.to_owned()
    }
}

fn left(rest: &str) -> Option<String> {
    (!rest.is_empty() && rest != "/").then(|| rooted(rest))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn sorted(mut names: Vec<TargetName>) -> Vec<TargetName> {
    names.sort();
    names
}

#[cfg(test)]
mod tests;
