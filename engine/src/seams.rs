//! The doors to what is not deterministic: time, chance, other tasks. A simulator puts its own behind them.
//!
//! Invariant: `Instant::now`, `SystemTime::now` and `tokio::spawn` stand nowhere else in the engine (`tests/tests/tidy.rs` looks).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{Either, select};
use orchestrion_history::ids::Timestamp;
use rand::Rng;
use tokio::sync::oneshot;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now, nanoseconds since the Unix epoch; never goes backwards.
    fn now(&self) -> Timestamp;
}

/// The system's clock, kept from going backwards.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: AtomicI64,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX);
        Timestamp(self.latest.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

/// A clock that a test moves.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    now: Arc<AtomicI64>,
}

impl ManualClock {
    /// Starts at `at`.
    pub fn at(at: Timestamp) -> Self {
        Self {
            now: Arc::new(AtomicI64::new(at.0)),
        }
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(
            i64::try_from(by.as_nanos()).unwrap_or(i64::MAX),
            Ordering::Relaxed,
        );
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }
}

/// Gives bytes that nobody can guess.
pub trait Chance: Send + Sync + 'static {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// The operating system's random source, through a generator seeded by it.
#[derive(Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn fill(&self, buffer: &mut [u8]) {
        rand::rng().fill_bytes(buffer);
    }
}

/// A sequence that a seed fixes (splitmix64).
#[derive(Debug)]
pub struct SeededChance(AtomicU64);

impl SeededChance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Chance for SeededChance {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let mut z = self
                .0
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
                .wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Runs a future beside the caller.
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Runs a future beside the caller, for nobody who waits for it: in a simulation in its order, and as long as its process lives.
pub fn beside(future: impl Future<Output = ()> + Send + 'static) {
    let simulated = BESIDE.with_borrow(Clone::clone);
    match simulated {
        Some(run) => run(Box::pin(future)),
        None => _ = spawn(future),
    }
}

/// How a simulator's thread runs what [`beside`] is given.
pub type Beside = Rc<dyn Fn(Pin<Box<dyn Future<Output = ()>>>)>;

thread_local! {
    static BESIDE: RefCell<Option<Beside>> = const { RefCell::new(None) };
}

/// From here on every [`beside`] of this thread goes there; with none, it is a task again.
pub fn run_beside_with(run: Option<Beside>) {
    BESIDE.set(run);
}

/// Runs what may wait for the disk on a thread of its own.
pub fn blocking<T>(work: impl FnOnce() -> T + Send + 'static) -> tokio::task::JoinHandle<T>
where
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work)
}

/// Waits.
pub async fn sleep(duration: Duration) {
    let simulated = SLEEPS.with_borrow(|sleeps| sleeps.as_ref().map(|s| s.begin(duration)));
    match simulated {
        // A simulator that is gone wakes nobody.
        Some(over) => _ = over.await,
        None => tokio::time::sleep(duration).await,
    }
}

/// Waits for a future, but no longer than this.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(sleep(limit))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

thread_local! {
    static SLEEPS: RefCell<Option<VirtualSleeps>> = const { RefCell::new(None) };
}

/// The sleeps of a simulator's thread: they end when its clock is moved, and in the same order for the same calls.
#[derive(Clone, Default)]
pub struct VirtualSleeps(Rc<RefCell<Sleeping>>);

#[derive(Default)]
struct Sleeping {
    now: Timestamp,
    begun: u64,
    waiting: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
}

impl VirtualSleeps {
    /// Every [`sleep`] of this thread is one of these from here on.
    pub fn rule_this_thread(at: Timestamp) -> Self {
        let sleeps = Self::default();
        sleeps.0.borrow_mut().now = at;
        SLEEPS.set(Some(sleeps.clone()));
        sleeps
    }

    /// The time of day is the system's again.
    pub fn leave_this_thread() {
        SLEEPS.set(None);
    }

    fn begin(&self, duration: Duration) -> oneshot::Receiver<()> {
        let (wake, over) = oneshot::channel();
        let mut sleeping = self.0.borrow_mut();
        sleeping.begun += 1;
        let place = (sleeping.now.plus(duration), sleeping.begun);
        sleeping.waiting.insert(place, wake);
        over
    }

    /// When the next one that somebody waits for is over.
    pub fn next(&self) -> Option<Timestamp> {
        let mut sleeping = self.0.borrow_mut();
        sleeping.waiting.retain(|_, wake| !wake.is_closed());
        sleeping.waiting.keys().next().map(|(due, _)| *due)
    }

    /// It is `now`: wakes whom it concerns.
    pub fn advance_to(&self, now: Timestamp) {
        let mut sleeping = self.0.borrow_mut();
        sleeping.now = now;
        while let Some(first) = sleeping.waiting.first_entry()
            && first.key().0 <= now
        {
            // Whoever does not sleep any more was not waited for.
            let _ = first.remove().send(());
        }
    }
}
