use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(testkit::unique("kubedaemon-up"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn read(&self, manifest: &str, flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let file = self.0.join("shop.yaml");
        std::fs::write(&file, manifest).unwrap();
        let arguments = [&["kubedaemon", "up"], flags, &[file.to_str().unwrap()]].concat();
        let matches = crate::command::command()
            .try_get_matches_from(arguments)
            .map_err(|error| error.to_string())?;
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        read(matches.subcommand_matches("up").unwrap(), &environment)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn deployment(name: &str, annotations: &str, container: &str) -> String {
    format!(
        "---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, annotations: {{{annotations}}}}}, \
         spec: {{template: {{spec: {{containers: [{{name: worker, image: i, {container}}}]}}}}}}}}\n"
    )
}

#[test]
fn a_container_becomes_a_command_line() {
    let folder = Folder::new();
    let container = "command: [python3, w.py], args: [-v], workingDir: src, env: [{name: A, value: b}]";
    let config = folder
        .read(
            &deployment("orders", "kubedaemon.io/queue: q", container),
            &[],
            &[],
        )
        .unwrap();
    let worker = &config.workers[0];
    assert_eq!(
        (worker.label.as_str(), worker.name.to_string().as_str()),
        ("orders", "default/orders")
    );
    assert_eq!(worker.command.words, ["python3", "w.py", "-v"]);
    assert_eq!(
        worker.command.variables.as_deref(),
        Some(&[("A".to_owned(), "b".to_owned())][..])
    );
    assert_eq!(worker.command.directory, Some(folder.0.join("src")));
    assert_eq!(worker.grace, DEFAULT_GRACE);
    assert_eq!(config.front.unwrap().listen.to_string(), DEFAULT_LISTEN);
    assert!(config.notes.is_empty(), "{:?}", config.notes);
}

#[test]
fn what_only_a_cluster_knows_comes_from_the_shell_or_is_told() {
    let folder = Folder::new();
    let container = "command: [w], env: [{name: PATH, valueFrom: {secretKeyRef: {name: s, key: k}}}, \
                     {name: NOBODY_SET_THIS, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], \
                     envFrom: [{configMapRef: {name: settings}}]";
    let config = folder
        .read(
            &deployment("orders", "kubedaemon.io/queue: q", container),
            &[],
            &[],
        )
        .unwrap();
    let variables = config.workers[0].command.variables.clone().unwrap();
    assert_eq!(
        variables
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["PATH"]
    );
    let notes = config.notes.join("\n");
    assert!(
        notes.contains("variable NOBODY_SET_THIS from fieldRef metadata.name"),
        "{notes}"
    );
    assert!(
        notes.contains("its variables from configMapRef settings"),
        "{notes}"
    );
}

#[test]
fn the_broker_of_the_command_line_wins_over_the_manifests() {
    let folder = Folder::new();
    let manifest = deployment(
        "orders",
        "kubedaemon.io/queue: q, kubedaemon.io/broker: 'amqp://cluster'",
        "command: [w]",
    );
    let broker = |flags: &[&str], environment: &[(&str, &str)]| {
        folder.read(&manifest, flags, environment).unwrap().workers[0]
            .settings
            .broker
            .to_string()
    };
    assert!(broker(&[], &[]).contains("cluster"));
    assert!(
        broker(
            &["--broker", "amqp://laptop"],
            &[("KUBEDAEMON_BROKER", "amqp://other")]
        )
        .contains("laptop")
    );
    assert!(broker(&[], &[("KUBEDAEMON_BROKER", "amqp://other")]).contains("other"));
    // Settings of one worker are no business of the shell.
    let config = folder
        .read(&manifest, &[], &[("KUBEDAEMON_QUEUE", "else")])
        .unwrap();
    assert_eq!(config.workers[0].settings.queue.as_deref(), Some("q"));
}

#[test]
fn workloads_of_the_same_name_are_told_apart() {
    let folder = Folder::new();
    let orders = deployment("orders", "kubedaemon.io/queue: q", "command: [w]");
    let manifest = format!(
        "{orders}{}",
        orders.replace("name: orders", "name: orders, namespace: shop")
    );
    let config = folder.read(&manifest, &[], &[]).unwrap();
    let labels: Vec<_> = config
        .workers
        .iter()
        .map(|worker| worker.label.as_str())
        .collect();
    assert_eq!(labels, ["default/orders", "shop/orders"]);
}

#[test]
fn everything_wrong_is_said_at_once() {
    let folder = Folder::new();
    let fine = deployment("fine", "kubedaemon.io/queue: q", "command: [w]");
    for (manifest, sentence) in [
        (
            deployment("orders", "kubedaemon.io/queue: q", "args: [a]"),
            "shop.yaml: Deployment default/orders: container worker has no command, and images are not run on \
             this machine",
        ),
        (
            deployment("orders", "'kubedaemon.io/timeout': soon", "command: [w]"),
            "shop.yaml: Deployment default/orders: kubedaemon.io/timeout is \"soon\"",
        ),
        (
            format!("{fine}{fine}"),
            "shop.yaml: Deployment default/fine is described twice",
        ),
        (
            deployment("orders", "", "command: [w]"),
            "no Deployment or StatefulSet in these files has",
        ),
        ("a: [".to_owned(), "shop.yaml:"),
    ] {
        let said = folder.read(&manifest, &[], &[]).unwrap_err();
        assert!(said.contains(sentence) && said.lines().count() == 1, "{said}");
    }
    let wrong = deployment("a", "kubedaemon.io/queue: q", "args: [a]")
        + &deployment("b", "kubedaemon.io/port: x", "command: [w]");
    let said = folder
        .read(&wrong, &["--listen", "8000", "--broker", "http://a"], &[])
        .unwrap_err();
    assert_eq!(said.lines().count(), 4, "{said}");
}
