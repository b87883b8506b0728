//! The simulator: the engine's own code on one thread, a virtual clock, a disk and a network that fail, and a world of callers, workers,
//! services, models and receivers around it, all driven by one seed.
//!
//! ```text
//!  seed -> World { Life: Core, planner, outbox worker over SimDisk; actors: clients, workers, services, SimModel, SimReceivers }
//!            step: actors run until they wait | a fault strikes | the engine takes some calls, in one round | time passes
//!            after each step: every invariant
//!  faults stop -> everybody behaves -> every execution ends, every webhook has arrived
//! ```
//!
//! | what | file |
//! |---|---|
//! | futures in order | `executor.rs` |
//! | chance | `dice.rs` |
//! | the disk | `disk.rs` |
//! | the network, the clock | `shared.rs` |
//! | the engine's process | `life.rs` |
//! | callers | `clients.rs` |
//! | those who pause, reset and change what runs | `operators.rs`, `holds.rs` |
//! | those who look after what could not be undone | `people.rs` |
//! | workers of workflow code and activities | `workers.rs`, `script.rs` |
//! | services of orchestrations, and who owns them | `services.rs`, `owners.rs` |
//! | the model's server, webhooks' receivers | `planners.rs`, `receivers.rs` |
//! | what goes wrong | `faults.rs` |
//! | what those outside know | `ledger.rs` |
//! | what the disk says | `observer.rs` |
//! | what must hold | `invariants/` |
//!
//! Invariant: the same seed gives the same world, record by record.
#![allow(clippy::unwrap_used)]

pub mod clients;
pub mod dice;
pub mod disk;
pub mod executor;
pub mod faults;
pub mod holds;
pub mod invariants;
pub mod ledger;
pub mod life;
pub mod observer;
pub mod operators;
pub mod owners;
pub mod people;
pub mod planners;
pub mod receivers;
pub mod script;
pub mod services;
pub mod shared;
pub mod workers;

mod quiet;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use orchestrion::engine::Target;
use orchestrion::engine::call::Call;
use orchestrion::seams::{self, VirtualSleeps};
use orchestrion_history::ids::{Timestamp, WorkflowId};
use orchestrion_history::request::{Request, SignalWorkflow};
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{Op, Store as _};
use tokio::sync::oneshot;

use self::dice::Dice;
use self::disk::{Killed, SimDisk, Written};
use self::executor::{Executor, Owner};
pub use self::faults::Profile;
use self::faults::{Strike, strike};
use self::invariants::{Invariant, View, cached};
use self::ledger::Run;
use self::life::{Life, Surrounded, found};
use self::observer::{News, Observer};
use self::planners::SimModel;
use self::receivers::SimReceivers;
use self::shared::{EPOCH, Shared, World};

/// Steps in which everything has to end once the faults have stopped.
const DRAIN_STEPS_MAX: u32 = 60_000;
/// Records that a story shows of a long journal: so many of its beginning, and as many of its end.
const JOURNAL_LINES: usize = 40;

/// Lines of a story that are kept.
const STORY_LINES_MAX: usize = 120;

/// What a world came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// A number for every record, in order.
    pub digest: u64,
    /// Steps it took.
    pub steps: u32,
    /// Commits of the engine.
    pub commits: u64,
    /// Times the engine started.
    pub lives: u64,
    /// Names of the records that came to be.
    pub seen: BTreeSet<String>,
    /// Runs that left with their retention.
    pub left: usize,
    /// Reverts that were asked for again.
    pub retries: usize,
    /// Plans that came from the cache.
    pub cached: usize,
}

/// A world in which something did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Reproduces it.
    pub seed: u64,
    /// What did not hold.
    pub invariant: &'static str,
    /// How.
    pub what: String,
    /// What happened before.
    pub story: String,
}

impl Failure {
    /// The line that reproduces it.
    pub fn line(&self) -> String {
        format!(
            "make sim SEED={}   # {}: {}",
            self.seed, self.invariant, self.what
        )
    }
}

type Outcome<T> = Result<T, (&'static str, String)>;

/// Runs the world of a seed to its end, with what that seed brings.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    run_with(seed, Profile::of_seed(seed))
}

