//! `webhook-injector serve`: the admission webhook. `webhook-injector check FILE…`: what annotations would do.

use clap::{Arg, ArgMatches, Command};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use webhook_injector::domain::model::{Decision, decide};
use webhook_injector::server::{self, Bound, Config};
use webhook_injector::{manifest, report};

/// Something is denied or cannot be read; the same as for a command line that cannot be understood.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("serve", matches)) => serve(matches),
        Some(("check", matches)) => check(matches),
        _ => unreachable!("invariant: clap requires one of the subcommands"),
    }
}

fn command() -> Command {
    let check = Command::new("check")
        .about("Says what the annotations in manifests would do, without a cluster")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .num_args(1..)
                .required(true)
                .help("YAML or JSON manifests, with any number of documents each; - reads standard input"),
        )
        .after_help(CHECK_HELP);
    Command::new("webhook-injector")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts the sidecar of Kubedaemon into annotated pods")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(server::command())
        .subcommand(check)
}

fn serve(matches: &ArgMatches) -> ExitCode {
    let (format, filter) = cli::logging(matches);
    if let Err(sentence) = ops::telemetry::init(format, filter) {
        return cli::refuse(sentence);
    }
    let config = match Config::read(matches, &cli::environment()) {
        Ok(config) => config,
        Err(problems) => return cli::refuse(problems),
    };
    cli::block_on(run(config, matches))
}

async fn run(config: Config, matches: &ArgMatches) -> ExitCode {
    ops::metrics::install();
    let shutdown = ops::shutdown::Shutdown::new();
    if let Err(error) = ops::shutdown::on_signals(shutdown.clone()) {
        return cli::refuse(error);
    }
    let bound = match server::bind(config).await {
        Ok(bound) => bound,
        Err(sentence) => return cli::refuse(sentence),
    };
    if let Err(sentence) = publish_authority(&bound, matches) {
        return cli::refuse(sentence);
    }
    if let Ok(address) = bound.addr() {
        tracing::info!(%address, "reviews are answered");
    }
    if let Ok(Some(address)) = bound.admin_addr() {
        tracing::info!(%address, "admin port open");
    }
    match bound.run(shutdown).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            tracing::warn!("forced to end with reviews in work");
            ExitCode::FAILURE
        }
        Err(sentence) => cli::refuse(sentence),
    }
}

/// Writes what callers have to trust where the command line says; beside its place first, so that nobody reads half.
fn publish_authority(bound: &Bound, matches: &ArgMatches) -> Result<(), String> {
    let (Some(pem), Some(file)) = (bound.authority_pem(), matches.get_one::<String>("ca-out")) else {
        return Ok(());
    };
    if file == "-" {
        say(pem);
        return Ok(());
    }
    let beside = format!("{file}.new");
    std::fs::write(&beside, pem)
        .and_then(|()| std::fs::rename(&beside, file))
        .map_err(|error| format!("{file} cannot be written: {error}"))
}

const CHECK_HELP: &str = "\
For each Deployment and StatefulSet one of:
  inject   with every setting that would be in force, and warnings
  skip     with the reason: annotation_absent or disabled
  deny     with one sentence for each problem
Objects of other kinds are passed over.

Exit status: 0 when nothing is denied, 2 when something is denied or cannot be read.

Example:
  kubectl get deployments -o yaml | webhook-injector check -";

fn check(matches: &ArgMatches) -> ExitCode {
    let mut refused = false;
    for file in matches.get_many::<String>("file").into_iter().flatten() {
        let (file, text) = match load(file) {
            Ok(loaded) => loaded,
            Err(sentence) => {
                refused = true;
                complain(&sentence);
                continue;
            }
        };
        let found = manifest::read(&file, &text);
        if found.is_empty() {
            complain(&format!("{file}: no Deployment or StatefulSet in it"));
        }
        for found in found {
            match found {
                Ok(workload) => {
                    let decision = decide(&workload);
                    refused |= matches!(decision, Decision::Deny(_));
                    say(&report::describe(&workload, &decision));
                }
                Err(error) => {
                    refused = true;
                    complain(&error.to_string());
                }
            }
        }
    }
    if refused {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::SUCCESS
    }
}

/// The file's name for sentences, and its text.
fn load(file: &str) -> Result<(String, String), String> {
    let (name, text) = if file == "-" {
        let mut text = String::new();
        ("<stdin>", io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (file, std::fs::read_to_string(file))
    };
    match text {
        Ok(text) => Ok((name.to_owned(), text)),
        Err(error) => Err(format!("{name}: cannot be read: {error}")),
    }
}

/// Writes to standard output. A reader that went away (`| head`) is no reason to fail: the exit status still tells.
fn say(text: &str) {
    io::stdout().write_all(text.as_bytes()).ok();
}

fn complain(sentence: &str) {
    writeln!(io::stderr(), "{sentence}").ok();
}
