//! Puts the parts together and takes them down in order: intake, calls, workers, broker, admin port.
//!
//! How it ends:
//!
//! 1. sidecars take no new messages and the activator no new calls; the autoscalers decide nothing more;
//! 2. calls under way are answered, also those that wait for a worker that is being started;
//! 3. each replica's messages in flight are settled, and only then its process gets SIGTERM;
//! 4. the admin port closes.

use crate::admin;
use crate::display::Screen;
use crate::fleet::{Worker, WorkerFleet};
use crate::outbox::Outboxes;
use crate::process::CommandLine;
use crate::replica::Plan;
use crate::scaling::Scaling;
use crate::sidecars::{QueueSidecars, Sidecars};
use crate::status;
use crate::targets::LocalTargets;
use activator::{Activator, Limits, Routing, TargetName};
use contract::settings::Settings;
use ops::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What runs on this machine.
#[derive(Debug)]
pub(crate) struct Config {
    /// At least one; names and labels are distinct.
    pub(crate) workers: Vec<WorkerConfig>,
    /// Where calls are taken; `None` for workers that only have queues.
    pub(crate) front: Option<Front>,
    /// Where health, status and metrics are served.
    pub(crate) admin: Option<SocketAddr>,
    /// What is worth telling before anything starts.
    pub(crate) notes: Vec<String>,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct WorkerConfig {
    /// How it is called in output and logs.
    pub(crate) label: String,
    /// How it is called in paths.
    pub(crate) name: TargetName,
    /// What each replica runs.
    pub(crate) command: CommandLine,
    /// The contract's settings.
    pub(crate) settings: Settings,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
}

/// Where calls are taken.
#[derive(Debug)]
pub(crate) struct Front {
    /// The address to listen on.
    pub(crate) listen: SocketAddr,
    /// The worker that gets every call, as a Service does; `None` for routing by path and host.
    pub(crate) single: Option<TargetName>,
    /// What the activator lets itself be burdened with.
    pub(crate) limits: Limits,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Everything was finished.
    Completely,
    /// The end was forced.
    Forced,
}

/// Configured, before anything listens.
pub(crate) struct App;

/// Everything listens, nothing runs.
pub(crate) struct Bound {
    fleets: Vec<WorkerFleet>,
    scaling: Scaling,
    front: Option<activator::Bound>,
    outboxes: Arc<Outboxes>,
    admin: Option<ops::admin::Bound>,
    screen: Screen,
    /// Of fleets: pulled later than the process's own.
    stop: Shutdown,
}

impl App {
    /// Binds every port, so that one that is taken is known before anything else happens, and says where they are.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub(crate) async fn bind(config: Config, screen: Screen) -> Result<Bound, String> {
        let stop = Shutdown::new();
        let admin = match config.admin {
            Some(address) => Some(
                ops::admin::bind(address)
                    .await
                    .map_err(|error| error.to_string())?,
            ),
            None => None,
        };
        let outboxes = Arc::new(Outboxes::new(
            config.workers.iter().map(|worker| &worker.settings),
        ));
        let fleets: Vec<WorkerFleet> = config
            .workers
            .iter()
            .map(|worker| fleet(worker, &screen, &stop))
            .collect();
        let queues = config.workers.iter().map(|worker| worker.settings.queue.clone());
        let targets = LocalTargets::new(fleets.iter().cloned().zip(queues));
        let front = match &config.front {
            Some(front) => Some(bind_front(front, targets, Arc::clone(&outboxes)).await?),
            None => None,
        };
        for note in &config.notes {
            screen.note(note);
        }
        say_where(&config, front.as_ref(), admin.as_ref(), &screen);
        let mut scaling = Scaling::default();
        for (worker, fleet) in config.workers.iter().zip(&fleets) {
            scaling.add(&worker.settings, fleet.clone())?;
        }
        Ok(Bound {
            fleets,
            scaling,
            front,
            outboxes,
            admin,
            screen,
            stop,
        })
    }
}

