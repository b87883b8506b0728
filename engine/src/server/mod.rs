//! The engine as a process: settings, store, engine, workers and listeners, put together and taken apart in order.
//!
//! ```text
//!  start: settings -> logs -> listeners -> store -> registry -> engine -> outbox, planner -> HTTP, gRPC
//!  stop:  SIGTERM or SIGINT -> no new work, sockets closed -> HTTP, gRPC drained -> engine: last commits -> store
//!         a second signal ends the process at once
//! ```
//!
//! Invariant: a graceful stop cancels nothing; running work goes on at the next start.

mod grpc;
mod http;
mod logging;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use orchestrion_history::ids::Namespace;
use orchestrion_history::store::{RocksStore, RocksStoreOptions, Store, StoreError};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::grpc::Grpc;
use crate::api::access::Access;
use crate::api::orra::{Admission, Api, ApiParts, OpenSockets, Pulse, router};
use crate::api::v1::Durations;
use crate::audit::sign::AuditKey;
use crate::backup::Backups;
use crate::cli::ServeArgs;
use crate::compensations::Compensations;
use crate::config::{ConfigError, Settings, Sources};
use crate::embedding::{self, Embedder, EmbeddingModel};
use crate::engine::{Engine, EngineOptions};
use crate::grounding::{Matcher, Thresholds};
use crate::housekeeping;
use crate::orchestration::desk::Desk;
use crate::orchestration::planning;
use crate::outbox::{Notifier, Outbox, Worker};
use crate::plan_cache::PlanCache;
use crate::planner::Planner;
use crate::planner::builtin::BuiltinPlanner;
use crate::planner::llm::{self, LlmPlanner};
use crate::registry::ids::KeyDigest;
use crate::registry::{Registrar, Registry};
use crate::seams::{self, Chance, Clock, SystemChance, SystemClock};

/// The store's folder within the data folder.
pub(crate) const STORE_FOLDER: &str = "store";
/// orra's defaults, for whoever names only one of key, model and place.
const DEFAULT_MODEL: &str = "o1-mini";
const DEFAULT_EMBEDDINGS_MODEL: &str = "text-embedding-3-small";
const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";
/// What a shell shows of a process that a second signal ended.
const EXIT_CODE_INTERRUPTED: i32 = 130;

