//! Each component may do what it needs and nothing else.

use product::{Product, SYSTEM};

/// Who, the verb and the resource, and whether in our own namespace or in one of a user's.
struct Row(&'static str, &'static str, &'static str, Where);

enum Where {
    Own,
    Users,
}

use Where::{Own, Users};

const AUTOSCALER: &str = "kubedaemon-autoscaler";
const ACTIVATOR: &str = "kubedaemon-activator";
const INJECTOR: &str = "kubedaemon-injector";

const MAY: &[Row] = &[
    Row(AUTOSCALER, "list", "deployments.apps", Users),
    Row(AUTOSCALER, "watch", "statefulsets.apps", Users),
    Row(AUTOSCALER, "patch", "deployments.apps/scale", Users),
    Row(AUTOSCALER, "patch", "statefulsets.apps/scale", Users),
    Row(AUTOSCALER, "list", "pods", Users),
    Row(AUTOSCALER, "create", "events.events.k8s.io", Users),
    Row(AUTOSCALER, "get", "secrets/kubedaemon-drain-key", Own),
    Row(ACTIVATOR, "patch", "deployments.apps/scale", Users),
    Row(ACTIVATOR, "watch", "endpointslices.discovery.k8s.io", Users),
    Row(ACTIVATOR, "create", "endpointslices.discovery.k8s.io", Users),
    Row(ACTIVATOR, "watch", "services", Users),
    Row(INJECTOR, "get", "secrets/kubedaemon-drain-key", Own),
    Row(
        INJECTOR,
        "patch",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io/kubedaemon-injector",
        Own,
    ),
];

const MAY_NOT: &[Row] = &[
    Row(AUTOSCALER, "get", "secrets", Users),
    Row(AUTOSCALER, "list", "secrets", Own),
    Row(AUTOSCALER, "delete", "deployments.apps", Users),
    Row(AUTOSCALER, "create", "pods", Users),
    Row(AUTOSCALER, "delete", "pods", Users),
    Row(AUTOSCALER, "update", "services", Users),
    Row(ACTIVATOR, "get", "secrets", Users),
    Row(ACTIVATOR, "get", "secrets/kubedaemon-drain-key", Own),
    Row(ACTIVATOR, "patch", "deployments.apps", Users),
    Row(ACTIVATOR, "patch", "services", Users),
    Row(ACTIVATOR, "delete", "pods", Users),
    Row(ACTIVATOR, "create", "pods", Users),
    Row(INJECTOR, "get", "secrets", Users),
    Row(INJECTOR, "list", "pods", Users),
    Row(INJECTOR, "patch", "deployments.apps", Users),
    Row(INJECTOR, "patch", "deployments.apps/scale", Users),
    Row(
        INJECTOR,
        "patch",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io/other",
        Own,
    ),
    Row(
        INJECTOR,
        "create",
        "clusterrolebindings.rbac.authorization.k8s.io",
        Own,
    ),
];

#[tokio::test]
async fn each_component_may_do_what_it_needs_and_nothing_else() {
    if cluster::skip("each_component_may_do_what_it_needs_and_nothing_else") {
        return;
    }
    let product = Product::shared().await;
    let shop = product.shop("rights").await;
    let mut wrong = Vec::new();
    for (rows, expected) in [(MAY, "yes"), (MAY_NOT, "no")] {
        for Row(who, verb, resource, place) in rows {
            let namespace = match place {
                Own => SYSTEM,
                Users => shop.name(),
            };
            let account = format!("--as=system:serviceaccount:{SYSTEM}:{who}");
            let mut question = vec![
                "auth",
                "can-i",
                verb,
                resource,
                "--namespace",
                namespace,
                &account,
            ];
            // `resource/subresource` is asked for by a flag, `resource/name` as it is.
            let scale = resource.strip_suffix("/scale");
            if let Some(resource) = scale {
                question[3] = resource;
                question.push("--subresource=scale");
            }
            let answer = match product.kubectl(&question).await {
                Ok(answer) => answer,
                Err(said) => said,
            };
            let allowed = answer.lines().any(|line| line.trim() == "yes");
            let verdict = if allowed { "yes" } else { "no" };
            testkit::say(&format!("{who} {verb} {resource} in {namespace}: {verdict}"));
            if verdict != expected {
                wrong.push(format!("{who} {verb} {resource} in {namespace}: {verdict}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
