//! A deterministic simulation of the engine's own loop: one seed decides what is submitted, how services behave, when the engine
//! crashes, when a commit fails, and how time passes.
//!
//! ```text
//!  seed -> World { Core over MemoryStore, virtual clock, services on sessions }
//!            step: submit | serve | advance | crash | drop a session | fail the next commit
//!            after each step: invariants.rs
//!  faults stop -> drain -> every orchestration has ended, each of its effects is there once
//! ```
//!
//! Invariant: the same seed gives the same journal, byte for byte.
#![allow(clippy::unwrap_used)]

pub mod invariants;
mod services;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use orchestrion::engine::call::{Call, ReplyTo};
use orchestrion::engine::{CallError, Core, EngineOptions, Surroundings, Target};
use orchestrion::orchestration::submission::json_payloads;
use orchestrion::orchestration::{
    Action, Effect, Options, Rules, Submission, WORKFLOW_QUEUE, WORKFLOW_TYPE,
};
use orchestrion::plan::{Plan, PlanTask};
use orchestrion::seams::{Chance, SeededChance};
use orchestrion_history::ids::{Namespace, ShardId, Timestamp, WorkflowId};
use orchestrion_history::request::{Request, StartWorkflow};
use orchestrion_history::store::{Key, MemoryStore, Store, StoreErrorKind};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use self::services::Services;

/// Orchestrations of one world: enough to meet each other, few enough to look at all of them often.
const SUBMISSIONS_MAX: u64 = 16;
/// Steps between two looks at everything.
const CHECK_EVERY: u32 = 4;

const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// What a run of the simulator is made of.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Steps before the faults stop.
    pub steps: u32,
    /// Of a thousand steps, how many crash the engine.
    pub crashes: u64,
    /// Of a thousand steps, how many fail a commit.
    pub commit_failures: u64,
    /// Of a thousand steps, how many drop a service's connection.
    pub disconnects: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            steps: 240,
            crashes: 20,
            commit_failures: 20,
            disconnects: 30,
        }
    }
}

/// Draws numbers from the seed.
pub struct Dice(SeededChance);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(SeededChance::new(seed))
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % sides.max(1)
    }

    fn is_one_of_1000(&mut self, share: u64) -> bool {
        self.roll(1_000) < share
    }
}

/// Records what would leave for webhooks, as outbox entries like the real ones.
#[derive(Clone, Default)]
pub struct Recorder {
    sent: Arc<Mutex<Vec<String>>>,
}

impl Surroundings for Recorder {
    fn outbox_entries(&self, namespace: &Namespace, effect: &Effect) -> Vec<(Key, Bytes)> {
        let id = match effect {
            Effect::StatusChanged(change) => change.event_id.clone(),
            Effect::CompensationFailed(record) => format!("comp-{}", record.id),
        };
        let key = Key::Outbox {
            shard: ShardId::REGISTRY,
            namespace: namespace.clone(),
            event_id: id,
        };
        vec![(key, Bytes::from_static(b"entry"))]
    }

    fn outbox_committed(&self, keys: Vec<Key>) {
        self.sent
            .lock()
            .unwrap()
            .extend(keys.into_iter().filter_map(|key| match key {
                Key::Outbox { event_id, .. } => Some(event_id),
                _ => None,
            }));
    }
}

/// What a caller was told of an orchestration.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// Its plan.
    pub plan: Plan,
    /// Which tenant.
    pub namespace: Namespace,
}

