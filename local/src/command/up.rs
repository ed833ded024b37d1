//! `kubedaemon up`: the workers that manifests describe, as processes.

#[cfg(test)]
mod tests;

use super::{Refusal, own, process_args, read_address};
use crate::app::{Config, Front, WorkerConfig};
use crate::process::{CommandLine, inherited};
use activator::{Limits, TargetName};
use clap::{Arg, ArgMatches, Command};
use contract::settings::{BROKER, VHOST};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use webhook_injector::domain::model::{Decision, Plan, decide};
use webhook_injector::manifest::{self, Container, EnvValue, Workload};

/// Where calls are taken unless something else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:8000";
/// What Kubernetes grants between SIGTERM and SIGKILL when a manifest does not say.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

pub(super) fn command() -> Command {
    Command::new("up")
        .about("Runs the workers of annotated Deployment manifests as processes")
        .long_about(
            "Runs the workers of annotated Deployment and StatefulSet manifests as processes, at zero while there is \
             nothing to do.\n\n\
             Of each workload the first container's command, args, env and workingDir (relative to the manifest's \
             folder) are used; images are not run. Each process gets a free port of its own in the environment \
             variable PORT, which $(PORT) in command and args also stands for. A variable whose value only a \
             cluster knows (valueFrom) is taken from your shell.\n\n\
             Calls go to /NAMESPACE/NAME/… or by host name, as through the activator on a cluster.\n\n\
             Ctrl-C finishes what is in flight and ends; a second one ends at once. If kubedaemon itself is killed \
             with SIGKILL it cannot stop the workers' processes.",
        )
        .after_help("Example: kubedaemon up orders.yaml emails.yaml")
        .arg(own("listen", "ADDRESS", "Where you call the workers over HTTP [default: 127.0.0.1:8000]", None))
        .args(process_args())
        .args(cli::setting_args([&BROKER, &VHOST]).into_iter().map(|arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.help(format!("{help} [wins over the manifests]"))
        }))
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .help("Manifests in YAML or JSON, each with one object or several")
                .num_args(1..)
                .required(true)
                .value_parser(clap::value_parser!(PathBuf)),
        )
}

