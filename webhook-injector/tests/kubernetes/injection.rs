//! Workloads and pods as people make them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "what people see is worth reading")]

use crate::support::{By, Installed, SIDECAR, created, get, ours, pod, pod_of, queue, sidecar, workload};
use serde_json::{Value, json};

const TEMPLATE: &str = "/spec/template/metadata/annotations";

#[tokio::test]
async fn one_annotation_is_enough_and_taking_it_away_takes_everything_away() {
    if cluster::skip("one_annotation_is_enough_and_taking_it_away_takes_everything_away") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("restricted").await;
    let restrict = [
        "label",
        "namespace",
        target.name(),
        "pod-security.kubernetes.io/enforce=restricted",
    ];
    installed.cluster.kubectl(&restrict).await.unwrap();
    let replica = installed.serve(&[&target]).await;

    for kind in ["Deployment", "StatefulSet"] {
        let name = kind.to_lowercase();
        let what = format!("{name}/{name}");
        created(
            installed.cluster,
            &target,
            &workload(kind, &name, &json!({})),
            &[],
        )
        .await
        .unwrap();
        let before = get(&target, &what).await;
        pod_of(&target, &name, |pod| sidecar(&pod["spec"]).is_none()).await;

        target
            .kubectl(&["annotate", &what, "kubedaemon.io/queue=orders"])
            .await
            .unwrap();
        let annotated = get(&target, &what).await;
        assert_eq!(
            annotated.pointer(TEMPLATE).unwrap()["kubedaemon.io/queue"],
            "orders"
        );
        // A StatefulSet never replaces a pod that was never ready.
        replace_pods(&target, &name).await;
        let injected = pod_of(&target, &name, |pod| sidecar(&pod["spec"]).is_some()).await;
        has_its_sidecar(&installed, &injected).await;

        notes_of_the_autoscaler_and_counts_change_no_template(&target, &what, &replica).await;

        target
            .kubectl(&[
                "annotate",
                &what,
                "kubedaemon.io/queue-",
                "kubedaemon.io/scaling-",
                "kubedaemon.io/original-replicas-",
            ])
            .await
            .unwrap();
        let after = get(&target, &what).await;
        assert_eq!(after["spec"]["template"], before["spec"]["template"], "{after}");
        assert_eq!(ours(&after, "/metadata/annotations"), [] as [&str; 0]);
        replace_pods(&target, &name).await;
        let plain = pod_of(&target, &name, |pod| sidecar(&pod["spec"]).is_none()).await;
        assert_eq!(plain["spec"]["terminationGracePeriodSeconds"], 30);
    }
}

async fn replace_pods(target: &cluster::Namespace<'_>, name: &str) {
    let selector = format!("--selector=app={name}");
    let delete = ["delete", "pods", &selector, "--grace-period=1", "--wait=false"];
    target.kubectl(&delete).await.unwrap();
}

