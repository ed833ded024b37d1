use super::*;

fn read(args: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
    let matches = command()
        .try_get_matches_from([&["sidecar"], args].concat())
        .map_err(|error| error.to_string())?;
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    Config::read(&matches, &environment).map_err(|problems| problems.to_string())
}

#[test]
fn the_least_is_a_queue() {
    let config = read(&["--queue", "orders"], &[]).unwrap();
    assert_eq!(
        (config.worker.host.as_str(), config.worker.port),
        ("127.0.0.1", 8080)
    );
    assert_eq!(
        (config.path.path(), config.dead_letter.as_str()),
        ("/message", "orders.dead")
    );
    assert_eq!(config.grace, Duration::from_secs(65));
    assert_eq!(
        read(&[], &[]).unwrap_err(),
        "--queue is missing: write the name of the queue that messages come from"
    );
}

#[test]
fn a_target_stands_for_host_port_and_path() {
    let config = read(&["--queue", "q", "--target", "http://127.0.0.1:9000"], &[]).unwrap();
    assert_eq!((config.worker.port, config.path.path()), (9000, "/message"));
    let config = read(
        &["--queue", "q"],
        &[("KUBEDAEMON_TARGET", "http://[::1]:9000/in?x=1")],
    )
    .unwrap();
    assert_eq!(
        (config.worker.host.as_str(), config.path.to_string()),
        ("::1", "/in?x=1".to_owned())
    );
    assert_eq!(config.request_target().host, "[::1]:9000");
}

#[test]
fn wrong_process_flags_get_a_sentence_each() {
    for (flag, value, expected) in [
        (
            "--target",
            "https://a:1",
            "--target is \"https://a:1\", which is no HTTP address of a worker",
        ),
        ("--target", "127.0.0.1:80", "--target is \"127.0.0.1:80\""),
        ("--target", "http://u:p@h", "--target is \"http://u:p@h\""),
        ("--target", "http://h:0/", "--target is \"http://h:0/\""),
        (
            "--admin",
            "9464",
            "--admin is \"9464\", which is no address to listen on",
        ),
        ("--grace", "30", "--grace is \"30\", which is no duration"),
    ] {
        let said = read(&["--queue", "q", flag, value], &[]).unwrap_err();
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
    let wrong = ["--admin", "x", "--timeout", "-1s"];
    let said = read(&wrong, &[("KUBEDAEMON_GRACE", "y")]).unwrap_err();
    assert_eq!(said.lines().count(), 4, "{said}");
    let said = read(
        &wrong,
        &[("KUBEDAEMON_GRACE", "y"), ("KUBEDAEMON_QUEUE", "orders")],
    )
    .unwrap_err();
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn without_a_queue_it_must_be_said_that_it_only_reports() {
    assert!(
        !read(&["--queue", "q"], &[(REPORT_ONLY_ENV, "false")])
            .unwrap()
            .report_only
    );
    for config in [
        read(&["--report-only"], &[]),
        read(&[], &[(REPORT_ONLY_ENV, "true")]),
        read(
            &["--report-only"],
            &[(REPORT_ONLY_ENV, "false"), ("KUBEDAEMON_QUEUE", "")],
        ),
    ] {
        let config = config.unwrap();
        assert!(config.report_only && config.queue.is_empty(), "{config:?}");
    }
    for (args, environment, expected) in [
        (
            &["--report-only", "--queue", "orders"][..],
            &[][..],
            "--queue is \"orders\", which is of no use to a sidecar that only reports: write either --queue or \
             --report-only",
        ),
        (
            &[],
            &[(REPORT_ONLY_ENV, "true"), ("KUBEDAEMON_QUEUE", "orders")],
            "KUBEDAEMON_QUEUE is \"orders\", which is of no use to a sidecar that only reports: write either \
             KUBEDAEMON_QUEUE or KUBEDAEMON_REPORT_ONLY",
        ),
        (
            &["--queue", "orders"],
            &[(REPORT_ONLY_ENV, "1")],
            "KUBEDAEMON_REPORT_ONLY is \"1\", which is neither yes nor no: write true or false",
        ),
    ] {
        assert_eq!(read(args, environment).unwrap_err(), expected);
    }
}

#[test]
fn permissions_are_checked_when_key_and_pod_are_given() {
    let key = token::Signer::generate().unwrap().public_key();
    let (name, namespace) = ((POD_NAME_ENV, "worker-1"), (POD_NAMESPACE_ENV, "shop"));
    let key = (DRAIN_KEY_ENV, key.as_str());
    let queue = &["--queue", "orders"];
    let config = read(queue, &[name, namespace, key]).unwrap();
    assert_eq!(config.remote.unwrap().pod, "shop/worker-1");
    assert_eq!(config.name, "kubedaemon sidecar shop/worker-1");
    let without_key = read(queue, &[name, namespace, (DRAIN_KEY_ENV, "")]).unwrap();
    assert_eq!(without_key.remote, None);
    assert_eq!(read(queue, &[]).unwrap().name, "kubedaemon sidecar orders");
    for (environment, expected) in [
        (
            &[key][..],
            "KUBEDAEMON_POD_NAME is missing: write the pod's name, and its namespace to \
             KUBEDAEMON_POD_NAMESPACE, for KUBEDAEMON_DRAIN_KEY is given",
        ),
        (
            &[key, name],
            "KUBEDAEMON_POD_NAMESPACE is missing: write the pod's namespace, for its name is given",
        ),
        (
            &[namespace],
            "KUBEDAEMON_POD_NAME is missing: write the pod's name, for its namespace is given",
        ),
        (
            &[(DRAIN_KEY_ENV, "secret"), name, namespace],
            "KUBEDAEMON_DRAIN_KEY is \"secret\", which is no public key to check permissions with: write the 32 \
             bytes of an Ed25519 key in base64url without padding",
        ),
    ] {
        assert_eq!(read(queue, environment).unwrap_err(), expected);
    }
}

#[test]
fn prefetch_has_a_spare_only_with_concurrency() {
    for (concurrency, prefetch) in [("1", 1), ("2", 3), ("10", 19), ("64", 127), ("1000", 1064)] {
        assert_eq!(
            read(&["--queue", "q", "--concurrency", concurrency], &[])
                .unwrap()
                .prefetch(),
            prefetch
        );
    }
    let pipelined = read(&["--queue", "q", "--prefetch", "2"], &[]).unwrap();
    assert_eq!((pipelined.concurrency, pipelined.prefetch()), (1, 2));
}
