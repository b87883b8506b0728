//! One life of the engine: its own core, planner and delivery of webhooks, put together over the simulated disk as the server does it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use orchestrion::acts::Actor;
use orchestrion::compensations::Compensations;
use orchestrion::config::Settings;
use orchestrion::engine::call::Call;
use orchestrion::engine::{Core, EngineOptions, Handle, NoSurroundings};
use orchestrion::grounding::Matcher;
use orchestrion::orchestration::desk::Desk;
use orchestrion::orchestration::planning;
use orchestrion::outbox::{Notifier, Outbox, Worker};
use orchestrion::plan::Service;
use orchestrion::plan_cache::{CacheSettings, PlanCache};
use orchestrion::planner::Planner;
use orchestrion::registry::{
    NewProject, Registrar, Registration, Registry, ServiceKind, WebhookUrl,
};
use orchestrion::seams::{self, Chance, Clock, SeededChance};
use orchestrion_history::ids::Namespace;
use orchestrion_history::store::{Store, StoreError};
use serde_json::json;
use tokio::sync::watch;

use super::disk::SimDisk;
use super::executor::Owner;
use super::planners::SimModel;
use super::receivers::SimReceivers;
use super::shared::{Door, Tenant, World};

/// Shards of every world.
pub const SHARDS: u16 = 3;
const CALLS_MAX: usize = 1 << 16;
const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// The engine while it runs.
pub struct Life {
    /// Its loop.
    pub core: Core,
    /// What arrives.
    pub calls: Receiver<Call>,
    /// Which life it is.
    pub number: u64,
    _stop: watch::Sender<bool>,
}

/// What outlives the engine.
pub struct Surrounded {
    /// Its disk.
    pub disk: SimDisk,
    /// The model it asks.
    pub model: SimModel,
    /// Whom it tells.
    pub receivers: SimReceivers,
}

impl Drop for Life {
    /// Whoever waits for an answer learns that there is none.
    fn drop(&mut self) {
        self.calls.try_iter().for_each(drop);
    }
}

fn options(cached: usize, retention: Duration) -> EngineOptions {
    EngineOptions {
        shards: SHARDS,
        cached_executions_max: cached,
        snapshot_records: 40,
        retention,
        retention_sweep: Duration::from_secs(60),
        ..EngineOptions::default()
    }
}

/// The services of a tenant as a plan is checked against them.
pub fn services_of(tenant: &Tenant) -> Vec<Service> {
    let services = tenant.services.iter();
    services
        .map(|(id, name)| Service {
            id: id.clone(),
            name: name.clone(),
            description: described(name, 0),
            input_schema: json!({"type": "object"}).into(),
            output_schema: output(),
            revertible: name != "plain",
        })
        .collect()
}

/// How a service is described, the first time and whenever its owner describes it anew.
fn described(name: &str, version: u64) -> String {
    format!("does {name}, version {version}")
}

/// Which of its descriptions this is.
pub fn version_of(description: &str) -> Option<u64> {
    description.rsplit("version ").next()?.parse().ok()
}

/// What an owner says of a service; `id`: it has one already.
pub fn registration(id: Option<String>, name: &str, version: u64) -> Registration {
    Registration {
        id,
        kind: ServiceKind::Service,
        name: name.to_owned(),
        description: described(name, version),
        input_schema: json!({"type": "object"}),
        output_schema: output(),
        revertible: name != "plain",
    }
}

