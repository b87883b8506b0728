//! The store contract: what the engine asks of whatever keeps its truth.
//!
//! A store is an ordered map of [`Key`] to bytes with four calls: take over a shard, commit one
//! atomic synced batch, get, scan. It is small so that a distributed store fits behind it: each batch names the
//! shards it writes and the range id under which their owner holds them, and a store refuses an older
//! one.
//!
//! Invariant: after `commit` answers `Ok`, the batch is durable and visible as a whole; after an
//! error none of it is.

mod entry;
mod keys;
mod memory;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use std::fmt;

use bytes::Bytes;

pub use self::entry::{entry_ops, read_entry};
pub use self::keys::{Family, InvalidKey, Key, KeyRange, LineOf, QueueKind, RegistryKind};
pub use self::memory::{MemorySnapshot, MemoryStore};
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::{RocksStore, RocksStoreOptions};
use crate::ids::{RangeId, ShardId};

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the key to the value.
    Put(Key, Bytes),
    /// Removes the key; one that is not there is no error.
    Delete(Key),
}

/// What one commit writes: for each shard its fencing number and its operations, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The shards that take part. Every key in `ops` belongs to the shard beside it.
    pub shards: Vec<ShardWrite>,
}

/// The part of a [`Batch`] that one shard owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardWrite {
    /// The shard.
    pub shard: ShardId,
    /// The number its owner got from [`Store::acquire`].
    pub range: RangeId,
    /// Applied in this order.
    pub ops: Vec<Op>,
}

/// A page of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in the order asked for.
    pub entries: Vec<(Key, Bytes)>,
    /// Whether the range holds more behind the last entry.
    pub more: bool,
}

/// Keeps the truth and its indexes.
pub trait Store: Send + Sync + 'static {
    /// Takes over a shard: raises its range id durably and returns it. Whoever held it before is fenced off.
    fn acquire(&self, shard: ShardId) -> Result<RangeId, StoreError>;

    /// Writes the batch atomically and synced, or not at all. An empty batch writes nothing.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// The value of one key.
    fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` entries of a range, in key order, or backwards.
    fn scan(&self, range: &KeyRange, limit: usize, backwards: bool) -> Result<Page, StoreError>;

    /// Nothing will be asked of it for a while: memory that only makes the newest quick to find may be given up. Decides nothing.
    fn rest(&self) {}

    /// Drops every index family (queues, timers, visibility, snapshots); the engine rebuilds them from the truth.
    fn drop_indexes(&self) -> Result<(), StoreError>;
}

/// What went wrong, and whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// Another owner has the shard now. Permanent for this owner.
    Fenced,
    /// The disk is full. Nothing was written; it can work again once there is room.
    Full,
    /// What was read is not what was written. Permanent.
    Corrupt,
    /// The data folder is in use by another process, or was laid out by a version this one cannot open.
    Refused,
    /// Anything else the disk or the network did; may pass.
    Unavailable,
}

/// A failed store call: kind, operation, key and source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store {operation} failed{}: {message}", key.as_ref().map(|k| format!(" at {k}")).unwrap_or_default())]
pub struct StoreError {
    /// What it means.
    pub kind: StoreErrorKind,
    /// The call: acquire, commit, get, scan, open.
    pub operation: &'static str,
    /// The key, readable, where one is concerned.
    pub key: Option<String>,
    /// What happened and what to do.
    pub message: String,
}

impl StoreError {
    /// An error of a call as a whole.
    pub fn new(kind: StoreErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            key: None,
            message: message.into(),
        }
    }

    /// The same error, with the key or the range it is about.
    #[must_use]
    pub fn at(mut self, key: &impl fmt::Display) -> Self {
        self.key = Some(key.to_string());
        self
    }
}

/// The fence, the same in every store: refuses a write whose owner does not hold the shard under
/// `held`, or whose keys lie outside its shard. [`Family::Meta`] is the store's own.
fn admit(write: &ShardWrite, held: Option<RangeId>) -> Result<(), StoreError> {
    let fenced = |message| StoreError::new(StoreErrorKind::Fenced, "commit", message);
    if held != Some(write.range) {
        let held = held.map_or("nobody".to_owned(), |range| format!("range {}", range.0));
        return Err(fenced(format!(
            "shard {} is held by {held}, this write carries range {}: acquire the shard and decide again",
            write.shard.0, write.range.0
        )));
    }
    for op in &write.ops {
        let (Op::Put(key, _) | Op::Delete(key)) = op;
        if key.shard() != Some(write.shard) || key.family() == Family::Meta {
            let message = format!(
                "the key is not shard {}'s to write: fix the caller",
                write.shard.0
            );
            return Err(fenced(message).at(key));
        }
    }
    Ok(())
}
