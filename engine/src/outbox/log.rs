//! What came of each try: the last ones of every webhook, for the people at both ends.
//!
//! ```text
//!  try n of webhook w  --in the batch of its outcome--> slot w/(n mod DELIVERIES_PER_WEBHOOK_MAX)
//! ```
//!
//! Invariant: a webhook never holds more than [`DELIVERIES_PER_WEBHOOK_MAX`] tries: a new one takes the place of the oldest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId};
use orchestrion_history::store::{
    Key, KeyRange, Op, RegistryKind, Store, StoreError, StoreErrorKind,
};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::DeliveryTry;

/// Tries that are kept of one webhook.
pub const DELIVERIES_PER_WEBHOOK_MAX: u64 = 200;

/// Gives each try its slot. What it knows is found again in the store.
#[derive(Debug, Default)]
pub(super) struct DeliveryLog {
    next: Mutex<HashMap<(Namespace, String), u64>>,
}

impl DeliveryLog {
    /// The operation that notes a try; it belongs into the batch of its outcome.
    pub(super) fn note(
        &self,
        store: &dyn Store,
        namespace: &Namespace,
        mut tried: DeliveryTry,
    ) -> Result<Op, StoreError> {
        let webhook = (namespace.clone(), tried.webhook_id.clone());
        let known = self.lock().get(&webhook).copied();
        // Read without the lock: whoever else reads meanwhile finds the same.
        let found = match known {
            Some(next) => next,
            None => newest_first(store, namespace, &tried.webhook_id)?
                .first()
                .map_or(0, |last| last.sequence + 1),
        };
        let mut slots = self.lock();
        let next = slots.entry(webhook).or_insert(found);
        tried.sequence = *next;
        *next += 1;
        drop(slots);
        let key = Key::Registry {
            shard: ShardId::REGISTRY,
            namespace: namespace.clone(),
            kind: RegistryKind::Delivery,
            id: format!(
                "{}{:03}",
                prefix(&tried.webhook_id),
                tried.sequence % DELIVERIES_PER_WEBHOOK_MAX
            ),
        };
        Ok(Op::Put(key, Bytes::from(tried.encode_to_vec())))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Namespace, String), u64>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tries of a webhook that are kept, the newest first.
pub fn newest_first(
    store: &dyn Store,
    namespace: &Namespace,
    webhook_id: &str,
) -> Result<Vec<DeliveryTry>, StoreError> {
    let range = KeyRange::registry_prefix(
        ShardId::REGISTRY,
        namespace,
        RegistryKind::Delivery,
        &prefix(webhook_id),
    );
    let limit = usize::try_from(DELIVERIES_PER_WEBHOOK_MAX).unwrap_or(usize::MAX);
    let mut tries = Vec::new();
    for (key, value) in store.scan(&range, limit, false)?.entries {
        let tried = DeliveryTry::decode(value).map_err(|e| {
            let message =
                format!("the try does not decode: {e}; restore the data folder from a backup");
            StoreError::new(StoreErrorKind::Corrupt, "scan", message).at(&key)
        })?;
        tries.push(tried);
    }
    tries.sort_by_key(|tried| std::cmp::Reverse(tried.sequence));
    Ok(tries)
}

fn prefix(webhook_id: &str) -> String {
    format!("{webhook_id}/")
}

#[cfg(test)]
mod tests {
    use orchestrion_history::store::{Batch, MemoryStore, ShardWrite};

    use super::*;

    fn namespace() -> Namespace {
        Namespace::parse("p_1").unwrap()
    }

    fn note(log: &DeliveryLog, store: &MemoryStore, webhook: &str, at: i64) {
        let tried = DeliveryTry {
            webhook_id: webhook.to_owned(),
            at,
            ..Default::default()
        };
        let op = log.note(store, &namespace(), tried).unwrap();
        let shard = ShardWrite {
            shard: ShardId::REGISTRY,
            range: store.acquire(ShardId::REGISTRY).unwrap(),
            ops: vec![op],
        };
        let batch = Batch {
            shards: vec![shard],
        };
        store.commit(&batch).unwrap();
    }

    fn times(store: &MemoryStore, webhook: &str) -> Vec<i64> {
        let tries = newest_first(store, &namespace(), webhook).unwrap();
        tries.iter().map(|tried| tried.at).collect()
    }

    #[test]
    fn the_oldest_try_makes_room_also_after_a_restart() {
        let store = MemoryStore::new();
        let max = i64::try_from(DELIVERIES_PER_WEBHOOK_MAX).unwrap();
        let log = DeliveryLog::default();
        for at in 0..max + 3 {
            note(&log, &store, "w_1", at);
        }
        note(&log, &store, "w_10", 7);
        let kept = times(&store, "w_1");
        assert_eq!(kept.len() as i64, max);
        assert_eq!((kept[0], kept[kept.len() - 1]), (max + 2, 3));

        let log = DeliveryLog::default();
        note(&log, &store, "w_1", 9_999);
        let kept = times(&store, "w_1");
        assert_eq!(kept.len() as i64, max);
        assert_eq!(kept[..2], [9_999, max + 2]);
        assert_eq!(times(&store, "w_10"), [7]);
        assert_eq!(times(&store, "w_2"), [] as [i64; 0]);
    }
}