/// Everything that is promised of an injected pod.
async fn has_its_sidecar(installed: &Installed, pod: &Value) {
    let container = sidecar(&pod["spec"]).unwrap();
    assert_eq!(
        (&container["image"], &container["restartPolicy"]),
        (&json!(SIDECAR), &json!("Always"))
    );
    assert!(container["startupProbe"].is_null(), "{container}");
    let readiness = &container["readinessProbe"];
    assert_eq!(
        (&readiness["httpGet"]["path"], &readiness["periodSeconds"]),
        (&json!("/readyz"), &json!(1))
    );
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(
        container["lifecycle"]["preStop"]["exec"]["command"],
        json!(["/sidecar", "drain"])
    );
    let worker = &pod["spec"]["containers"][0];
    assert_eq!(worker["lifecycle"]["preStop"]["httpGet"]["path"], "/drained");
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let env = container["env"].as_array().unwrap();
    let variable = |name: &str| env.iter().find(|variable| variable["name"] == name).unwrap();
    let of_pod = |name| &variable(name)["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(variable("KUBEDAEMON_QUEUE")["value"], "orders");
    assert_eq!(variable("KUBEDAEMON_PORT")["value"], "3000");
    assert_eq!(
        variable("KUBEDAEMON_BROKER")["valueFrom"]["secretKeyRef"]["name"],
        "kubedaemon-broker"
    );
    assert_eq!(of_pod("KUBEDAEMON_POD_NAME"), "metadata.name");
    assert_eq!(of_pod("KUBEDAEMON_POD_NAMESPACE"), "metadata.namespace");
    let key = variable("KUBEDAEMON_DRAIN_KEY")["value"].as_str().unwrap();
    token::Verifier::read(key).unwrap();
    let private = installed.secret("kubedaemon-drain-key", "private").await.unwrap();
    let private = String::from_utf8(base64(&private)).unwrap();
    assert_eq!(token::Signer::read(&private).unwrap().public_key(), key);
    // The timeout is a minute unless somebody says otherwise.
    assert_eq!(grace, 70);
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

async fn notes_of_the_autoscaler_and_counts_change_no_template(
    target: &cluster::Namespace<'_>,
    what: &str,
    replica: &crate::support::Replica,
) {
    let updates = "injector_admission_requests_total{operation=\"update\"";
    let reviews = replica.metric(updates).await;
    let template = get(target, what).await["spec"]["template"].take();
    for note in [
        "kubedaemon.io/scaling={}",
        "kubedaemon.io/scaling={\"a\": 1}",
        "kubedaemon.io/original-replicas=1",
        "other=1",
    ] {
        target
            .kubectl(&["annotate", "--overwrite", what, note])
            .await
            .unwrap();
    }
    target.kubectl(&["scale", what, "--replicas=2"]).await.unwrap();
    target.kubectl(&["scale", what, "--replicas=1"]).await.unwrap();
    assert_eq!(get(target, what).await["spec"]["template"], template);
    // None of this was even asked about.
    assert_eq!(replica.metric(updates).await, reviews);
}

#[tokio::test]
async fn what_is_wrong_is_said_by_kubectl() {
    if cluster::skip("what_is_wrong_is_said_by_kubectl") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("wrong").await;
    let _replica = installed.serve(&[&target]).await;
    created(
        installed.cluster,
        &target,
        &workload("Deployment", "orders", &json!({})),
        &[],
    )
    .await
    .unwrap();

    let annotate = [
        "annotate",
        "deployment/orders",
        "kubedaemon.io/queue=orders",
        "kubedaemon.io/concurrency=many",
    ];
    let refused = target.kubectl(&annotate).await.unwrap_err();
    println!("{refused}");
    for part in [
        "kubedaemon.io/concurrency is \"many\"",
        "write a whole number from 1 to 1000",
    ] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    assert_eq!(
        ours(&get(&target, "deployment/orders").await, "/metadata/annotations"),
        [] as [&str; 0]
    );

    let warned = [
        "annotate",
        "--warnings-as-errors",
        "deployment/orders",
        "kubedaemon.io/queue=orders",
        "kubedaemon.io/timout=5s",
    ];
    let warned = target.kubectl(&warned).await.unwrap_err();
    println!("{warned}");
    assert!(
        warned.contains("Warning: \"kubedaemon.io/timout\" is not known and has no effect: did you mean kubedaemon.io/timeout?"),
        "{warned}"
    );
    // It was only a warning.
    assert_eq!(
        get(&target, "deployment/orders").await["metadata"]["annotations"]["kubedaemon.io/queue"],
        "orders"
    );

    let only_called = pod("called", &json!({"kubedaemon.io/inject": "true"}));
    let only_called = created(installed.cluster, &target, &only_called, &["--dry-run=server"])
        .await
        .unwrap();
    let variables = sidecar(&only_called["spec"]).unwrap()["env"].to_string();
    assert!(
        !variables.contains("QUEUE") && !variables.contains("BROKER"),
        "{variables}"
    );
    for annotations in [
        json!({"kubedaemon.io/inject": "false", "kubedaemon.io/queue": "q"}),
        json!({}),
    ] {
        let left = pod("left", &annotations);
        let left = created(installed.cluster, &target, &left, &["--dry-run=server"])
            .await
            .unwrap();
        assert_eq!(sidecar(&left["spec"]), None);
    }
}

/// A pod with what few people write: nothing of it may change on its way through us.
fn unusual() -> Value {
    let mut unusual = pod("unusual", &queue());
    unusual["metadata"]["annotations"]["example.org/text"] =
        json!("é \"quoted\" \\ \u{2028} \t $(A) $$ 1e400");
    unusual["metadata"]["labels"] = json!({"a.b/c_d": ""});
    unusual["metadata"]["finalizers"] = json!([]);
    let spec = &mut unusual["spec"];
    spec["dnsConfig"] = json!({"options": [{"name": "ndots", "value": "5"}, {"name": "edns0"}]});
    spec["hostAliases"] = json!([{"ip": "10.1.2.3", "hostnames": ["a", "b"]}]);
    spec["setHostnameAsFQDN"] = json!(false);
    spec["readinessGates"] = json!([{"conditionType": "example.org/gate"}]);
    spec["overhead"] = Value::Null;
    spec["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["y", ""]}]},
        "matchLabelKeys": ["pod-template-hash"],
    }]);
    spec["volumes"] = json!([{"name": "all", "projected": {"sources": [
        {"serviceAccountToken": {"path": "t", "expirationSeconds": 3607}},
        {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]}}]);
    let worker = &mut spec["containers"][0];
    worker["resources"] = json!({"requests": {"cpu": "1500u", "memory": "9007199254740993"}, "limits": {"memory": "9007199254740993000m"}});
    worker["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    worker["env"] = json!([{"name": "X.Y-z", "value": "$(NOT) $$(A)\n"}, {"name": "EMPTY", "value": ""}]);
    worker["volumeMounts"] =
        json!([{"name": "all", "mountPath": "/all", "recursiveReadOnly": "Disabled", "readOnly": true}]);
    worker["livenessProbe"] =
        json!({"grpc": {"port": 5000, "service": ""}, "terminationGracePeriodSeconds": 3});
    worker["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    unusual
}

#[tokio::test]
async fn what_is_not_ours_stays_as_it_is() {
    if cluster::skip("what_is_not_ours_stays_as_it_is") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("unusual").await;
    let elsewhere = installed.cluster.namespace("elsewhere").await;
    let _replica = installed.serve(&[&target]).await;
    let mut stored = Vec::new();
    for namespace in [&target, &elsewhere] {
        let apply = [
            "--namespace",
            namespace.name(),
            "apply",
            "--server-side",
            "--filename=-",
            "--output=json",
        ];
        let out = installed
            .cluster
            .kubectl_with(&apply, &unusual().to_string())
            .await
            .unwrap();
        stored.push(serde_json::from_str::<Value>(&out).unwrap());
    }
    let (mut injected, plain) = (stored.remove(0), stored.remove(0));
    // What we add goes, then the two are the same to the last character.
    let spec = injected["spec"].as_object_mut().unwrap();
    assert_eq!(
        spec.remove("initContainers").unwrap().as_array().unwrap().len(),
        1
    );
    assert_eq!(
        spec.insert("terminationGracePeriodSeconds".to_owned(), json!(30)),
        Some(json!(70))
    );
    let lifecycle = spec["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("lifecycle")
        .unwrap();
    assert_eq!(lifecycle["preStop"]["httpGet"]["path"], "/drained");
    let annotations = injected["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove("kubedaemon.io/status").unwrap();
    for field in ["/metadata/annotations", "/metadata/labels"] {
        assert_eq!(injected.pointer(field), plain.pointer(field), "{field}");
    }
    // The account's own volume has a name with a random end.
    let without_token = |spec: &Value| {
        let text = spec.to_string();
        let (_, rest) = text.split_once("kube-api-access-").unwrap();
        text.replace(&format!("kube-api-access-{}", &rest[..5]), "kube-api-access-")
    };
    assert_eq!(without_token(&injected["spec"]), without_token(&plain["spec"]));
}

#[tokio::test]
async fn two_webhooks_inject_once() {
    if cluster::skip("two_webhooks_inject_once") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("twice").await;
    let replica = installed.serve(&[&target]).await;
    let again = format!("{}-again", installed.name());
    installed.configure_as(&again, &[&target], replica.address).await;
    let bundle = installed.bundles().await.remove(0);
    let put =
        |i| json!({"op": "add", "path": format!("/webhooks/{i}/clientConfig/caBundle"), "value": bundle});
    let patch = json!([put(0), put(1)]).to_string();
    let patch = [
        "patch",
        "mutatingwebhookconfiguration",
        &again,
        "--type=json",
        "--patch",
        &patch,
    ];
    installed.cluster.kubectl(&patch).await.unwrap();

    let twice = "injector_decisions_total{decision=\"skip\",reason=\"already_injected\"}";
    let pod = testkit::wait::until("a pod is reviewed twice", testkit::wait::PATIENCE, || async {
        let pod = pod("twice", &queue());
        let pod = created(installed.cluster, &target, &pod, &["--dry-run=server"])
            .await
            .ok()?;
        (replica.metric(twice).await > 0).then_some(pod)
    })
    .await;
    let containers = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(containers.len(), 1, "{pod}");

    created(
        installed.cluster,
        &target,
        &workload("Deployment", "orders", &queue()),
        &[],
    )
    .await
    .unwrap();
    let deployment = get(&target, "deployment/orders").await;
    assert_eq!(
        ours(&deployment, TEMPLATE),
        ["kubedaemon.io/copied", "kubedaemon.io/queue"]
    );
    let delete = ["delete", "mutatingwebhookconfiguration", &again];
    installed.cluster.kubectl(&delete).await.unwrap();
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing_and_applying_less_takes_it_back() {
    if cluster::skip("applying_the_same_again_changes_nothing_and_applying_less_takes_it_back") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("apply").await;
    let _replica = installed.serve(&[&target]).await;
    for (name, flags) in [
        ("client", &["apply"][..]),
        ("server", &["apply", "--server-side"][..]),
    ] {
        let apply = async |object: &Value| {
            let args = [&["--namespace", target.name()], flags, &["--filename=-"]].concat();
            installed
                .cluster
                .kubectl_with(&args, &object.to_string())
                .await
                .unwrap();
            get(&target, &format!("deployment/{name}")).await
        };
        let annotated = workload("Deployment", name, &queue());
        let first = apply(&annotated).await;
        assert_eq!(ours(&first, TEMPLATE).len(), 2);
        let second = apply(&annotated).await;
        assert_eq!(
            second["metadata"]["generation"], first["metadata"]["generation"],
            "{name}"
        );
        assert_eq!(second["spec"], first["spec"], "{name}");
        let changed = apply(&workload(
            "Deployment",
            name,
            &json!({"kubedaemon.io/queue": "others"}),
        ))
        .await;
        assert_eq!(
            changed.pointer(TEMPLATE).unwrap()["kubedaemon.io/queue"],
            "others"
        );
        let after = apply(&workload("Deployment", name, &json!({}))).await;
        assert_eq!(ours(&after, TEMPLATE), [] as [&str; 0], "{name}");
    }
    // Written anew by somebody who does not know of copies, as tools do that replace.
    let whole = workload("Deployment", "whole", &queue());
    created(installed.cluster, &target, &whole, &[]).await.unwrap();
    let before = get(&target, "deployment/whole").await;
    let replace = ["--namespace", target.name(), "replace", "--filename=-"];
    installed
        .cluster
        .kubectl_with(&replace, &whole.to_string())
        .await
        .unwrap();
    let after = get(&target, "deployment/whole").await;
    assert_eq!(ours(&after, TEMPLATE).len(), 2);
    assert_eq!(after["spec"]["template"], before["spec"]["template"]);
}

#[tokio::test]
async fn the_largest_workloads_are_reviewed() {
    if cluster::skip("the_largest_workloads_are_reviewed") {
        return;
    }
    let installed = Installed::new(By::Service).await;
    let target = installed.cluster.namespace("large").await;
    let _replica = installed.serve(&[&target]).await;
    let mut large = workload("Deployment", "large", &queue());
    // Annotations of an object may have 256 KiB together, an object 1.5 MiB.
    for i in 0..500 {
        large["metadata"]["annotations"][format!("example.org/{i}")] = json!("x".repeat(400));
    }
    let env = (0..5000).map(|i| json!({"name": format!("V{i}"), "value": "y".repeat(150)}));
    large["spec"]["template"]["spec"]["containers"][0]["env"] = env.collect();
    created(installed.cluster, &target, &large, &[]).await.unwrap();
    target
        .kubectl(&[
            "annotate",
            "deployment/large",
            "--overwrite",
            "kubedaemon.io/queue=other",
        ])
        .await
        .unwrap();
    let stored = get(&target, "deployment/large").await;
    assert_eq!(stored.pointer(TEMPLATE).unwrap()["kubedaemon.io/queue"], "other");
    pod_of(&target, "large", |pod| sidecar(&pod["spec"]).is_some()).await;
}
