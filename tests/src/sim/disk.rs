//! A disk under the memory store: it writes and then syncs, and between the two a process may end or the power may go. It fills up, refuses
//! now and then, and loses bits.
//!
//! ```text
//!  commit: refused? --write--> in the page cache --sync--> durable
//!             ^ killed here: nothing    ^ killed here: it is there; a power cut: it is not
//!                                                    ^ killed here: it is there, and nobody was told
//! ```
//!
//! Invariant: what a power cut takes back was never synced.

use std::collections::BTreeSet;
use std::panic::panic_any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use orchestrion_history::ids::{RangeId, ShardId};
use orchestrion_history::store::{
    Batch, Key, KeyRange, MemoryStore, Op, Page, ShardWrite, Store, StoreError, StoreErrorKind,
};

/// The process ends here: unwound to the world's loop, like a kill that nothing can catch.
#[derive(Debug, Clone, Copy)]
pub struct Killed;

/// Where in a commit the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillAt {
    /// Before anything is written.
    BeforeWrite,
    /// Written, not synced.
    BeforeSync,
    /// Synced, and nobody was told.
    AfterSync,
}

/// One commit as it became visible.
#[derive(Debug, Clone)]
pub struct Written {
    /// Who wrote, and what.
    pub batch: Batch,
    /// The range ids under which its shards were held at that moment.
    pub held: Vec<(ShardId, RangeId)>,
}

#[derive(Default)]
struct State {
    /// What takes back the commits that are not synced, newest last.
    unsynced: Vec<Op>,
    /// Commits that are visible and that nobody has looked at.
    written: Vec<Written>,
    held: Vec<RangeId>,
    refuse: Option<StoreErrorKind>,
    full: bool,
    unreadable: u32,
    kill: Option<KillAt>,
    damaged: BTreeSet<Vec<u8>>,
    break_down: bool,
    /// It takes nothing any more until it is opened anew, and this may turn up then.
    broken: Option<Batch>,
    commits: u64,
}