/// Runs the world of a seed to its end.
pub fn run_with(seed: u64, profile: Profile) -> Result<Report, Box<Failure>> {
    tell(seed, profile, STORY_LINES_MAX).0
}

/// Runs the world of a seed to its end, and tells its story.
pub fn tell(
    seed: u64,
    profile: Profile,
    lines_max: usize,
) -> (Result<Report, Box<Failure>>, String) {
    let _quiet = quiet::of_kills();
    let mut stage = Stage::new(seed, profile);
    stage.world.remember(lines_max);
    let outcome = stage.run();
    VirtualSleeps::leave_this_thread();
    seams::run_beside_with(None);
    let story = stage.world.story();
    let outcome = match outcome {
        Ok(()) => Ok(stage.report()),
        Err((invariant, what)) => Err(Box::new(Failure {
            seed,
            invariant,
            story: format!("{story}\n{}", stage.journals(&what)),
            what,
        })),
    };
    (outcome, story)
}

/// A world under way.
struct Stage {
    profile: Profile,
    /// Chance of the engine's side: faults, batches, time.
    dice: Dice,
    world: World,
    sleeps: VirtualSleeps,
    executor: Executor,
    with: Surrounded,
    life: Option<Life>,
    lives: u64,
    begin_at: Timestamp,
    /// An engine that was believed dead.
    zombie: Option<Life>,
    observer: Observer,
    invariants: Vec<Box<dyn Invariant>>,
    asked: Vec<String>,
    arrived: Vec<(String, String, String)>,
    held: Vec<(Run, MutableState)>,
    /// The disk has no whole indexes until the engine has rebuilt them.
    indexes_lost: bool,
    restarted: bool,
    /// When faults stopped.
    calm_since: Timestamp,
    /// Two engines have written to the shards since this life began.
    contested: bool,
    steps: u32,
}

impl Stage {
    fn new(seed: u64, profile: Profile) -> Self {
        let mut dice = Dice::new(seed);
        let executor = Executor::new(dice.seed());
        let sleeps = VirtualSleeps::rule_this_thread(EPOCH);
        let world = Shared::new(dice.seed(), executor.spawner());
        world.retention.set(profile.retention);
        let disk = SimDisk::default();
        let tenants = found(&world, &disk, dice.seed());
        *world.tenants.borrow_mut() = tenants;
        let with = Surrounded {
            disk,
            model: SimModel::new(dice.seed()),
            receivers: SimReceivers::new(dice.seed()),
        };
        if !profile.outside {
            world.faults.set(false);
            with.model.behave();
            with.receivers.behave();
        }
        let mut stage = Self {
            profile,
            dice,
            world,
            sleeps,
            executor,
            with,
            life: None,
            lives: 0,
            begin_at: EPOCH,
            zombie: None,
            observer: Observer::default(),
            invariants: invariants::all(),
            asked: Vec::new(),
            arrived: Vec::new(),
            held: Vec::new(),
            indexes_lost: false,
            restarted: false,
            calm_since: EPOCH,
            contested: false,
            steps: 0,
        };
        stage.populate();
        stage
    }

    fn populate(&mut self) {
        let world = &self.world;
        for _ in 0..2 {
            world.spawn(clients::call(world.clone()));
        }
        let mut number = 0;
        for tenant in world.tenants.borrow().iter() {
            let namespace = &tenant.namespace;
            world.spawn(people::look_after(world.clone(), namespace.clone()));
            world.spawn(operators::operate(world.clone(), namespace.clone()));
            world.spawn(owners::own(world.clone(), tenant.clone()));
            for _ in 0..2 {
                number += 1;
                world.spawn(workers::of_scripts(
                    world.clone(),
                    namespace.clone(),
                    number,
                ));
                for queue in script::ACTIVITY_QUEUES {
                    world.spawn(workers::of_activities(
                        world.clone(),
                        namespace.clone(),
                        queue.to_owned(),
                        number,
                    ));
                }
            }
            for (id, _) in &tenant.services {
                world.spawn(services::serve(
                    world.clone(),
                    namespace.clone(),
                    id.clone(),
                ));
            }
        }
    }