pub(super) fn read(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Config, Refusal> {
    let mut wrong = Vec::new();
    let listen = matches
        .get_one::<String>("listen")
        .map_or(DEFAULT_LISTEN, String::as_str);
    let listen = read_address("--listen", listen)
        .map_err(|sentence| wrong.push(sentence))
        .ok();
    let overrides = read_overrides(matches, environment)
        .map_err(|sentence| wrong.push(sentence))
        .ok();
    let mut reader = Reader {
        overrides: overrides.unwrap_or_default(),
        own: inherited(std::env::vars_os()),
        wrong,
        notes: Vec::new(),
        workers: Vec::new(),
    };
    for file in matches.get_many::<PathBuf>("file").into_iter().flatten() {
        reader.read_file(file);
    }
    reader.name_apart();
    let Reader {
        mut wrong,
        notes,
        workers,
        ..
    } = reader;
    if workers.is_empty() && wrong.is_empty() {
        wrong.push(
            "no Deployment or StatefulSet in these files has a kubedaemon.io annotation: write at least \
             kubedaemon.io/queue"
                .to_owned(),
        );
    }
    match listen {
        Some(listen) if wrong.is_empty() => {
            let front = Front {
                listen,
                single: None,
                limits: Limits::default(),
            };
            Ok(Config {
                workers,
                front: Some(front),
                admin: None,
                notes,
            })
        }
        _ => Err(wrong.join("\n")),
    }
}

/// Annotations in place of the manifests' own: the cluster's broker is seldom reachable from a laptop.
fn read_overrides(
    matches: &ArgMatches,
    environment: &[(String, String)],
) -> Result<BTreeMap<String, String>, Refusal> {
    let wanted = [&BROKER, &VHOST];
    let variables: Vec<_> = environment
        .iter()
        .filter(|(name, _)| wanted.iter().any(|setting| setting.env() == *name))
        .cloned()
        .collect();
    cli::read_settings(matches, &variables).map_err(|problems| problems.to_string())?;
    Ok(wanted
        .iter()
        .filter_map(|setting| {
            let (_, value) = super::given(matches, &variables, setting.name, &setting.env())?;
            Some((setting.annotation(), value))
        })
        .collect())
}

struct Reader {
    overrides: BTreeMap<String, String>,
    /// The environment that every worker begins with.
    own: BTreeMap<OsString, OsString>,
    wrong: Vec<String>,
    notes: Vec<String>,
    workers: Vec<WorkerConfig>,
}

impl Reader {
    fn read_file(&mut self, file: &Path) {
        let shown = file.display().to_string();
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return self.wrong.push(format!("{shown} cannot be read: {error}")),
        };
        // Command and working directory are relative to where the manifest is, wherever this is run.
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        for workload in manifest::read(&shown, &text) {
            match workload {
                Ok(workload) => self.read_workload(&shown, folder, workload),
                Err(error) => self.wrong.push(error.to_string()),
            }
        }
    }

    fn read_workload(&mut self, file: &str, folder: &Path, mut workload: Workload) {
        let what = format!("{file}: {workload}");
        if let Decision::Skip(reason) = decide(&workload) {
            return self.notes.push(format!("{what} is left out: {reason}"));
        }
        workload.annotations.extend(self.overrides.clone());
        match decide(&workload) {
            Decision::Inject(plan) => self.read_plan(&what, folder, &workload, *plan),
            Decision::Deny(problems) => {
                self.wrong
                    .extend(problems.iter().map(|problem| format!("{what}: {problem}")));
            }
            Decision::Skip(_) => {}
        }
    }

    fn read_plan(&mut self, what: &str, folder: &Path, workload: &Workload, plan: Plan) {
        let name = TargetName {
            namespace: workload.namespace.clone(),
            name: workload.name.clone(),
        };
        if self.workers.iter().any(|worker| worker.name == name) {
            return self
                .wrong
                .push(format!("{what} is described twice: name each workload once"));
        }
        let mut warnings: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
        if workload.containers.len() > 1 {
            warnings.push(format!(
                "only its first container, {}, is run on this machine",
                plan.worker.name
            ));
        }
        let command = command_line(folder, &plan.worker, &self.own, &mut warnings);
        self.notes
            .extend(warnings.into_iter().map(|warning| format!("{what}: {warning}")));
        match command {
            Ok(command) => self.workers.push(WorkerConfig {
                label: workload.name.clone(),
                name,
                command,
                settings: plan.settings,
                grace: workload.termination_grace_period.unwrap_or(DEFAULT_GRACE),
            }),
            Err(sentence) => self.wrong.push(format!("{what}: {sentence}")),
        }
    }

    /// Workloads of the same name in different namespaces must not look alike in output.
    fn name_apart(&mut self) {
        let labels: Vec<String> = self.workers.iter().map(|worker| worker.label.clone()).collect();
        for worker in &mut self.workers {
            if labels.iter().filter(|label| **label == worker.label).count() > 1 {
                worker.label = worker.name.to_string();
            }
        }
    }
}

fn command_line(
    folder: &Path,
    container: &Container,
    own: &BTreeMap<OsString, OsString>,
    warnings: &mut Vec<String>,
) -> Result<CommandLine, String> {
    if container.command.is_empty() {
        return Err(format!(
            "container {} has no command, and images are not run on this machine: write what the image would start \
             as its command",
            container.name
        ));
    }
    let mut variables = Vec::new();
    for variable in &container.env {
        let name = &variable.name;
        match &variable.value {
            EnvValue::Plain(value) => variables.push((name.clone(), value.clone())),
            EnvValue::FromCluster(source) => match own.get(OsStr::new(name)).and_then(|value| value.to_str())
            {
                // What looks like a reference in it is none.
                Some(value) => variables.push((name.clone(), value.replace('$', "$$"))),
                None => warnings.push(left_out(name, source)),
            },
        }
    }
    let directory = container
        .working_dir
        .as_ref()
        .map_or_else(|| folder.to_owned(), |dir| folder.join(dir));
    Ok(CommandLine {
        words: container.command.iter().chain(&container.args).cloned().collect(),
        environment: own.clone(),
        variables: Some(variables),
        directory: Some(directory),
    })
}

/// A single variable has a name; an element of `envFrom` has at most a prefix.
fn left_out(name: &str, source: &str) -> String {
    let is_whole = source.starts_with("secretRef ") || source.starts_with("configMapRef ");
    let what = if is_whole {
        "its variables from".to_owned()
    } else {
        format!("variable {name} from")
    };
    format!("{what} {source} are only known to a cluster: set in your shell what the worker needs of them")
}