impl Bound {
    /// Runs until `shutdown` drains and everything is finished, or until it is forced.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Drained {
        let Self {
            fleets,
            scaling,
            front,
            outboxes,
            admin,
            screen,
            stop,
        } = self;
        let admin_stop = CancellationToken::new();
        let mut around = JoinSet::new();
        for fleet in &fleets {
            around.spawn(status::show(fleet.clone(), screen.clone(), admin_stop.clone()));
        }
        if let Some(admin) = admin {
            let answer = admin::answering(fleets.clone(), scaling.reports(), shutdown.clone());
            around.spawn(admin.serve(answer, admin_stop.clone()));
        }
        let scaling = tokio::spawn(scaling.run(shutdown.clone()));
        let front = tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                match front {
                    Some(front) => {
                        front.run(shutdown).await;
                    }
                    None => shutdown.draining().await,
                }
            }
        });
        shutdown.draining().await;
        for fleet in &fleets {
            fleet.stop_intake();
        }
        let finishing = async {
            // A part that panicked has nothing more to finish.
            let _panicked = (scaling.await.is_err(), front.await.is_err());
            let mut stopping = JoinSet::new();
            for fleet in fleets {
                stopping.spawn(async move { fleet.stop().await });
            }
            stopping.join_all().await;
            outboxes.close().await;
        };
        // Cancel safe: `finishing` goes on in the next step.
        tokio::pin!(finishing);
        tokio::select! {
            () = &mut finishing => {}
            () = shutdown.forced() => {
                stop.force();
                finishing.await;
            }
        }
        admin_stop.cancel();
        around.join_all().await;
        if shutdown.is_forced() {
            Drained::Forced
        } else {
            Drained::Completely
        }
    }
}

fn fleet(worker: &WorkerConfig, screen: &Screen, stop: &Shutdown) -> WorkerFleet {
    let sidecars =
        QueueSidecars::new(worker.settings.clone()).map(|sidecars| Box::new(sidecars) as Box<dyn Sidecars>);
    let worker = Worker {
        name: worker.name.clone(),
        plan: Plan {
            worker: worker.label.clone(),
            command: worker.command.clone(),
            grace: worker.grace,
        },
        call_timeout: Limits::default().response_timeout.unwrap_or(Duration::MAX),
    };
    WorkerFleet::new(worker, sidecars, screen.clone(), stop.child())
}

async fn bind_front(
    front: &Front,
    targets: LocalTargets,
    outboxes: Arc<Outboxes>,
) -> Result<activator::Bound, String> {
    let routing = front.single.clone().map_or(Routing::ByName, Routing::Single);
    let mut config = activator::Config::new(front.listen, routing);
    config.limits = front.limits.clone();
    Activator::bind(config, Arc::new(targets), outboxes)
        .await
        .map_err(|error| error.to_string())
}

fn say_where(
    config: &Config,
    front: Option<&activator::Bound>,
    admin: Option<&ops::admin::Bound>,
    screen: &Screen,
) {
    for worker in &config.workers {
        let mut sources = Vec::new();
        if let Some(queue) = &worker.settings.queue {
            sources.push(format!(
                "messages from queue {queue} at {}",
                worker.settings.broker
            ));
        }
        if let (Some(front), Some(bound)) = (&config.front, front) {
            let path = front
                .single
                .as_ref()
                .map_or_else(|| format!("/{}/", worker.name), |_| "/".to_owned());
            sources.push(format!("calls at http://{}{path}", bound.addr()));
        }
        screen.note(format!("{}: {}", worker.label, sources.join(", ")));
    }
    if let Some(Ok(address)) = admin.map(ops::admin::Bound::addr) {
        screen.note(format!("status at http://{address}/status"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::inherited;
    use contract::settings::{self, Flags};

    #[tokio::test]
    async fn callers_who_waited_in_vain_are_told_why() {
        let name = TargetName {
            namespace: "default".to_owned(),
            name: "resize".to_owned(),
        };
        let worker = WorkerConfig {
            label: "resize".to_owned(),
            name: name.clone(),
            command: CommandLine {
                words: vec!["pythn3-of-nobody".to_owned()],
                environment: inherited(std::env::vars_os()),
                variables: None,
                directory: None,
            },
            settings: settings::parse(&Flags::default()).unwrap(),
            grace: Duration::from_secs(1),
        };
        let limits = Limits {
            wake_timeout: Duration::from_millis(500),
            ..Limits::default()
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let front = Front {
            listen,
            single: Some(name),
            limits,
        };
        let config = Config {
            workers: vec![worker],
            front: Some(front),
            admin: None,
            notes: Vec::new(),
        };
        let screen = Screen::plain(Box::new(std::io::sink()), Box::new(std::io::sink())).unwrap();
        let bound = App::bind(config, screen).await.unwrap();
        let url = format!("http://{}", bound.front.as_ref().unwrap().addr());
        let shutdown = Shutdown::new();
        let running = tokio::spawn(bound.run(shutdown.clone()));
        let answer = testkit::http::get(&url).await.unwrap();
        assert_eq!(answer.status.as_u16(), 504);
        let sentence = "worker resize does not start: there is no command `pythn3-of-nobody` on PATH";
        assert!(answer.text().contains(sentence), "{}", answer.text());
        shutdown.drain();
        assert_eq!(running.await.unwrap(), Drained::Completely);
    }
}
