//! Puts the parts together, and takes them down in order: targets, the Lease, the admin port.

use super::admin::Desk;
use super::api::Writer;
use super::calls::CallBoard;
use super::config::Config;
use super::conflicts::{Conflicts, follow_keda};
use super::controller::Controller;
use super::events::{self, Events};
use super::http::Http;
use super::keeper::{Board, Office};
use super::key::DrainKey;
use super::lease::{Election, Leadership};
use super::target::Means;
use super::telemetry;
use super::views::Views;
use k8s::Clients;
use ops::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often is said that the API server does not tell what there is.
const COMPLAIN: Duration = Duration::from_secs(10);
/// The longest that the last Events may take at the end.
const TELLING: Duration = Duration::from_secs(2);

/// An autoscaler that does not run yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    clients: Clients,
    admin: Option<ops::admin::Bound>,
}

impl App {
    /// Finds the API server and binds the admin port. Nothing is sent yet.
    ///
    /// # Errors
    /// Why it cannot run, in a sentence.
    pub async fn bind(config: Config) -> Result<Self, String> {
        let clients = k8s::connect().await.map_err(|error| error.to_string())?;
        let admin = match config.admin {
            Some(address) => Some(
                ops::admin::bind(address)
                    .await
                    .map_err(|error| error.to_string())?,
            ),
            None => None,
        };
        Ok(Self {
            config,
            clients,
            admin,
        })
    }

    /// Where the admin port listens; `None` when there is none.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn admin_addr(&self) -> std::io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(ops::admin::Bound::addr).transpose()
    }

    /// Scales until `shutdown`. Drain lets every tick under way end, gives the Lease back, and leaves all replicas as
    /// they are; force does not wait. Returns whether everything ended by itself.
    pub async fn run(self, shutdown: Shutdown) -> bool {
        let Self {
            config,
            clients,
            admin,
        } = self;
        telemetry::describe();
        let client = || clients.requests.clone();
        let namespace = config
            .namespace
            .clone()
            .unwrap_or_else(|| clients.requests.default_namespace().to_owned());
        let identity = format!("{}_{:016x}", config.name, fastrand::u64(..));
        let (election, leadership) = Election::new(client(), &namespace, identity.clone());
        let (events, notes) = Events::new();
        let office = office(&clients, &config, leadership.clone(), events);
        let views = office.means.views.clone();

        // What only looks ends with this set.
        let mut helpers = JoinSet::new();
        let (keda_sender, keda) = watch::channel(Conflicts::new());
        helpers.spawn(follow_keda(client(), config.watch_namespace.clone(), keda_sender));
        helpers.spawn(office.means.key.clone().follow(client(), namespace.clone()));
        if let Some(service) = config.activator_service.clone() {
            helpers.spawn(office.calls.clone().follow(clients.clone(), namespace, service));
        }
        let sending = tokio::spawn(events::send(client(), identity.clone(), notes));
        let desk = Desk {
            identity: identity.into(),
            leadership,
            board: office.board.clone(),
            is_ready: Arc::default(),
        };
        let closed = CancellationToken::new();
        let serving = admin.map(|admin| {
            let desk = desk.clone();
            let answer = move |request| std::future::ready(desk.answer(&request));
            tokio::spawn(admin.serve(answer, closed.clone()))
        });

        let resigned = CancellationToken::new();
        let mut electing = None;
        if all_known(&views, &shutdown).await {
            desk.is_ready.store(true, Relaxed);
            electing = Some(tokio::spawn(election.run(resigned.clone())));
            Controller::new(office, config.broker)
                .run(keda, shutdown.clone())
                .await;
        } else {
            drop(office);
        }
        desk.is_ready.store(false, Relaxed);
        resigned.cancel();
        let ending = async {
            if let Some(electing) = electing {
                // A panic was printed by its hook.
                let _ended = electing.await;
            }
            // It ends with the last one who had something to tell.
            let _ended = timeout(TELLING, sending).await;
        };
        tokio::select! {
            () = ending => {}
            () = shutdown.forced() => {}
        }
        helpers.shutdown().await;
        closed.cancel();
        if let Some(serving) = serving {
            let _ended = serving.await;
        }
        !shutdown.is_forced()
    }
}

fn office(clients: &Clients, config: &Config, leadership: Leadership, events: Events) -> Office {
    let means = Means {
        views: Views::follow(clients, config),
        writer: Writer {
            client: clients.requests.clone(),
            leadership,
        },
        http: Http::default(),
        key: DrainKey::new(),
    };
    let calls = match &config.activator_service {
        Some(_) => CallBoard::unknown(),
        None => CallBoard::default(),
    };
    Office {
        means: Arc::new(means),
        events,
        calls,
        board: Board::default(),
    }
}

/// Waits until all views are there; `false` when the shutdown comes first.
async fn all_known(views: &Views, shutdown: &Shutdown) -> bool {
    loop {
        tokio::select! {
            () = shutdown.draining() => return false,
            known = timeout(COMPLAIN, views.ready()) => if known.is_ok() { return true },
        }
        let troubles = views.troubles();
        let kinds: Vec<&str> = troubles.iter().map(|(kind, _)| *kind).collect();
        let sentence = troubles.first().map(|(_, trouble)| trouble.sentence.as_str());
        telemetry::views_missing(&kinds.join(", "), sentence);
    }
}