/// The engine, its store, its services, and what is known of them from outside.
pub struct World {
    seed: u64,
    /// Draws everything.
    pub dice: Dice,
    /// Survives crashes.
    pub store: MemoryStore,
    core: Option<Core>,
    /// The virtual clock.
    pub now: Timestamp,
    services: Services,
    recorder: Recorder,
    /// By orchestration id.
    pub acknowledged: BTreeMap<String, Acknowledged>,
    /// Ids whose start was refused or never answered.
    pub unanswered: Vec<String>,
    submitted: u64,
    /// Commits done when the next one was told to fail: as long as there are no more, that failure is still to come.
    armed_at: Option<u64>,
    log: Vec<String>,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            dice: Dice::new(seed),
            store: MemoryStore::new(),
            core: None,
            now: EPOCH,
            services: Services::default(),
            recorder: Recorder::default(),
            acknowledged: BTreeMap::new(),
            unanswered: Vec::new(),
            submitted: 0,
            armed_at: None,
            log: Vec::new(),
        };
        world.restart();
        world
    }

    /// Runs a seed to its end and answers a digest of everything the store holds.
    pub fn run(seed: u64, profile: Profile) -> u64 {
        let mut world = Self::new(seed);
        for step in 0..profile.steps {
            world.step(&profile);
            if step % CHECK_EVERY == 0 {
                invariants::check(&mut world);
            }
        }
        world.drain();
        invariants::check_ended(&mut world);
        invariants::digest(&world)
    }

    fn step(&mut self, profile: &Profile) {
        if self.dice.is_one_of_1000(profile.crashes) {
            self.say("crash");
            return self.restart();
        }
        if self.dice.is_one_of_1000(profile.commit_failures) {
            let kind = if self.dice.roll(2) == 0 {
                StoreErrorKind::Full
            } else {
                StoreErrorKind::Unavailable
            };
            self.say(&format!("the next commit fails: {kind:?}"));
            self.store.fail_next_commit(kind);
            self.armed_at = Some(self.store.commits());
        }
        if self.dice.is_one_of_1000(profile.disconnects) {
            return self.disconnect();
        }
        match self.dice.roll(10) {
            0 | 1 => self.submit(),
            2..=6 => self.serve(),
            7 => {
                let ms = self.dice.roll(2_000);
                self.advance(Duration::from_millis(ms));
            }
            8 => {
                let ms = self.dice.roll(40_000);
                self.advance(Duration::from_millis(ms));
            }
            _ => self.meddle(),
        }
    }

    /// The process is gone; a new one opens the same store.
    fn restart(&mut self) {
        self.core = None;
        self.services.lose_all_sessions();
        let chance = Box::new(SeededChance::new(self.dice.roll(u64::MAX)));
        let options = EngineOptions {
            shards: 3,
            cached_executions_max: 4,
            ..EngineOptions::default()
        };
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        match Core::recover(
            store,
            chance,
            Box::new(self.recorder.clone()),
            options,
            self.now,
        ) {
            Ok(core) => self.core = Some(core),
            Err(error) => self.say(&format!("the start failed: {error}")),
        }
        if self.core.is_none() {
            return self.restart();
        }
        if self.armed_at != Some(self.store.commits()) {
            invariants::check_returned(self);
        }
        for (namespace, queue) in services::queues() {
            if self.dice.roll(4) > 0 {
                self.attach(&namespace, &queue);
            }
        }
    }

    fn disconnect(&mut self) {
        let all = services::queues();
        let (namespace, queue) = all[self.dice.roll(all.len() as u64) as usize].clone();
        match self.services.session(&namespace, &queue) {
            Some(session) => {
                self.say(&format!("{queue} disconnects"));
                self.services.lose(&namespace, &queue);
                self.round(vec![Call::Detach { session }]);
            }
            None => self.attach(&namespace, &queue),
        }
    }

    fn attach(&mut self, namespace: &Namespace, queue: &str) {
        let (call, answer, tasks) =
            services::attach_call(namespace, queue, 1 + self.dice.roll(2) as u32);
        self.round(vec![call]);
        if let Ok(id) = answer_now(answer) {
            self.services.gain(namespace, queue, id, tasks);
        }
    }

    /// One round of the real loop.
    pub fn round(&mut self, calls: Vec<Call>) {
        let now = self.now;
        if let Some(core) = &mut self.core {
            core.round(now, calls.into_iter());
        }
    }

    /// Asks, and answers what the caller learns; `None`: nobody answered.
    pub fn ask(
        &mut self,
        target: Target,
        request: Request,
    ) -> Option<Result<orchestrion::engine::Accepted, CallError>> {
        let (reply, answer) = oneshot::channel();
        self.round(vec![Call::Request {
            target,
            request: Box::new(request),
            reply: ReplyTo::Caller(reply),
        }]);
        answer_now(answer).ok()
    }

    fn submit(&mut self) {
        if self.submitted == SUBMISSIONS_MAX {
            return self.serve();
        }
        let namespace = services::namespace(self.dice.roll(2));
        let plan = random_plan(&mut self.dice);
        let id = format!("o_{}", self.submitted);
        self.submitted += 1;
        let submission = Submission {
            webhook: None,
            action: Action {
                kind: String::new(),
                content: format!("do {id}"),
            },
            data: Vec::new(),
            plan: Some(plan.clone()),
            options: Options {
                task_timeout_ms: 5_000,
                task_attempts: 3,
                retry_initial_ms: 500,
                grace_ms: 60_000,
                compensation_attempts: 4,
                compensation_timeout_ms: 5_000,
                ..Options::default()
            },
            rules: Rules::NEWEST,
            ..Submission::default()
        };
        let start = StartWorkflow {
            workflow_id: id.clone(),
            workflow_type: WORKFLOW_TYPE.to_owned(),
            task_queue: WORKFLOW_QUEUE.to_owned(),
            input: Some(json_payloads(&submission)),
            request_id: format!("start-{id}"),
            ..Default::default()
        };
        let target = Target {
            namespace: namespace.clone(),
            workflow_id: WorkflowId::parse(&id).unwrap(),
            run_id: None,
        };
        let first = self.ask(target.clone(), Request::Start(Box::new(start.clone())));
        let again = if self.dice.roll(4) == 0 {
            self.ask(target, Request::Start(Box::new(start)))
        } else {
            None
        };
        let accepted: Vec<_> = [first, again]
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .collect();
        match accepted.first() {
            Some(first) => {
                assert!(
                    accepted.iter().all(|a| a.run_id == first.run_id),
                    "{}: a repeated start made another run",
                    self.line()
                );
                self.say(&format!("{id} is accepted with {} tasks", plan.tasks.len()));
                self.acknowledged
                    .insert(id, Acknowledged { plan, namespace });
            }
            None => {
                self.say(&format!("{id} is not accepted"));
                self.unanswered.push(id);
            }
        }
    }

    /// Somebody outside: a cancel, a termination, a request for a run that is not there.
    fn meddle(&mut self) {
        let Some((id, known)) = self.pick() else {
            return;
        };
        let workflow_id = WorkflowId::parse(&id).unwrap();
        let target = Target {
            namespace: known.namespace.clone(),
            workflow_id,
            run_id: None,
        };
        match self.dice.roll(8) {
            0 => {
                self.say(&format!("{id} is cancelled"));
                let cancel = orchestrion_history::request::RequestCancelWorkflow::default();
                let _ = self.ask(target, Request::RequestCancel(Box::new(cancel)));
            }
            1 if self.dice.roll(4) == 0 => {
                self.say(&format!("{id} is terminated"));
                let _ = self.ask(target, Request::Terminate(Box::default()));
            }
            2 => {
                let foreign = Namespace::parse("p_foreign").unwrap();
                let answer = self.ask(
                    Target {
                        namespace: foreign,
                        ..target
                    },
                    Request::FireTimers,
                );
                assert!(
                    !matches!(answer, Some(Ok(_))),
                    "{}: a foreign namespace reached {id}",
                    self.line()
                );
            }
            _ => {
                let ms = self.dice.roll(500);
                self.advance(Duration::from_millis(ms));
            }
        }
    }

    fn pick(&mut self) -> Option<(String, Acknowledged)> {
        let index = self.dice.roll(self.acknowledged.len() as u64) as usize;
        self.acknowledged
            .iter()
            .nth(index)
            .map(|(id, known)| (id.clone(), known.clone()))
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
        self.round(Vec::new());
    }

    fn serve(&mut self) {
        let mut services = std::mem::take(&mut self.services);
        services.serve(self);
        self.services = services;
    }

    /// Faults stop: services come back, and time passes until nothing is left to do.
    fn drain(&mut self) {
        self.say("faults stop");
        for _ in 0..4_000 {
            for (namespace, queue) in services::queues() {
                if self.services.session(&namespace, &queue).is_none() {
                    self.attach(&namespace, &queue);
                }
            }
            let mut services = std::mem::take(&mut self.services);
            services.serve_well(self);
            self.services = services;
            self.advance(Duration::from_millis(700));
            if invariants::all_closed(self) {
                return;
            }
        }
        panic!(
            "{}: something never ends:\n{}{}",
            self.line(),
            invariants::still_open(self),
            self.story()
        );
    }

    /// The line that reproduces this run.
    pub fn line(&self) -> String {
        format!(
            "reproduce with ORCHESTRION_SIM_SEED={} cargo test -p orchestrion-tests --test simulation",
            self.seed
        )
    }

    pub(crate) fn say(&mut self, what: &str) {
        self.log.push(format!(
            "{:>9.3} {what}",
            self.now.since(EPOCH).as_secs_f64()
        ));
    }

    /// What happened, the last part of it.
    pub fn story(&self) -> String {
        self.log[self.log.len().saturating_sub(60)..].join("\n")
    }

    /// Event ids that the outbox was told of.
    pub fn sent(&self) -> Vec<String> {
        self.recorder.sent.lock().unwrap().clone()
    }
}

fn answer_now<T>(mut answer: oneshot::Receiver<T>) -> Result<T, oneshot::error::TryRecvError> {
    answer.try_recv()
}

/// One to six tasks, each depending on some of those before it.
fn random_plan(dice: &mut Dice) -> Plan {
    let count = 1 + dice.roll(6) as usize;
    let mut tasks: Vec<PlanTask> = Vec::new();
    for n in 1..=count {
        let mut input = Map::new();
        let mut depends_on = Vec::new();
        input.insert("n".to_owned(), json!(n));
        for earlier in &tasks {
            if dice.roll(3) == 0 {
                input.insert(
                    format!("from_{}", earlier.id),
                    Value::String(format!("${}.value", earlier.id)),
                );
                depends_on.push(earlier.id.clone());
            }
        }
        let service = services::NAMES[dice.roll(services::NAMES.len() as u64) as usize];
        tasks.push(PlanTask {
            id: format!("task{n}"),
            service: service.to_owned(),
            service_name: service.to_owned(),
            revertible: service != "s_plain",
            input,
            depends_on,
        });
    }
    Plan {
        task_zero: Map::new(),
        tasks,
        parallel_groups: Vec::new(),
    }
}
