//! What everybody in a world shares: the clock, the dice, the door to the engine while there is one, and the ledger.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use orchestrion::compensations::Compensations;
use orchestrion::engine::{CallError, Handle};
use orchestrion::plan_cache::PlanCache;
use orchestrion::registry::Registrar;
use orchestrion::seams::{self, Clock, ManualClock};
use orchestrion_history::ids::{Namespace, Timestamp};

use super::dice::Dice;
use super::executor::{Owner, Spawner};
use super::ledger::{Ledger, is_refusal};

/// When every world begins.
pub const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000_000);
/// A tenant of the world.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub namespace: Namespace,
    /// Its services: id and name.
    pub services: Vec<(String, String)>,
}

/// The door to the engine that runs now.
#[derive(Clone)]
pub struct Door {
    /// The engine.
    pub handle: Handle,
    /// What people decide about compensations that failed.
    pub compensations: Compensations,
    /// Where services are registered.
    pub registrar: Registrar,
    /// Plans that were made before.
    pub plans: PlanCache,
    /// Which life of the engine it is.
    pub life: u64,
}

/// What everybody shares.
pub struct Shared {
    /// Chance of the world outside.
    pub dice: RefCell<Dice>,
    /// The virtual clock.
    pub clock: ManualClock,
    /// None while the engine is down.
    pub door: RefCell<Option<Door>>,
    /// What those outside know.
    pub ledger: RefCell<Ledger>,
    /// Whether anything still goes wrong.
    pub faults: Cell<bool>,
    /// Whether callers still ask.
    pub asking: Cell<bool>,
    /// How long closed runs are kept.
    pub retention: Cell<Duration>,
    /// Runs futures beside the others.
    pub spawner: Spawner,
    /// Who there is.
    pub tenants: RefCell<Vec<Tenant>>,
    story: RefCell<VecDeque<String>>,
    story_lines_max: Cell<usize>,
}

/// Shared by everybody.
pub type World = Rc<Shared>;

/// Why a call from outside has no result.
#[derive(Debug, Clone)]
pub enum Missed {
    /// The engine said so.
    Said(CallError),
    /// Nobody was there: nothing was asked.
    Unreachable,
    /// The answer got lost, or the question: who knows.
    Lost,
}

impl Shared {
    /// A world in which nothing has happened.
    pub fn new(seed: u64, spawner: Spawner) -> World {
        Rc::new(Self {
            dice: RefCell::new(Dice::new(seed)),
            clock: ManualClock::at(EPOCH),
            door: RefCell::default(),
            ledger: RefCell::default(),
            faults: Cell::new(true),
            asking: Cell::new(true),
            retention: Cell::new(Duration::MAX),
            spawner,
            tenants: RefCell::default(),
            story: RefCell::default(),
            story_lines_max: Cell::new(0),
        })
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A number below `sides`.
    pub fn roll(&self, sides: u64) -> u64 {
        self.dice.borrow_mut().roll(sides)
    }

    /// Whether something goes wrong that does so often in a thousand times.
    pub fn mishap(&self, per_mille: u64) -> bool {
        self.faults.get() && self.dice.borrow_mut().per_mille(per_mille)
    }

    /// Waits up to so many milliseconds.
    pub async fn pause(&self, ms_max: u64) {
        let ms = 1 + self.roll(ms_max);
        seams::sleep(Duration::from_millis(ms)).await;
    }

    /// So many lines of the story are kept.
    pub fn remember(&self, lines_max: usize) {
        self.story_lines_max.set(lines_max);
    }

    /// Notes something for people.
    pub fn say(&self, what: impl FnOnce() -> String) {
        let mut story = self.story.borrow_mut();
        while story.len() >= self.story_lines_max.get().max(1) {
            story.pop_front();
        }
        let seconds = self.now().since(EPOCH).as_secs_f64();
        story.push_back(format!("{seconds:>10.3} {}", what()));
    }

    /// The last part of what happened.
    pub fn story(&self) -> String {
        Vec::from(self.story.borrow().clone()).join("\n")
    }

    /// Runs a future of the world outside.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.spawner.spawn(Owner::Outside, future);
    }

    /// The engine's door, if it is up.
    pub fn door(&self) -> Option<Door> {
        self.door.borrow().clone()
    }

    /// The engine's door, as soon as it is up.
    pub async fn open_door(&self) -> Door {
        loop {
            if let Some(door) = self.door() {
                return door;
            }
            self.pause(200).await;
        }
    }

    /// Who complains, of what.
    pub fn complain(&self, invariant: &'static str, what: String) {
        self.ledger.borrow_mut().complain(invariant, what);
    }

    /// Asks the engine over a network that is late, loses questions and answers, and asks twice.
    pub async fn call<T, F>(&self, ask: impl Fn(Handle) -> F) -> Result<T, Missed>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        const PATIENCE: Duration = Duration::from_secs(40);
        if self.roll(4) == 0 {
            self.pause(if self.mishap(30) { 8_000 } else { 20 }).await;
        }
        if self.mishap(10) {
            self.pause(1_000).await;
            return Err(Missed::Unreachable);
        }
        let Some(door) = self.door() else {
            return Err(Missed::Unreachable);
        };
        let twice = self.mishap(15);
        let answer = match seams::timeout(PATIENCE, ask(door.handle.clone())).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(Missed::Said(error)),
            None => Err(Missed::Lost),
        };
        if let Err(Missed::Said(CallError::Quarantined { workflow_id, .. })) = &answer {
            let mut ledger = self.ledger.borrow_mut();
            ledger.quarantined.insert(workflow_id.clone());
        }
        if twice && let Some(door) = self.door() {
            // A second copy was under way; its answer says nothing but that it may have been taken.
            let second = seams::timeout(PATIENCE, ask(door.handle)).await;
            let refused = matches!(&second, Some(Err(error)) if is_refusal(error));
            if !refused && answer.is_err() {
                return Err(Missed::Lost);
            }
        }
        if self.mishap(15) {
            return Err(Missed::Lost);
        }
        answer
    }
}