fn output() -> serde_json::Value {
    json!({"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]})
}

impl Life {
    /// The engine starts over what the disk holds.
    pub fn begin(
        world: &World,
        with: &Surrounded,
        number: u64,
        seed: u64,
    ) -> Result<Self, StoreError> {
        let store: Arc<dyn Store> = Arc::new(with.disk.clone());
        let registry = Registry::load(&*store)?;
        let (notifier, committed) = Notifier::new();
        let (handle, calls) = Handle::detached(store.clone(), SHARDS, CALLS_MAX);
        let outbox = Outbox::new(registry.clone(), notifier);
        let cached = 2 + (seed % 12) as usize;
        let core = Core::recover(
            store,
            Box::new(SeededChance::new(seed)),
            Box::new(outbox),
            options(cached, world.retention.get()),
            world.now(),
        )?;
        let (stop, stopped) = watch::channel(false);
        let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
        let worker = Worker::played(
            handle.clone(),
            registry.clone(),
            Arc::new(with.receivers.clone()),
            Settings::default().outbox,
            TEN_YEARS,
            (clock, Arc::new(SeededChance::new(seed ^ 1))),
        );
        let chance: Arc<dyn Chance> = Arc::new(SeededChance::new(seed ^ 2));
        let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
        let registrar = Registrar::new(registry.clone(), handle.clone(), chance, clock.clone());
        let settings = Settings::default();
        let compensations = Compensations::new(handle.clone(), registrar.clone(), clock, &settings);
        let services = registry.clone();
        let tenants = world.tenants.borrow();
        let plans = PlanCache::load(
            &with.disk,
            tenants.iter().map(|tenant| tenant.namespace.clone()),
            CacheSettings::default(),
            handle.clone(),
            (
                Arc::new(world.clock.clone()),
                Arc::new(SeededChance::new(seed ^ 3)),
            ),
            registrar.acts().clone(),
        )?;
        let desk = Desk {
            planner: Planner::Llm(Box::new(with.model.planner(world.clock.clone()))),
            services: Box::new(move |namespace| services.services(namespace)),
            groundings: Box::new(move |namespace| registry.groundings(namespace)),
            matcher: Matcher::default(),
            cache: Some(plans.clone()),
        };
        let owner = Owner::Process(number);
        world.spawner.spawn(owner, worker.run(committed, stopped));
        world
            .spawner
            .spawn(owner, planning::serve(handle.clone(), Arc::new(desk)));
        let spawner = world.spawner.clone();
        seams::run_beside_with(Some(Rc::new(move |future| spawner.spawn(owner, future))));
        if let Err(error) = compensations.resume() {
            world.say(|| format!("reverts are not taken up: {error}"));
        }
        let door = Door {
            handle,
            compensations,
            registrar,
            plans,
            life: number,
        };
        *world.door.borrow_mut() = Some(door);
        Ok(Self {
            core,
            calls,
            number,
            _stop: stop,
        })
    }
}

/// Tenants with services and webhooks, before anything goes wrong.
pub fn found(world: &World, disk: &SimDisk, seed: u64) -> Vec<Tenant> {
    let store: Arc<dyn Store> = Arc::new(disk.clone());
    let registry = Registry::load(&*store).expect("an empty store has no registry");
    let (handle, calls) = Handle::detached(store.clone(), SHARDS, CALLS_MAX);
    let mut core = Core::recover(
        store,
        Box::new(SeededChance::new(seed)),
        Box::new(NoSurroundings),
        options(2, world.retention.get()),
        world.now(),
    )
    .expect("an empty store recovers");
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let registrar = Registrar::new(registry, handle, Arc::new(SeededChance::new(seed)), clock);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without a driver starts");
    let now = world.now();
    runtime.block_on(async {
        let founding = tokio::spawn(async move {
            let mut tenants = Vec::new();
            for name in ["north", "south"] {
                tenants.push(tenant(&registrar, name).await);
            }
            tenants
        });
        while !founding.is_finished() {
            core.round(now, calls.try_iter());
            tokio::task::yield_now().await;
        }
        founding.await.expect("nothing goes wrong yet")
    })
}

async fn tenant(registrar: &Registrar, name: &str) -> Tenant {
    let webhook = |topic: &str| {
        let url = format!("http://{name}.simulated/{topic}");
        vec![WebhookUrl::parse(&url).expect("it is a URL")]
    };
    let new = NewProject {
        name: name.to_owned(),
        webhooks: webhook("orchestrations"),
        compensation_failure_webhooks: webhook("compensations"),
    };
    let created = registrar.create_project(new, &Actor::ENGINE).await;
    let id = created.expect("the first projects fit").project.id;
    let namespace = Namespace::parse(&id).expect("a project's id names a tenant");
    let mut services = Vec::new();
    for name in ["plain", "red", "blue"] {
        let registration = registration(None, name, 0);
        let service = registrar
            .register_service(&namespace, registration, &Actor::ENGINE)
            .await
            .expect("the first services fit");
        services.push((service.service.id, name.to_owned()));
    }
    Tenant {
        namespace,
        services,
    }
}