/// Who the engine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The user of this machine: loopback only, anybody creates projects.
    Dev,
    /// Others: creating projects takes the admin key.
    Server,
}

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `dev` listens on loopback only.
    #[error("setting {setting} is {address}: dev listens on this machine only, use an address such as 127.0.0.1:{}, or the server command", address.port())]
    NotLoopback {
        /// The setting.
        setting: &'static str,
        /// Its value.
        address: SocketAddr,
    },
    /// `server` wants an admin key.
    #[error(
        "setting admin_key is not set: give an admin key in ORCHESTRION_ADMIN_KEY or with --admin-key, or let anybody create projects with --open"
    )]
    NoAdminKey,
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {address}: {source}; choose another with {flag}")]
    Listen {
        /// Which flag says where.
        flag: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("the data folder {folder:?} cannot be used: {source}")]
    DataFolder {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store does not open or does not recover.
    #[error("the data folder {folder:?} cannot be opened: {source}")]
    Store {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// Something of the process does not start.
    #[error("{what} cannot start: {why}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// Runs the engine until it is told to stop.
pub async fn run(mode: Mode, args: ServeArgs) -> Result<(), ServerError> {
    let mut settings = Settings::load(&Sources::of_process(args.config.as_deref(), flags(&args))?)?;
    // Who runs `dev` is who reaches it: its webhooks are on this machine.
    settings.outbox.allow_private |= mode == Mode::Dev;
    let admission = admission(mode, &settings)?;
    logging::start(&settings.log);
    let mut signals = Signals::new()?;
    let doors = Doors {
        http: listen("--http-addr", settings.http_addr).await?,
        grpc: listen("--grpc-addr", settings.grpc_addr).await?,
        access: access(mode, &settings),
        admission,
    };
    let running = Running::start(settings, doors).await?;
    announce(mode, &running);
    signals.first().await;
    tracing::info!("stopping: a second signal ends it at once");
    seams::spawn(async move {
        signals.first().await;
        std::process::exit(EXIT_CODE_INTERRUPTED);
    });
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Listen {
            flag,
            address,
            source,
        })
}

fn flags(args: &ServeArgs) -> Vec<(&'static str, String)> {
    let mut flags = Vec::new();
    flags.extend(
        args.data_dir
            .as_ref()
            .map(|dir| ("data_dir", dir.display().to_string())),
    );
    flags.extend(
        args.http_addr
            .map(|address| ("http_addr", address.to_string())),
    );
    flags.extend(
        args.grpc_addr
            .map(|address| ("grpc_addr", address.to_string())),
    );
    flags.extend(
        args.admin_key
            .as_ref()
            .map(|key| ("admin_key", key.clone())),
    );
    flags.extend(
        args.open
            .then(|| ("allow_open_registration", "true".to_owned())),
    );
    flags
}

fn admission(mode: Mode, settings: &Settings) -> Result<Admission, ServerError> {
    match (mode, &settings.admin_key) {
        (Mode::Dev, _) => {
            for (setting, address) in [
                ("http_addr", settings.http_addr),
                ("grpc_addr", settings.grpc_addr),
            ] {
                if !address.ip().is_loopback() {
                    return Err(ServerError::NotLoopback { setting, address });
                }
            }
            Ok(Admission::Open)
        }
        (Mode::Server, _) if settings.allow_open_registration => Ok(Admission::Open),
        (Mode::Server, None) => Err(ServerError::NoAdminKey),
        (Mode::Server, Some(key)) => Ok(Admission::Key(KeyDigest::of(key.reveal()))),
    }
}

/// On gRPC there is nothing to be done without a namespace, and those are their projects'.
fn access(mode: Mode, settings: &Settings) -> Access {
    match mode {
        Mode::Dev => Access::Open,
        Mode::Server => Access::Keys {
            admin: settings
                .admin_key
                .as_ref()
                .map(|key| KeyDigest::of(key.reveal())),
        },
    }
}

fn announce(mode: Mode, running: &Running) {
    let mode = match mode {
        Mode::Dev => "dev",
        Mode::Server => "server",
    };
    let Running {
        settings,
        http_address: address,
        grpc_address: grpc,
        ..
    } = running;
    let data_dir = settings.data_dir.display();
    // Nobody may be reading standard output; the engine runs all the same.
    let _ = writeln!(
        std::io::stdout(),
        "orchestrion {mode} listens on http://{address} and, for gRPC, on {grpc}, data in {data_dir}"
    );
    tracing::info!(mode, %address, %grpc, %data_dir, version = env!("CARGO_PKG_VERSION"), "ready");
}

/// A model where one is named, the built-in planner otherwise.
fn planner(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Planner, ServerError> {
    if !settings.llm.is_configured() {
        return Ok(Planner::Builtin(BuiltinPlanner));
    }
    let model = settings.llm.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let base_url = settings.llm.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
    let model = llm::Settings {
        api_key: settings
            .llm
            .api_key
            .as_ref()
            .map(|key| key.reveal().to_owned()),
        time_limit: settings.planning.call_timeout,
        ..llm::Settings::new(model, base_url)
    };
    let now_ms = move || u64::try_from(clock.now().as_millis()).unwrap_or(0);
    let planner = LlmPlanner::new(model, Arc::new(now_ms));
    let planner = planner.map_err(|e| ServerError::Start {
        what: "the planner",
        why: e.to_string(),
    })?;
    Ok(Planner::Llm(Box::new(planner)))
}

/// Compares texts by a model where one is named, by words otherwise.
fn matcher(settings: &Settings) -> Result<Matcher, ServerError> {
    let model = if settings.embeddings.is_configured() {
        let model = settings.embeddings.model.as_deref();
        let base_url = settings.embeddings.base_url.as_deref();
        let model = EmbeddingModel::new(embedding::Settings {
            model: model.unwrap_or(DEFAULT_EMBEDDINGS_MODEL).to_owned(),
            api_key: settings
                .embeddings
                .api_key
                .as_ref()
                .map(|key| key.reveal().to_owned()),
            base_url: base_url.unwrap_or(DEFAULT_BASE_URL).to_owned(),
            time_limit: settings.grounding.embeddings_timeout,
        });
        Some(model.map_err(|e| ServerError::Start {
            what: "the comparison of texts",
            why: e.to_string(),
        })?)
    } else {
        None
    };
    let thresholds = Thresholds {
        action: settings.grounding.threshold,
        lexical_action: settings.grounding.lexical_threshold,
        capability: settings.grounding.capability_threshold,
    };
    let embedder = Embedder::new(model);
    tracing::info!(by = embedder.space(), "comparing texts");
    Ok(Matcher::new(Arc::new(embedder), thresholds))
}

/// Where clients come in, and what they may do.
struct Doors {
    http: TcpListener,
    grpc: TcpListener,
    admission: Admission,
    access: Access,
}

/// Everything that runs.
struct Running {
    settings: Settings,
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    disk: Arc<RocksStore>,
    engine: Engine,
    stop: watch::Sender<bool>,
    sockets: OpenSockets,
    http: tokio::task::JoinHandle<()>,
    grpc: tokio::task::JoinHandle<()>,
    outbox: tokio::task::JoinHandle<()>,
    housekeeping: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(settings: Settings, doors: Doors) -> Result<Self, ServerError> {
        let http_address = doors.http.local_addr().unwrap_or(settings.http_addr);
        let grpc_address = doors.grpc.local_addr().unwrap_or(settings.grpc_addr);
        let folder = settings.data_dir.clone();
        let unusable = |source| ServerError::DataFolder {
            folder: folder.clone(),
            source,
        };
        // Signing secrets and payloads are in it: one that is made here is its owner's alone.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(unusable)?;
        let unopened = |source| ServerError::Store {
            folder: folder.clone(),
            source,
        };
        let options = EngineOptions {
            retention: settings.retention.closed_runs,
            retention_sweep: settings.retention.sweep_interval,
            waiting_mark: settings.tasks.paused_after,
            limits: settings.limits.clone(),
            ..EngineOptions::default()
        };
        let store_options = RocksStoreOptions {
            shards: options.shards,
            ..RocksStoreOptions::default()
        };
        let store = RocksStore::open(folder.join(STORE_FOLDER), store_options).map_err(unopened)?;
        let disk = Arc::new(store);
        let store: Arc<dyn Store> = disk.clone();
        let registry = Registry::load(&*store).map_err(unopened)?;
        let audit_key = AuditKey::of_folder(&folder, &SystemChance).map_err(unusable)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let ids: Arc<dyn Chance> = Arc::new(SystemChance);
        let planner = planner(&settings, clock.clone())?;
        let matcher = matcher(&settings)?;
        let namespaces = registry.projects();
        let kept = store.clone();
        let (notifier, committed) = Notifier::new();
        let outbox = Outbox::new(registry.clone(), notifier);
        let engine = Engine::start(
            store,
            clock.clone(),
            Box::new(SystemChance),
            Box::new(outbox),
            options,
        )
        .map_err(unopened)?;
        let handle = engine.handle();
        let (stop, stopped) = watch::channel(false);
        let worker = Worker::new(
            handle.clone(),
            registry.clone(),
            settings.outbox.clone(),
            settings.retention.deliveries,
            clock.clone(),
            ids.clone(),
        )
        .map_err(|e| ServerError::Start {
            what: "the delivery of webhooks",
            why: e.to_string(),
        })?;
        let outbox = seams::spawn(worker.run(committed, stopped.clone()));
        tracing::info!(model = planner.model(), "planning");
        let sockets = OpenSockets::default();
        let (services, groundings) = (registry.clone(), registry.clone());
        let registrar = Registrar::new(registry, handle.clone(), ids.clone(), clock.clone());
        let namespaces = namespaces
            .iter()
            .filter_map(|p| Namespace::parse(&p.id).ok());
        let cache = PlanCache::load(
            &*kept,
            namespaces,
            settings.plan_cache.clone(),
            handle.clone(),
            (clock.clone(), ids.clone()),
            registrar.acts().clone(),
        )
        .map_err(unopened)?;
        let desk = Arc::new(Desk {
            planner,
            services: Box::new(move |namespace| services.services(namespace)),
            groundings: Box::new(move |namespace| groundings.groundings(namespace)),
            matcher,
            cache: Some(cache),
        });
        seams::spawn(planning::serve(handle.clone(), desk.clone()));
        let housekeeping = seams::spawn(housekeeping::run(
            registrar.clone(),
            handle.clone(),
            clock.clone(),
            settings.retention.clone(),
            stopped.clone(),
        ));
        let compensations =
            Compensations::new(handle.clone(), registrar.clone(), clock.clone(), &settings);
        match compensations.resume() {
            Ok(0) => {}
            Ok(open) => tracing::info!(open, "reverts that are run again go on"),
            Err(error) => {
                tracing::error!(%error, "reverts that were to be run again are not taken up: the next start tries again");
            }
        }
        let api = Api::new(ApiParts {
            registrar,
            compensations,
            handle,
            settings: settings.clone(),
            clock,
            ids,
            admission: doors.admission,
            stop: stopped.clone(),
            sockets: sockets.clone(),
            metrics: logging::metrics(),
            pulse: Pulse::default(),
            desk,
            durations: Durations::default(),
            audit_key,
            backups: Backups::of(disk.clone(), folder.clone()),
        });
        let grpc = Grpc::new(&api, doors.access)?;
        tracing::debug!(tls = grpc.speaks_tls(), "serving gRPC");
        let grpc = seams::spawn(grpc.serve(doors.grpc, stopped.clone()));
        let http = seams::spawn(http::serve(
            doors.http,
            router(api),
            settings.http.clone(),
            stopped,
        ));
        Ok(Self {
            settings,
            http_address,
            grpc_address,
            disk,
            engine,
            stop,
            sockets,
            http,
            grpc,
            outbox,
            housekeeping,
        })
    }

    /// Stops in order; what does not end within the budget is cut off.
    async fn stop(self) {
        let Self {
            settings,
            disk,
            engine,
            stop,
            sockets,
            http,
            grpc,
            outbox,
            housekeeping,
            ..
        } = self;
        // Whoever listens stops; when nobody does, everything has ended already.
        let _ = stop.send(true);
        let drained = async {
            sockets.all_closed().await;
            // A panic in a task was reported when it happened.
            let _ = http.await;
            let _ = grpc.await;
            let _ = outbox.await;
            let _ = housekeeping.await;
        };
        if tokio::time::timeout(settings.shutdown_budget, drained)
            .await
            .is_err()
        {
            tracing::warn!("not everything ended within the shutdown budget: it is cut off");
        }
        let stopped = tokio::task::spawn_blocking(move || {
            engine.stop();
            // Only a shortcut for the next start, which would replay the log instead.
            if let Err(error) = disk.flush() {
                tracing::warn!(%error, "the store was not flushed; the next start replays its log");
            }
        });
        if stopped.await.is_err() {
            tracing::error!("the engine did not stop cleanly; what it had committed is safe");
        }
    }
}

/// The signals that ask for a stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, ServerError> {
        let listen = |kind| {
            signal(kind).map_err(|e| ServerError::Start {
                what: "the listening for signals",
                why: e.to_string(),
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn dev_stays_on_this_machine() {
        let outside = Settings {
            http_addr: "0.0.0.0:8005".parse().unwrap(),
            ..Settings::default()
        };
        let error = admission(Mode::Dev, &outside).unwrap_err().to_string();
        assert!(
            error.contains("http_addr") && error.contains("127.0.0.1:8005"),
            "{error}"
        );
        assert_eq!(
            admission(Mode::Dev, &Settings::default()).unwrap(),
            Admission::Open
        );
    }

    #[test]
    fn a_server_wants_an_admin_key_or_to_be_told() {
        let settings = |key: Option<&str>, open| Settings {
            admin_key: key.map(Secret::new),
            allow_open_registration: open,
            ..Settings::default()
        };
        assert!(matches!(
            admission(Mode::Server, &settings(None, false)),
            Err(ServerError::NoAdminKey)
        ));
        assert_eq!(
            admission(Mode::Server, &settings(None, true)).unwrap(),
            Admission::Open
        );
        let key = "an-admin-key-of-enough-letters";
        let expected = Admission::Key(KeyDigest::of(key));
        assert_eq!(
            admission(Mode::Server, &settings(Some(key), false)).unwrap(),
            expected
        );
    }
}
