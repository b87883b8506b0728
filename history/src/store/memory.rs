//! The store in memory: the oracle that every other store is compared with, and the simulator's disk.
//!
//! A clone shares the contents, so an engine that "crashes" and starts again on a clone finds exactly
//! what was committed.
//!
//! Invariant: it reads and writes nothing outside itself, so equal calls give equal answers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::{Batch, Family, Key, KeyRange, Op, Page, Store, StoreError, StoreErrorKind, admit};
use crate::ids::{RangeId, ShardId};

/// A [`Store`] in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

/// Everything a [`MemoryStore`] held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySnapshot(Contents);

/// Encoded keys to values, by family.
type Contents = [BTreeMap<Vec<u8>, Bytes>; Family::ALL.len()];

#[derive(Debug, Default)]
struct State {
    contents: Contents,
    commits: u64,
    fail_next_commit: Option<StoreErrorKind>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next commit that would write something fail with this kind, and write nothing.
    pub fn fail_next_commit(&self, kind: StoreErrorKind) {
        self.state().fail_next_commit = Some(kind);
    }

    /// How many commits have written something since the store was made.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// A copy of the contents. Later writes do not touch it.
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.state().contents.clone())
    }

    /// Puts the contents back to what they were, range ids included.
    pub fn restore(&self, snapshot: &MemorySnapshot) {
        self.state().contents = snapshot.0.clone();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no call panics while it holds the lock")
    }
}

impl State {
    fn family(&mut self, family: Family) -> &mut BTreeMap<Vec<u8>, Bytes> {
        &mut self.contents[family as usize]
    }

    fn held(&mut self, shard: ShardId) -> Option<RangeId> {
        let value = self
            .family(Family::Meta)
            .get(&Key::ShardInfo { shard }.encode())?;
        Some(RangeId(u64::from_be_bytes(
            value[..].try_into().expect("acquire writes 8 bytes"),
        )))
    }
}

impl Store for MemoryStore {
    fn acquire(&self, shard: ShardId) -> Result<RangeId, StoreError> {
        let mut state = self.state();
        let range = RangeId(state.held(shard).map_or(1, |held| held.0 + 1));
        let value = Bytes::copy_from_slice(&range.0.to_be_bytes());
        state
            .family(Family::Meta)
            .insert(Key::ShardInfo { shard }.encode(), value);
        Ok(range)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut state = self.state();
        for write in &batch.shards {
            admit(write, state.held(write.shard))?;
        }
        if batch.shards.iter().all(|write| write.ops.is_empty()) {
            return Ok(());
        }
        if let Some(kind) = state.fail_next_commit.take() {
            return Err(StoreError::new(
                kind,
                "commit",
                "the test asked for this failure",
            ));
        }
        for op in batch.shards.iter().flat_map(|write| &write.ops) {
            match op {
                Op::Put(key, value) => {
                    state
                        .family(key.family())
                        .insert(key.encode(), value.clone());
                }
                Op::Delete(key) => {
                    state.family(key.family()).remove(&key.encode());
                }
            }
        }
        state.commits += 1;
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .state()
            .family(key.family())
            .get(&key.encode())
            .cloned())
    }

    fn scan(&self, range: &KeyRange, limit: usize, backwards: bool) -> Result<Page, StoreError> {
        if range.is_empty() {
            return Ok(Page::default());
        }
        let mut state = self.state();
        let bounds = (
            Bound::Included(range.from.as_slice()),
            Bound::Excluded(range.until.as_slice()),
        );
        let mut rows = state.family(range.family).range::<[u8], _>(bounds);
        let mut page = Page::default();
        loop {
            let row = if backwards {
                rows.next_back()
            } else {
                rows.next()
            };
            let Some((bytes, value)) = row else { break };
            if page.entries.len() == limit {
                page.more = true;
                break;
            }
            let key = Key::decode(range.family, bytes).expect("only encoded keys are inserted");
            page.entries.push((key, value.clone()));
        }
        Ok(page)
    }

    fn drop_indexes(&self) -> Result<(), StoreError> {
        self.state().family(Family::Index).clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Namespace;
    use crate::store::ShardWrite;

    const SHARD: ShardId = ShardId(0);

    fn key(id: &str) -> Key {
        Key::Outbox {
            shard: SHARD,
            namespace: Namespace::parse("ns").unwrap(),
            event_id: id.to_owned(),
        }
    }

    fn put(range: RangeId, id: &str) -> Batch {
        let ops = vec![Op::Put(key(id), Bytes::from_static(b"value"))];
        Batch {
            shards: vec![ShardWrite {
                shard: SHARD,
                range,
                ops,
            }],
        }
    }

    #[test]
    fn a_failure_asked_for_writes_nothing_and_happens_once() {
        let store = MemoryStore::new();
        let range = store.acquire(SHARD).unwrap();
        store.fail_next_commit(StoreErrorKind::Full);
        store.commit(&Batch::default()).unwrap();
        assert_eq!(
            store.commit(&put(range, "a")).unwrap_err().kind,
            StoreErrorKind::Full
        );
        assert_eq!(store.get(&key("a")), Ok(None));
        assert_eq!(store.commits(), 0);
        store.commit(&put(range, "a")).unwrap();
        assert_eq!(store.commits(), 1);
    }

    #[test]
    fn a_clone_shares_and_a_snapshot_does_not() {
        let store = MemoryStore::new();
        let range = store.acquire(SHARD).unwrap();
        store.commit(&put(range, "a")).unwrap();
        let before = store.snapshot();
        let restarted = store.clone();
        drop(store);
        let later = restarted.acquire(SHARD).unwrap();
        restarted.commit(&put(later, "b")).unwrap();
        assert!(restarted.get(&key("a")).unwrap().is_some());
        assert_ne!(restarted.snapshot(), before);
        restarted.restore(&before);
        assert_eq!(restarted.snapshot(), before);
        assert_eq!(restarted.get(&key("b")), Ok(None));
        restarted.commit(&put(range, "c")).unwrap();
    }
}