    fn run(&mut self) -> Outcome<()> {
        self.look()?;
        while self.steps < self.profile.steps {
            self.step(true)?;
        }
        self.settle()?;
        for _ in 0..DRAIN_STEPS_MAX {
            self.step(false)?;
            if self.steps.is_multiple_of(16) && self.is_settled() {
                break;
            }
            if self.steps.is_multiple_of(64) {
                self.push_on();
                let held = self.observer.open().filter_map(operators::held_back);
                let held: Vec<_> = held.collect();
                operators::let_go(&self.world, held);
            }
        }
        self.check(
            |invariant, view| invariant.of_everything(view),
            &News::default(),
            &[],
        )?;
        self.check(
            |invariant, view| invariant.at_the_end(view),
            &News::default(),
            &[],
        )
    }

    /// Faults stop: whoever was ill is well.
    fn settle(&mut self) -> Outcome<()> {
        self.world.say(|| "faults stop".to_owned());
        self.calm_since = self.world.now();
        self.world.faults.set(false);
        self.world.asking.set(false);
        self.with.model.behave();
        self.with.receivers.behave();
        self.with.disk.heal();
        self.zombie = None;
        if self.with.disk.is_broken() {
            self.kill(false)?;
            self.zombie = None;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        use orchestrion_history::store::KeyRange;
        use orchestrion_proto::prost::Message as _;
        use orchestrion_proto::v1::OutboxEntry;
        use orchestrion_proto::v1::outbox_entry::Outcome as Delivery;
        let retries = self.observer.open_retries().next();
        if self.observer.open().next().is_some() || retries.is_some() {
            return false;
        }
        let range = KeyRange::outbox(orchestrion_history::ids::ShardId::REGISTRY);
        let outbox = self.with.disk.contents().scan(&range, usize::MAX, false);
        outbox.unwrap().entries.iter().all(|(_, value)| {
            OutboxEntry::decode(&value[..]).is_ok_and(|entry| entry.outcome() != Delivery::Pending)
        })
    }

    /// Scripts that wait for signals get them.
    fn push_on(&mut self) {
        let Some(door) = self.world.door() else {
            return;
        };
        let open: Vec<(Run, String)> = (self.observer.open())
            .filter(|(_, shadow)| shadow.state.workflow_type == script::TYPE)
            .map(|(run, shadow)| (run.clone(), shadow.state.workflow_id.clone()))
            .collect();
        for ((namespace, run_id), id) in open {
            let target = Target {
                namespace,
                workflow_id: WorkflowId::parse(&id).unwrap(),
                run_id: Some(run_id),
            };
            let signal = SignalWorkflow {
                name: script::SIGNAL.to_owned(),
                input: Some(script::text("push")),
                ..SignalWorkflow::default()
            };
            let handle = door.handle.clone();
            self.world.spawn(async move {
                let _ = handle
                    .request(target, Request::Signal(Box::new(signal)))
                    .await;
            });
        }
    }

    fn step(&mut self, faults: bool) -> Outcome<()> {
        self.steps += 1;
        self.executor.run();
        self.asked = self.with.model.look();
        self.arrived = self.with.receivers.look();
        let mut jump = None;
        if faults {
            let world = self.world.clone();
            let say = |what: String| world.say(|| what);
            match strike(&mut self.dice, &self.profile, &self.with.disk, say) {
                Strike::None => {}
                Strike::Kill { power } => self.kill(power)?,
                Strike::Flip(key) => self.observer.damaged(&key),
                Strike::Jump(seconds) => jump = Some(Duration::from_secs(seconds)),
            }
        }
        let worked = self.engine()?;
        self.undead()?;
        self.executor.run();
        self.look()?;
        if let Some(by) = jump {
            self.world.say(|| format!("the clock jumps by {by:?}"));
            self.pass(self.world.now().plus(by));
        } else if !worked || self.dice.roll(8) == 0 {
            self.time_passes();
        }
        Ok(())
    }

    /// The engine takes some calls and commits, or starts. Answers whether there was something to do.
    fn engine(&mut self) -> Outcome<bool> {
        let now = self.world.now();
        if self.life.is_none() {
            if self.begin_at > now {
                return Ok(false);
            }
            self.begin()?;
            return Ok(true);
        }
        let life = self.life.as_mut().unwrap();
        let max = match self.dice.roll(3) {
            0 => 1,
            1 => 1 + self.dice.roll(6) as usize,
            _ => usize::MAX,
        };
        let calls: Vec<Call> = life.calls.try_iter().take(max).collect();
        let is_due = life.core.idle_for(now) == Some(Duration::ZERO);
        if calls.is_empty() && !is_due {
            return Ok(false);
        }
        self.round(calls)?;
        Ok(true)
    }

    fn round(&mut self, calls: Vec<Call>) -> Outcome<()> {
        let now = self.world.now();
        let Some(life) = &mut self.life else {
            return Ok(());
        };
        let round = catch_unwind(AssertUnwindSafe(|| {
            life.core.round(now, calls.into_iter());
        }));
        match round {
            Ok(()) => Ok(()),
            Err(cause) if cause.is::<Killed>() => {
                let power = self.dice.roll(2) == 0;
                self.kill(power)?;
                self.zombie = None; // It ended in the middle of something.
                Ok(())
            }
            Err(cause) => Err(("no_panic", quiet::text(&*cause))),
        }
    }

    /// The process is gone, wherever it stood.
    fn kill(&mut self, power: bool) -> Outcome<()> {
        let Some(life) = self.life.take() else {
            return Ok(());
        };
        self.world
            .say(|| format!("life {} ends, power cut: {power}", life.number));
        *self.world.door.borrow_mut() = None;
        self.executor.end(Owner::Process(life.number));
        // A kill does not take back what was written; a power cut does.
        let lost = power && self.with.disk.cut_power();
        if !power && self.dice.roll(2) == 0 {
            self.zombie = Some(life);
        }
        if self.dice.per_mille(self.profile.lost_indexes) && !lost && !self.indexes_lost {
            self.look()?;
            self.world.say(|| "the indexes are lost".to_owned());
            self.with.disk.contents().drop_indexes().unwrap();
            self.indexes_lost = true;
        } else if lost && !self.indexes_lost {
            self.anew()?;
        }
        let pause = match self.dice.roll(4) {
            0 => self.dice.roll(120_000),
            _ => self.dice.roll(2_000),
        };
        self.begin_at = self.world.now().plus(Duration::from_millis(pause));
        Ok(())
    }

    /// The disk is opened anew. The commit in which it broke may turn up: whoever was told no about it cannot know.
    fn open_anew(&mut self) {
        // Indexes that were dropped were so behind it.
        let turns_up = self.dice.roll(2) == 0 && !self.indexes_lost;
        let Some(batch) = self.with.disk.open_anew(turns_up) else {
            return;
        };
        self.world
            .say(|| "a commit turns up that had failed".to_owned());
        let mut ledger = self.world.ledger.borrow_mut();
        for op in batch.shards.iter().flat_map(|write| &write.ops) {
            if let Op::Put(_, value) = op {
                for mark in ledger::marks_in(value) {
                    ledger.settled(&mark, false);
                }
            }
        }
    }

    fn begin(&mut self) -> Outcome<()> {
        self.lives += 1;
        self.contested = false;
        self.open_anew();
        let (number, seed) = (self.lives, self.dice.seed());
        let healthy = !self.with.disk.is_armed();
        let begun = catch_unwind(AssertUnwindSafe(|| {
            Life::begin(&self.world, &self.with, number, seed)
        }));
        let again = self.world.now().plus(Duration::from_millis(500));
        match begun {
            Ok(Ok(life)) => {
                self.world.say(|| format!("life {number} begins"));
                self.life = Some(life);
                if std::mem::take(&mut self.indexes_lost) {
                    self.anew()?;
                }
                self.look()?;
                self.restarted = healthy;
                self.check(
                    |invariant, view| invariant.of_everything(view),
                    &News::default(),
                    &[],
                )?;
                self.restarted = false;
                Ok(())
            }
            Ok(Err(error)) => {
                self.world
                    .say(|| format!("life {number} does not begin: {error}"));
                self.executor.end(Owner::Process(number));
                self.begin_at = again;
                Ok(())
            }
            Err(cause) if cause.is::<Killed>() => {
                self.world
                    .say(|| format!("life {number} ends at its beginning"));
                self.executor.end(Owner::Process(number));
                *self.world.door.borrow_mut() = None;
                self.begin_at = again;
                if self.dice.roll(2) == 0 && self.with.disk.cut_power() && !self.indexes_lost {
                    self.anew()?;
                }
                Ok(())
            }
            Err(cause) => Err(("no_panic", quiet::text(&*cause))),
        }
    }

    /// An engine that was believed dead goes on for a moment: its shards are another's by now.
    fn undead(&mut self) -> Outcome<()> {
        let Some(mut zombie) = self.zombie.take() else {
            return Ok(());
        };
        if self.life.is_none() {
            self.zombie = Some(zombie);
            return Ok(());
        }
        self.contested = true;
        self.world
            .say(|| format!("life {} is not dead", zombie.number));
        // What the other's services have it may take back, and whoever gets it then has it rightly.
        let mut ledger = self.world.ledger.borrow_mut();
        ledger.holders.retain(|_, held| held.session.is_none());
        drop(ledger);
        let now = self.world.now();
        // What its own workers put is theirs alone: they ended with it.
        let asked = zombie.calls.try_iter();
        let calls: Vec<Call> = asked
            .filter(|call| !matches!(call, Call::Put { .. }))
            .collect();
        let round = catch_unwind(AssertUnwindSafe(|| {
            zombie.core.round(now, calls.into_iter());
        }));
        match round {
            Ok(()) => {
                if self.dice.roll(6) > 0 {
                    self.zombie = Some(zombie);
                }
                Ok(())
            }
            Err(cause) if cause.is::<Killed>() => Ok(()),
            Err(cause) => Err(("no_panic", quiet::text(&*cause))),
        }
    }

    fn time_passes(&mut self) {
        let now = self.world.now();
        let engine = match &self.life {
            Some(life) => life.core.idle_for(now).map(|idle| now.plus(idle)),
            None => Some(self.begin_at),
        };
        let next = [self.sleeps.next(), engine].into_iter().flatten().min();
        let late = match self.dice.roll(3) {
            0 => Duration::from_millis(self.dice.roll(50)),
            _ => Duration::from_nanos(self.dice.roll(1_000_000)),
        };
        let next = next.unwrap_or(now).max(now);
        self.pass(next.plus(late));
    }

    fn pass(&mut self, to: Timestamp) {
        let by = to.since(self.world.now());
        self.world.clock.advance(by);
        self.sleeps.advance_to(to);
    }

    /// Everything that became visible is folded, and every invariant is asked; now and then the engine as well, what it holds.
    fn look(&mut self) -> Outcome<()> {
        let touched = self.fold(Vec::new())?;
        // An engine whose shards another took over does not know it before its next commit.
        if self.dice.roll(3) > 0 || self.with.disk.is_armed() || self.contested {
            return Ok(());
        }
        let held = self.inspect(&touched)?;
        self.fold(held).map(|_| ())
    }

    /// Answers the runs that changed.
    fn fold(&mut self, held: Vec<(Run, MutableState)>) -> Outcome<BTreeSet<Run>> {
        let written = self.with.disk.look();
        if self.indexes_lost {
            return Ok(BTreeSet::new()); // Until they are whole again, everything is looked at anew.
        }
        let mut news = News::default();
        for commit in &written {
            for op in commit.batch.shards.iter().flat_map(|write| &write.ops) {
                self.observer
                    .see(self.with.disk.contents(), op.clone(), &mut news)
                    .map_err(|what| ("replay", what))?;
            }
        }
        // What came in the round of the question itself is newer than its answer.
        self.held = held;
        self.held.retain(|(run, _)| !news.touched.contains(run));
        self.check(
            |invariant, view| invariant.after_step(view),
            &news,
            &written,
        )?;
        self.held.clear();
        Ok(news.touched)
    }

    /// Everything is looked at anew: the disk is not what it was.
    fn anew(&mut self) -> Outcome<()> {
        self.with.disk.look();
        let news = self
            .observer
            .begin_again(self.with.disk.contents())
            .map_err(|what| ("replay", what))?;
        for invariant in &mut self.invariants {
            invariant.begin_again();
        }
        self.check(|invariant, view| invariant.after_step(view), &news, &[])
    }

    /// Some of the runs that a step touched, as the engine has them.
    fn inspect(&mut self, touched: &BTreeSet<Run>) -> Outcome<Vec<(Run, MutableState)>> {
        let runs: Vec<(Run, String)> = (touched.iter().take(2))
            .filter_map(|run| {
                let shadow = self.observer.runs.get(run)?;
                Some((run.clone(), shadow.state.workflow_id.clone()))
            })
            .collect();
        let mut held = Vec::new();
        for (run, id) in runs {
            let Ok(workflow_id) = WorkflowId::parse(&id) else {
                continue;
            };
            let (reply, mut answer) = oneshot::channel();
            let target = Target {
                namespace: run.0.clone(),
                workflow_id,
                run_id: Some(run.1),
            };
            held.clear(); // The round of this question may change the run of the last.
            self.round(vec![Call::Inspect { target, reply }])?;
            if let Ok(Ok(state)) = answer.try_recv() {
                held.push((run, *state));
            }
        }
        Ok(held)
    }

    fn check(
        &mut self,
        ask: impl Fn(&mut dyn Invariant, &View<'_>) -> invariants::Check,
        news: &News,
        written: &[Written],
    ) -> Outcome<()> {
        let mut ledger = self.world.ledger.borrow_mut();
        if let Some((invariant, what)) = ledger.complaints.pop() {
            return Err((invariant, what));
        }
        let told = std::mem::take(&mut ledger.news);
        let view = View {
            observer: &self.observer,
            ledger: &ledger,
            news,
            written,
            told: &told,
            held: &self.held,
            asked: &self.asked,
            arrived: &self.arrived,
            restarted: self.restarted,
            now: self.world.now(),
            retention: self.world.retention.get(),
            calm_since: self.calm_since,
        };
        for invariant in &mut self.invariants {
            ask(&mut **invariant, &view).map_err(|what| (invariant.name(), what))?;
        }
        self.asked.clear();
        self.arrived.clear();
        Ok(())
    }

    /// The journals of the runs that a text names.
    fn journals(&self, text: &str) -> String {
        let words: Vec<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || "/.-".contains(c)))
            .collect();
        let named = self.observer.runs.iter().filter(|(run, shadow)| {
            words.contains(&shadow.state.workflow_id.as_str())
                || words.contains(&run.1.to_string().as_str())
        });
        let stories = named.map(|((namespace, run_id), shadow)| {
            let records = shadow.records.iter().map(|record| {
                let seconds = Timestamp(record.at()).since(EPOCH).as_secs_f64();
                let number = record.event().map_or(0, |event| event.event_id);
                format!("{seconds:>10.3} {number:>4} {}", record.type_name())
            });
            let mut lines: Vec<String> = records.collect();
            if lines.len() > 2 * JOURNAL_LINES {
                let left_out = lines.len() - 2 * JOURNAL_LINES;
                let note = format!("           ... {left_out} more");
                lines.splice(JOURNAL_LINES..lines.len() - JOURNAL_LINES, [note]);
            }
            let id = &shadow.state.workflow_id;
            format!("{id} of {namespace}, run {run_id}:\n{}", lines.join("\n"))
        });
        stories.collect::<Vec<_>>().join("\n")
    }

    fn report(&self) -> Report {
        let runs = || self.observer.runs.values();
        let records = runs().flat_map(|shadow| &shadow.records);
        let records_of_failures = self.observer.compensations.values();
        Report {
            digest: self.observer.digest(),
            steps: self.steps,
            commits: self.with.disk.commits(),
            lives: self.lives,
            seen: records.map(|record| record.type_name()).collect(),
            left: runs().filter(|shadow| shadow.left).count(),
            retries: records_of_failures.map(|record| record.retries.len()).sum(),
            cached: runs().filter(|shadow| cached::is_cached(shadow)).count(),
        }
    }
}
