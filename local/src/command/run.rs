//! `kubedaemon run`: one worker command.

use super::{Refusal, own, process_args};
use crate::app::{Config, Front, WorkerConfig};
use crate::process::{CommandLine, inherited};
use activator::{Limits, TargetName};
use clap::{Arg, ArgMatches, Command};
use contract::settings::{PORT, SETTINGS};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// From SIGTERM to SIGKILL. Kubernetes grants 30 s by default; somebody who waits at a terminal would rather not.
const GRACE: Duration = Duration::from_secs(10);
/// The key of `--port`.
const LISTEN_PORT: &str = "listen-port";
/// The longest name, as for a Kubernetes object's label.
const MAX_NAME_BYTES: usize = 63;

pub(super) fn command() -> Command {
    let settings = SETTINGS.iter().filter(|setting| setting.name != PORT.name);
    Command::new("run")
        .about("Runs one worker command, at zero while there is nothing to do")
        .long_about(
            "Runs one worker command, at zero while there is nothing to do.\n\n\
             Each process of the worker gets a free port of its own in the environment variable PORT and listens on \
             it. Messages of --queue are posted to it; calls to --port are forwarded to it and wake it. At least \
             one of the two must be there.\n\n\
             Ctrl-C finishes what is in flight and ends; a second one ends at once. If kubedaemon itself is killed \
             with SIGKILL it cannot stop the worker's processes.",
        )
        .after_help("Example: kubedaemon run --queue orders --port 8080 -- python3 worker.py")
        .arg(
            // Not the contract's setting of the same name, which is where the worker listens.
            Arg::new(LISTEN_PORT)
                .long("port")
                .value_name("PORT")
                .help("Where you call the worker over HTTP, on 127.0.0.1; 0 chooses a free port"),
        )
        .arg(own("name", "NAME", "The worker's name [default: the queue's name, or worker]", None))
        .args(process_args())
        .args(cli::setting_args(settings))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("The worker's command and its arguments")
                .num_args(1..)
                .required(true)
                .trailing_var_arg(true),
        )
}

pub(super) fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Config, Refusal> {
    let mut wrong = Vec::new();
    let settings = read_settings(matches, environment)
        .map_err(|problems| wrong.push(problems))
        .ok();
    let port = matches
        .get_one::<String>(LISTEN_PORT)
        .map(|port| read_port(port))
        .transpose();
    let port = port.map_err(|sentence| wrong.push(sentence)).unwrap_or_default();
    let name = matches
        .get_one::<String>("name")
        .map(|name| read_name(name))
        .transpose();
    let name = name.map_err(|sentence| wrong.push(sentence)).unwrap_or_default();
    let Some(settings) = settings.filter(|_| wrong.is_empty()) else {
        return Err(wrong.join("\n"));
    };
    if settings.queue.is_none() && port.is_none() {
        return Err(
            "there is neither --queue nor --port: write where the worker's messages or calls come from, \
                    such as --queue orders or --port 8080"
                .to_owned(),
        );
    }
    let name = name.unwrap_or_else(|| default_name(settings.queue.as_deref()));
    let command = CommandLine {
        words: matches
            .get_many::<String>("command")
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        environment: inherited(std::env::vars_os()),
        variables: None,
        directory: None,
    };
    let target = TargetName {
        namespace: "default".to_owned(),
        name: name.clone(),
    };
    let front = port.map(|port| Front {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        single: Some(target.clone()),
        limits: Limits::default(),
    });
    let worker = WorkerConfig {
        label: name,
        name: target,
        command,
        settings,
        grace: GRACE,
    };
    Ok(Config {
        workers: vec![worker],
        front,
        admin: None,
        notes: Vec::new(),
    })
}

/// Every setting but the port, which each process gets for itself.
fn read_settings(
    matches: &ArgMatches,
    environment: &[(String, String)],
) -> Result<contract::settings::Settings, Refusal> {
    let environment: Vec<_> = environment
        .iter()
        .filter(|(name, _)| *name != PORT.env())
        .cloned()
        .collect();
    cli::read_settings(matches, &environment).map_err(|problems| problems.to_string())
}

