//! Runs the world's actors, and the engine's own workers, on one thread and in an order that the seed decides.
//!
//! Invariant: a future is polled when something woke it; of those that are awake, dice choose, so that the order in which something woke
//! them (the drop of a hash map, say) has no part in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::dice::Dice;

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// Who a future belongs to: those of one owner end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The world outside.
    Outside,
    /// The engine's process of this number.
    Process(u64),
}

#[derive(Default)]
struct Woken(Mutex<BTreeSet<u64>>);

impl Woken {
    fn all(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_one(&self, dice: &mut Dice) -> Option<u64> {
        let mut all = self.all();
        let place = dice.roll(all.len() as u64) as usize;
        let id = all.iter().nth(place).copied()?;
        all.remove(&id);
        Some(id)
    }
}

struct Bell {
    id: u64,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.woken.all().insert(self.id);
    }
}

struct Task {
    owner: Owner,
    future: Boxed,
    bell: Arc<Bell>,
}

/// Futures may be handed to it from within futures.
#[derive(Clone, Default)]
pub struct Spawner(Rc<RefCell<Vec<(Owner, Boxed)>>>);

impl Spawner {
    /// Runs a future beside the others.
    pub fn spawn(&self, owner: Owner, future: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push((owner, Box::pin(future)));
    }
}

/// All futures of a world.
pub struct Executor {
    tasks: BTreeMap<u64, Task>,
    next: u64,
    woken: Arc<Woken>,
    spawner: Spawner,
    dice: Dice,
}

impl Executor {
    /// Nobody is there yet; the seed decides who goes first.
    pub fn new(seed: u64) -> Self {
        Self {
            tasks: BTreeMap::new(),
            next: 0,
            woken: Arc::default(),
            spawner: Spawner::default(),
            dice: Dice::new(seed),
        }
    }

    /// Where futures are handed in.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    fn take_in(&mut self) {
        for (owner, future) in self.spawner.0.take() {
            let bell = Arc::new(Bell {
                id: self.next,
                woken: self.woken.clone(),
            });
            self.woken.all().insert(self.next);
            self.tasks.insert(
                self.next,
                Task {
                    owner,
                    future,
                    bell,
                },
            );
            self.next += 1;
        }
    }

    /// Polls until everybody waits. Answers how often somebody was polled.
    pub fn run(&mut self) -> usize {
        let mut polls = 0;
        loop {
            self.take_in();
            let Some(id) = self.woken.take_one(&mut self.dice) else {
                return polls;
            };
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            let waker = Waker::from(task.bell.clone());
            polls += 1;
            if let Poll::Ready(()) = task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.tasks.remove(&id);
            }
        }
    }

    /// Everything of an owner is gone, wherever it stood.
    pub fn end(&mut self, owner: Owner) {
        self.take_in();
        // Dropped outside the map: a future's end may wake another.
        let gone: Vec<u64> = (self.tasks.iter())
            .filter(|(_, task)| task.owner == owner)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            drop(self.tasks.remove(&id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futures_run_when_they_are_woken_and_end_with_their_owner() {
        let mut executor = Executor::new(7);
        let said = Rc::new(RefCell::new(Vec::new()));
        let (wake, woken) = tokio::sync::oneshot::channel();
        let say = |text: &'static str| {
            let said = said.clone();
            move || said.borrow_mut().push(text)
        };
        let (first, second) = (say("first"), say("second"));
        executor.spawner().spawn(Owner::Outside, async move {
            let _ = woken.await;
            first();
        });
        let spawner = executor.spawner();
        executor.spawner().spawn(Owner::Outside, async move {
            second();
            spawner.spawn(Owner::Process(1), std::future::pending());
            let _ = wake.send(());
        });
        assert!(executor.run() >= 3);
        assert_eq!(*said.borrow(), ["second", "first"]);
        assert_eq!(executor.tasks.len(), 1);
        executor.end(Owner::Process(1));
        assert_eq!(executor.tasks.len(), 0);
    }
}
