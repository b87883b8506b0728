//! The engine: one loop over an inbox, one synced commit a round.
//!
//! ```text
//!  inbox --drain--> round: for each call: load, decide, apply, collect          (core/, builtin.rs)
//!                     |    tasks meet pollers, and their starts join the round  (matching/)
//!                     v
//!                   store.commit (one atomic, synced batch)                     (round.rs)
//!                     |
//!                     '--> answers, tasks to workers, wake-ups: only now
//! ```
//!
//! One thread owns every shard: while it waits for the disk, calls gather, and the next round takes them all. Shards part the key
//! space, so that several processes can each own some.
//!
//! Invariant: nothing leaves before the batch it depends on is durable: no answer, no rejection, no task.
//! Invariant: when a commit fails, what it touched is forgotten and read again; nobody was told anything else.

pub mod call;
pub mod handle;
pub mod history;
pub mod journal;
pub mod polling;

mod builtin;
mod core;
mod matching;
mod names;
mod offline;
mod recovery;
mod removal;
mod retention;
mod round;
mod tail;
mod timers;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use orchestrion_history::ids::Namespace;
use orchestrion_history::limits::Limits;
use orchestrion_history::store::{Key, Store, StoreError};

use self::call::Call;
pub use self::core::Core;
pub use self::handle::{
    Accepted, CallError, Dispatch, Handle, Presence, Progress, Session, SessionId, Target,
};
pub use self::matching::{Described, Leaving, PollAnswer, Polled, Poller};
pub use self::tail::Tail;
use crate::orchestration::Effect;
use crate::seams::{Chance, Clock};
use crate::visibility::Catalogue;

/// What the engine asks of its surroundings when it commits.
pub trait Surroundings: Send + 'static {
    /// The outbox entries of an effect: keys of the registry shard and their values.
    fn outbox_entries(&self, namespace: &Namespace, effect: &Effect) -> Vec<(Key, Bytes)>;

    /// These entries are durable: deliver them.
    fn outbox_committed(&self, keys: Vec<Key>);

    /// What runs of a namespace can be searched by; `None` takes any name.
    fn catalogue(&self, _namespace: &Namespace) -> Option<Arc<Catalogue>> {
        None
    }

    /// How long closed runs of a namespace are kept.
    fn keep(&self, _namespace: &Namespace) -> Keep {
        Keep::AsSet
    }
}

/// How long closed runs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// As the engine's options say.
    AsSet,
    /// So long.
    For(Duration),
    /// Not at all, nor open ones: their namespace was deleted.
    Nothing,
}

/// Surroundings without webhooks.
#[derive(Debug, Default)]
pub struct NoSurroundings;

impl Surroundings for NoSurroundings {
    fn outbox_entries(&self, _namespace: &Namespace, _effect: &Effect) -> Vec<(Key, Bytes)> {
        Vec::new()
    }

    fn outbox_committed(&self, _keys: Vec<Key>) {}
}

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Parts of the key space. Fixed for the life of a data folder.
    pub shards: u16,
    /// Calls that may wait for the engine; more are answered `Busy`.
    pub inbox_calls_max: usize,
    /// Calls of one round.
    pub round_calls_max: usize,
    /// Executions kept in memory; the longest unused leave first.
    pub cached_executions_max: usize,
    /// Executions that nothing happened to for so long are kept on disk only.
    pub idle_after: Duration,
    /// A snapshot is written every so many records.
    pub snapshot_records: u64,
    /// What one run may hold.
    pub limits: Limits,
    /// How long a closed run is kept.
    pub retention: Duration,
    /// How often closed runs are looked for.
    pub retention_sweep: Duration,
    /// How long an attempt may wait without any worker before it is shown as waiting.
    pub waiting_mark: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            shards: 8,
            inbox_calls_max: 8_192,
            round_calls_max: 512,
            cached_executions_max: 10_000,
            idle_after: Duration::from_secs(2),
            snapshot_records: 1_000,
            limits: Limits::default(),
            retention: Duration::from_secs(7 * 24 * 3_600),
            retention_sweep: Duration::from_secs(600),
            waiting_mark: Duration::from_millis(500),
        }
    }
}

/// A running engine.
pub struct Engine {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Recovers what the store holds and starts the loop.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        chance: Box<dyn Chance>,
        surroundings: Box<dyn Surroundings>,
        options: EngineOptions,
    ) -> Result<Self, StoreError> {
        let (inbox, calls) = crossbeam_channel::bounded(options.inbox_calls_max);
        let handle = Handle {
            inbox,
            store: store.clone(),
            shards: options.shards,
        };
        let mut core = Core::recover(store, chance, surroundings, options, clock.now())?;
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let calls = Inbox(calls);
                run(&mut core, &calls.0, &*clock);
            })
            .map_err(|error| StoreError {
                kind: orchestrion_history::store::StoreErrorKind::Unavailable,
                operation: "start",
                key: None,
                message: format!("the engine's thread did not start: {error}"),
            })?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }

    /// The door.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Commits what was accepted, then stops. Running work goes on at the next start.
    pub fn stop(mut self) {
        // The loop may have ended by itself only after a panic, and then there is nothing to stop.
        let _ = self.handle.inbox.send(Call::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the engine's thread panicked; what it had committed is safe");
        }
    }
}

/// What arrives. A channel keeps what nobody has taken from it for as long as somebody could still send, so a caller whose call came behind
/// the stop would wait for ever: whatever is there at the end, or comes later, is dropped, and its caller told so.
struct Inbox(Receiver<Call>);

impl Drop for Inbox {
    fn drop(&mut self) {
        let calls = self.0.clone();
        let closed = std::thread::Builder::new().name("engine-closed".to_owned());
        if let Err(error) = closed.spawn(move || calls.into_iter().for_each(drop)) {
            tracing::warn!(%error, "callers that come behind the stop of the engine may wait in vain");
            self.0.try_iter().for_each(drop);
        }
    }
}

fn run(core: &mut Core, calls: &crossbeam_channel::Receiver<Call>, clock: &dyn Clock) {
    let max = core.round_calls_max();
    let mut batch = Vec::with_capacity(max);
    loop {
        let first = match core.idle_for(clock.now()) {
            Some(Duration::ZERO) => calls.try_recv().ok(),
            Some(wait) => match calls.recv_timeout(wait) {
                Ok(call) => Some(call),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            },
            None => match calls.recv() {
                Ok(call) => Some(call),
                Err(_) => return,
            },
        };
        batch.extend(first);
        while batch.len() < max {
            match calls.try_recv() {
                Ok(call) => batch.push(call),
                Err(_) => break,
            }
        }
        if core.round(clock.now(), batch.drain(..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use orchestrion_history::store::MemoryStore;

    use super::*;

    /// Neither a call that waits behind the stop nor one that comes after it is left without an answer.
    #[tokio::test]
    async fn nobody_waits_for_an_engine_that_has_ended() {
        let (handle, calls) = Handle::detached(Arc::new(MemoryStore::new()), 1, 8);
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.put(Vec::new()).await }
        });
        while calls.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(Inbox(calls));
        assert_eq!(waiting.await.unwrap(), Err(CallError::ShuttingDown));
        assert_eq!(handle.put(Vec::new()).await, Err(CallError::ShuttingDown));
    }
}
