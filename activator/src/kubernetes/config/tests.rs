use super::*;

fn read(args: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
    let matches = command()
        .try_get_matches_from([&["activator"], args].concat())
        .map_err(|error| error.to_string())?;
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::read(&matches, &environment).map_err(|problems| problems.to_string())
}

const POD: [(&str, &str); 3] = [
    ("KUBEDAEMON_POD_NAME", "activator-1"),
    ("KUBEDAEMON_POD_IP", "10.0.0.7"),
    ("KUBEDAEMON_NAMESPACE", "kubedaemon"),
];

#[test]
fn a_pod_needs_nothing_but_its_own_variables() {
    let config = read(&[], &POD).unwrap();
    let identity = config.identity.unwrap();
    assert_eq!(identity.pod, "activator-1");
    assert_eq!(identity.ip.to_string(), "10.0.0.7");
    assert_eq!(identity.namespace, "kubedaemon");
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9464");
    assert_eq!(config.takeover_ports, 20_000..=29_999);
    assert_eq!(config.wake_timeout, Duration::from_mins(1));
}

#[test]
fn without_takeover_nobody_has_to_say_who_it_is() {
    let config = read(&["--takeover", "off", "--admin", "off"], &[]).unwrap();
    assert_eq!((config.identity, config.admin), (None, None));
    let said = read(&[], &[]).unwrap_err();
    for name in ["KUBEDAEMON_POD_NAME", "KUBEDAEMON_POD_IP", "KUBEDAEMON_NAMESPACE"] {
        assert!(said.contains(name), "{said}");
    }
    assert!(said.contains("--takeover off"), "{said}");
}

#[test]
fn flags_win_over_variables() {
    let mut environment = POD.to_vec();
    environment.push(("KUBEDAEMON_BROKER", "amqp://from-variable"));
    let flags = ["--broker", "amqp://from-flag", "--vhost", "v", "--namespace", "n"];
    let config = read(&flags, &environment).unwrap();
    assert_eq!(
        (config.broker.host.as_str(), config.broker.vhost.as_str()),
        ("from-flag", "v")
    );
    assert_eq!(config.identity.unwrap().namespace, "n");
    assert_eq!(read(&[], &environment).unwrap().broker.host, "from-variable");
}

#[test]
fn everything_wrong_is_said() {
    let flags = [
        "--listen",
        "here",
        "--admin",
        "there",
        "--wake-timeout",
        "soon",
        "--takeover-ports",
        "9-1",
    ];
    let mut environment = POD.to_vec();
    environment[1].1 = "nowhere";
    let said = read(&flags, &environment).unwrap_err();
    assert_eq!(said.lines().count(), 5, "{said}");
}
