//! Journal entries as a store keeps them: large payloads beside the entry, each once in its run.

use bytes::Bytes;

use super::{Key, Op, Store, StoreError, StoreErrorKind};
use crate::large::{self, Digest};
use crate::record::{self, Record};

/// What writes the records of one commit under their journal key: the entry, and the payloads too large for it that the run has not
/// stored yet.
pub fn entry_ops(store: &dyn Store, key: Key, records: &[Record]) -> Result<Vec<Op>, StoreError> {
    let Some((records, taken)) = large::take_out(records) else {
        return Ok(vec![Op::Put(key, record::encode_entry(records))]);
    };
    let references: Vec<Digest> = taken.iter().map(|(digest, _)| *digest).collect();
    let mut ops = Vec::with_capacity(1 + taken.len());
    for (digest, payload) in taken {
        let Some(payload_key) = payload_key(&key, digest) else {
            continue;
        };
        if store.get(&payload_key)?.is_none() {
            ops.push(Op::Put(payload_key, payload));
        }
    }
    ops.push(Op::Put(
        key,
        record::encode_entry_with(&records, &references),
    ));
    Ok(ops)
}

/// The records of a stored entry, whole.
pub fn read_entry(store: &dyn Store, key: &Key, entry: &[u8]) -> Result<Vec<Record>, StoreError> {
    let corrupt = |error: &dyn std::fmt::Display| {
        let message = format!("{error}; restore the data folder from a backup");
        StoreError::new(StoreErrorKind::Corrupt, "get", message).at(key)
    };
    let mut records = record::decode_entry(entry).map_err(|e| corrupt(&e))?;
    let references = record::references(entry).map_err(|e| corrupt(&e))?;
    if references.is_empty() {
        return Ok(records);
    }
    large::put_back(
        &mut records,
        &references,
        |digest| -> Result<Option<Bytes>, Unread> {
            match payload_key(key, *digest) {
                Some(key) => store.get(&key).map_err(Unread::Store),
                None => Ok(None),
            }
        },
    )
    .map_err(|error| match error {
        Unread::Store(error) => error,
        Unread::Missing(missing) => corrupt(&missing),
    })?;
    Ok(records)
}

enum Unread {
    Store(StoreError),
    Missing(large::Missing),
}

impl From<large::Missing> for Unread {
    fn from(missing: large::Missing) -> Self {
        Self::Missing(missing)
    }
}

fn payload_key(journal: &Key, digest: Digest) -> Option<Key> {
    match journal {
        Key::Journal {
            shard,
            namespace,
            run_id,
            ..
        } => Some(Key::Payload {
            shard: *shard,
            namespace: namespace.clone(),
            run_id: *run_id,
            digest,
        }),
        _ => None,
    }
}