/// A store on a disk that can fail. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk {
    visible: MemoryStore,
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next commit is refused, and writes nothing.
    pub fn refuse_next(&self, kind: StoreErrorKind) {
        self.state().refuse = Some(kind);
    }

    /// From here on there is room, or none.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// So many reads fail from here on.
    pub fn set_unreadable(&self, reads: u32) {
        self.state().unreadable = reads;
    }

    /// The process ends in its next commit.
    pub fn kill_in_next_commit(&self, at: KillAt) {
        self.state().kill = Some(at);
    }

    /// The next commit fails in its middle, and so does everything that would be written before the next start; what became of that commit
    /// shows only then.
    pub fn break_in_next_commit(&self) {
        self.state().break_down = true;
    }

    /// Whether it takes nothing any more until it is opened anew.
    pub fn is_broken(&self) -> bool {
        self.state().broken.is_some()
    }

    /// It is opened anew: what is there is synced, as a store does that reads its log. The commit in which it broke is there, or it is not;
    /// answers what turned up.
    pub fn open_anew(&self, turns_up: bool) -> Option<Batch> {
        let broken = self.state().broken.take();
        let broken = broken.filter(|batch| turns_up && !batch.shards.is_empty());
        let found = broken.filter(|batch| self.write(batch).is_ok());
        self.sync();
        found
    }

    /// A bit of this value flips: the store notices whenever it reads it.
    pub fn damage(&self, key: &Key) {
        self.state().damaged.insert(key.encode());
    }

    /// The disk is well again; what is damaged stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.refuse, state.full, state.unreadable, state.kill) = (None, false, 0, None);
        state.break_down = false;
    }

    /// Whether a failure is still to come.
    pub fn is_armed(&self) -> bool {
        let state = self.state();
        state.refuse.is_some()
            || state.full
            || state.unreadable > 0
            || state.kill.is_some()
            || state.break_down
            || state.broken.is_some()
    }

    /// The power goes: what was not synced is not there any more. Answers whether anything was lost.
    pub fn cut_power(&self) -> bool {
        let (undo, held) = {
            let mut state = self.state();
            (std::mem::take(&mut state.unsynced), state.held.clone())
        };
        let lost = !undo.is_empty();
        for op in undo.into_iter().rev() {
            let (Op::Put(key, _) | Op::Delete(key)) = &op;
            let shard = key.shard().expect("only keys of shards are committed");
            let range = held[usize::from(shard.0)];
            let write = ShardWrite {
                shard,
                range,
                ops: vec![op],
            };
            let shards = vec![write];
            self.visible
                .commit(&Batch { shards })
                .expect("whoever held the shard last holds it");
        }
        if lost {
            let mut state = self.state();
            state.written.clear();
            // A log has no gaps: what came behind something that is lost is lost as well.
            if let Some(broken) = &mut state.broken {
                broken.shards.clear();
            }
        }
        lost
    }

    /// What became visible since the last look.
    pub fn look(&self) -> Vec<Written> {
        std::mem::take(&mut self.state().written)
    }

    /// The contents as they are, without any failure: for whoever looks at the disk from outside.
    pub fn contents(&self) -> &MemoryStore {
        &self.visible
    }

    /// Commits that wrote something.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let ops = || batch.shards.iter().flat_map(|write| &write.ops);
        let undo = ops().map(|op| {
            let (Op::Put(key, _) | Op::Delete(key)) = op;
            Ok(match self.visible.get(key)? {
                Some(old) => Op::Put(key.clone(), old),
                None => Op::Delete(key.clone()),
            })
        });
        let undo: Vec<Op> = undo.collect::<Result<_, StoreError>>()?;
        self.visible.commit(batch)?;
        let mut state = self.state();
        state.unsynced.extend(undo);
        let held = (batch.shards.iter())
            .filter_map(|write| {
                let range = state.held.get(usize::from(write.shard.0))?;
                Some((write.shard, *range))
            })
            .collect();
        let mut batch = batch.clone();
        // A round gathers in no order of its own; who looks wants one.
        batch.shards.sort_by_key(|write| write.shard);
        for write in &mut batch.shards {
            write.ops.sort_by_cached_key(|op| match op {
                Op::Put(key, _) | Op::Delete(key) => (key.family() as u8, key.encode()),
            });
        }
        state.written.push(Written { batch, held });
        state.commits += 1;
        Ok(())
    }

    fn works(&self, operation: &'static str) -> Result<(), StoreError> {
        match self.is_broken() {
            true => Err(StoreError::new(
                StoreErrorKind::Unavailable,
                operation,
                "the simulated disk is broken until it is opened anew",
            )),
            false => Ok(()),
        }
    }

    fn sync(&self) {
        self.state().unsynced.clear();
    }

    fn read(&self, operation: &'static str) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.unreadable == 0 {
            return Ok(());
        }
        state.unreadable -= 1;
        Err(StoreError::new(
            StoreErrorKind::Unavailable,
            operation,
            "the simulated disk does not answer",
        ))
    }

    fn whole(&self, operation: &'static str, key: &Key) -> Result<(), StoreError> {
        let state = self.state();
        if state.damaged.is_empty() || !state.damaged.contains(&key.encode()) {
            return Ok(());
        }
        let message = "the checksum of the simulated block is wrong";
        Err(StoreError::new(StoreErrorKind::Corrupt, operation, message).at(key))
    }
}

impl Store for SimDisk {
    fn acquire(&self, shard: ShardId) -> Result<RangeId, StoreError> {
        self.works("acquire")?;
        let range = self.visible.acquire(shard)?;
        let mut state = self.state();
        let place = usize::from(shard.0);
        if state.held.len() <= place {
            state.held.resize(place + 1, RangeId(0));
        }
        state.held[place] = range;
        Ok(range)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.shards.iter().all(|write| write.ops.is_empty()) {
            return self.visible.commit(batch);
        }
        self.works("commit")?;
        if std::mem::take(&mut self.state().break_down) {
            self.state().broken = Some(batch.clone());
            return self.works("commit");
        }
        let (refused, kill) = {
            let mut state = self.state();
            let full = state.full.then_some(StoreErrorKind::Full);
            (state.refuse.take().or(full), state.kill.take())
        };
        if let Some(kind) = refused {
            let message = "the simulated disk refuses";
            return Err(StoreError::new(kind, "commit", message));
        }
        if kill == Some(KillAt::BeforeWrite) {
            panic_any(Killed);
        }
        self.write(batch)?;
        if kill == Some(KillAt::BeforeSync) {
            panic_any(Killed);
        }
        self.sync();
        if kill == Some(KillAt::AfterSync) {
            panic_any(Killed);
        }
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.read("get")?;
        self.whole("get", key)?;
        self.visible.get(key)
    }

    fn scan(&self, range: &KeyRange, limit: usize, backwards: bool) -> Result<Page, StoreError> {
        self.read("scan")?;
        let page = self.visible.scan(range, limit, backwards)?;
        for (key, _) in &page.entries {
            self.whole("scan", key)?;
        }
        Ok(page)
    }

    fn drop_indexes(&self) -> Result<(), StoreError> {
        self.visible.drop_indexes()
    }
}