fn read_port(port: &str) -> Result<u16, Refusal> {
    port.parse().map_err(|_| {
        format!(
            "--port is {port:?}, which is no port: write a whole number from 1 to 65535, or 0 for a free one"
        )
    })
}

fn read_name(name: &str) -> Result<String, Refusal> {
    let is_fine = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(is_name_character);
    is_fine.then(|| name.to_owned()).ok_or_else(|| {
        format!(
            "--name is {name:?}, which is no name: write 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.'"
        )
    })
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_.".contains(character)
}

fn default_name(queue: Option<&str>) -> String {
    let name: String = queue
        .unwrap_or("worker")
        .chars()
        .map(|character| {
            if is_name_character(character) {
                character
            } else {
                '-'
            }
        })
        .take(MAX_NAME_BYTES)
        .collect();
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let arguments = [&["kubedaemon", "run"], line].concat();
        let matches = super::super::command()
            .try_get_matches_from(arguments)
            .map_err(|error| error.to_string())?;
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        read(matches.subcommand_matches("run").unwrap(), &environment)
    }

    #[test]
    fn a_queue_and_a_command_are_enough() {
        let config = read_line(
            &["--queue", "shop/orders", "--", "python3", "w.py", "--port", "1"],
            &[],
        )
        .unwrap();
        let worker = &config.workers[0];
        assert_eq!(
            (worker.label.as_str(), worker.name.to_string().as_str()),
            ("shop-orders", "default/shop-orders")
        );
        assert_eq!(worker.command.words, ["python3", "w.py", "--port", "1"]);
        assert!(config.front.is_none());
    }

    #[test]
    fn a_port_and_a_command_are_enough_even_without_dashes() {
        let config = read_line(&["--port", "0", "--max-replicas", "3", "./worker", "-v"], &[]).unwrap();
        let worker = &config.workers[0];
        assert_eq!(
            (worker.label.as_str(), worker.settings.max_replicas),
            ("worker", 3)
        );
        assert_eq!(worker.command.words, ["./worker", "-v"]);
        let front = config.front.unwrap();
        assert_eq!(
            (front.listen.port(), front.single.as_ref()),
            (0, Some(&worker.name))
        );
    }

    #[test]
    fn settings_come_from_variables_too_except_the_port() {
        let environment = [
            ("KUBEDAEMON_QUEUE", "emails"),
            ("KUBEDAEMON_PORT", "9"),
            ("KUBEDAEMON_TIMEOUT", "5s"),
        ];
        let config = read_line(&["--timeout", "7s", "--", "true"], &environment).unwrap();
        assert_eq!(config.workers[0].settings.queue.as_deref(), Some("emails"));
        assert_eq!(config.workers[0].settings.timeout, Duration::from_secs(7));
        assert!(config.front.is_none());
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence_with_name_value_and_accepted_form() {
        for (line, sentence) in [
            (&["--", "true"][..], "there is neither --queue nor --port"),
            (
                &["--port", "http", "--", "true"],
                "--port is \"http\", which is no port: write a whole number from 1 to 65535, or 0 for a free one",
            ),
            (
                &["--port", "1", "--name", "a/b", "--", "true"],
                "--name is \"a/b\", which is no name",
            ),
            (
                &["--queue", "q", "--timeout", "soon", "--", "true"],
                "--timeout is \"soon\"",
            ),
        ] {
            let said = read_line(line, &[]).unwrap_err();
            assert!(said.starts_with(sentence) && said.lines().count() == 1, "{said}");
        }
        let said = read_line(
            &["--port", "x", "--cool-down", "y", "--name", "", "--", "true"],
            &[],
        )
        .unwrap_err();
        assert_eq!(said.lines().count(), 3, "{said}");
    }

    #[test]
    fn an_unknown_flag_suggests_the_nearest() {
        let said = read_line(&["--quue", "orders", "--", "true"], &[]).unwrap_err();
        assert!(said.contains("--quue") && said.contains("--queue"), "{said}");
    }

    #[test]
    fn a_command_is_needed() {
        let said = read_line(&["--queue", "orders"], &[]).unwrap_err();
        assert!(said.contains("COMMAND"), "{said}");
    }
}
