//! Workers that say how they are: the last heartbeat of each, for whoever asks which workers there are.
//!
//! A heartbeat tells nothing that the engine acts on, so it is kept in memory only, as the bytes it came as, and for [`KEPT`]. After a restart
//! each worker is known again with its next one.
//!
//! Invariant: what all namespaces keep is bounded in bytes; whoever is over it loses its own oldest entries first.

pub mod query;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use orchestrion_history::ids::{ID_BYTES_MAX, Namespace, Timestamp};
use orchestrion_proto::temporal::api::worker::v1::WorkerHeartbeat;
use prost::Message as _;

/// A worker that is silent for so long is forgotten. SDKs send a heartbeat a minute.
pub const KEPT: Duration = Duration::from_secs(300);
/// Bytes of a heartbeat; they usually have less than one thousand.
pub const HEARTBEAT_BYTES_MAX: usize = 16 * 1024;
/// Workers of a namespace.
pub const WORKERS_MAX: usize = 10_000;
/// Bytes of all heartbeats.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What is forgotten in every namespace is looked for so often.
const SWEEP: Duration = Duration::from_secs(60);
/// What an entry takes beside its heartbeat and, twice, its key.
const ENTRY_BYTES: usize = 256;

/// Why a heartbeat is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// Nobody in particular sent it.
    #[error(
        "a worker heartbeat has no worker_instance_key: send the one that the worker polls with"
    )]
    NoKey,
    /// Too long to be a key.
    #[error("worker instance key has {0} bytes: at most {ID_BYTES_MAX} are allowed")]
    LongKey(usize),
    /// Too large.
    #[error(
        "the heartbeat of worker {key} has {bytes} bytes: at most {HEARTBEAT_BYTES_MAX} are allowed"
    )]
    Large {
        /// Whose.
        key: String,
        /// How many it has.
        bytes: usize,
    },
}

/// The last heartbeat of a worker.
#[derive(Debug)]
struct Entry {
    at: Timestamp,
    /// A worker that shuts down does not come back: an older heartbeat that arrives late is not its last.
    status: i32,
    heartbeat: Bytes,
}

impl Entry {
    fn bytes(&self, key: &str) -> usize {
        self.heartbeat.len() + 2 * key.len() + ENTRY_BYTES
    }
}

#[derive(Debug, Default)]
struct Tenant {
    workers: BTreeMap<Arc<str>, Entry>,
    by_age: BTreeSet<(Timestamp, Arc<str>)>,
    bytes: usize,
}

impl Tenant {
    fn put(&mut self, key: Arc<str>, entry: Entry) {
        let known = self.workers.get(&key);
        if known.is_some_and(|known| known.status > entry.status) {
            return;
        }
        self.remove(&key);
        self.bytes += entry.bytes(&key);
        self.by_age.insert((entry.at, key.clone()));
        self.workers.insert(key, entry);
    }

    fn remove(&mut self, key: &Arc<str>) {
        if let Some(entry) = self.workers.remove(key) {
            self.bytes -= entry.bytes(key);
            self.by_age.remove(&(entry.at, key.clone()));
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, key)) = self.by_age.first().cloned() {
            self.remove(&key);
        }
    }

    fn remove_silent(&mut self, now: Timestamp) {
        while self
            .by_age
            .first()
            .is_some_and(|(at, _)| now.since(*at) >= KEPT)
        {
            self.remove_oldest();
        }
    }
}

#[derive(Debug, Default)]
struct Tenants {
    by_name: HashMap<Namespace, Tenant>,
    swept_at: Timestamp,
}

impl Tenants {
    fn sweep(&mut self, now: Timestamp) {
        if now.since(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.by_name.retain(|_, tenant| {
                tenant.remove_silent(now);
                !tenant.workers.is_empty()
            });
        }
    }

    fn bytes(&self) -> usize {
        self.by_name.values().map(|tenant| tenant.bytes).sum()
    }
}

/// The workers of every namespace.
#[derive(Debug, Default)]
pub struct Workers(Mutex<Tenants>);

impl Workers {
    /// Keeps heartbeats: all of them, or none if one is refused.
    pub fn record(
        &self,
        namespace: &Namespace,
        heartbeats: &[WorkerHeartbeat],
        now: Timestamp,
    ) -> Result<(), HeartbeatError> {
        let entries: Vec<(Arc<str>, Entry)> = heartbeats
            .iter()
            .map(|heartbeat| entry(heartbeat, now))
            .collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Ok(());
        }
        let mut tenants = self.lock();
        tenants.sweep(now);
        let tenant = tenants.by_name.entry(namespace.clone()).or_default();
        tenant.remove_silent(now);
        for (key, entry) in entries {
            tenant.put(key, entry);
            if tenant.workers.len() > WORKERS_MAX {
                tenant.remove_oldest();
            }
        }
        while tenants.bytes() > BYTES_MAX {
            let largest = tenants.by_name.values_mut();
            match largest.max_by_key(|tenant| tenant.bytes) {
                Some(tenant) => tenant.remove_oldest(),
                None => break,
            }
        }
        Ok(())
    }

    /// One worker's last heartbeat.
    pub fn get(&self, namespace: &Namespace, key: &str, now: Timestamp) -> Option<WorkerHeartbeat> {
        let kept = {
            let tenants = self.lock();
            let entry = tenants.by_name.get(namespace)?.workers.get(key)?;
            (now.since(entry.at) < KEPT).then(|| entry.heartbeat.clone())?
        };
        WorkerHeartbeat::decode(kept).ok()
    }

    /// The last heartbeats of a namespace's workers whose keys come after this one, in the order of their keys. They are decoded as they are
    /// taken, after the registry has been let go.
    pub fn after(
        &self,
        namespace: &Namespace,
        key: &str,
        now: Timestamp,
    ) -> impl Iterator<Item = WorkerHeartbeat> + use<> {
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        let kept: Vec<Bytes> = match self.lock().by_name.get(namespace) {
            Some(tenant) => tenant
                .workers
                .range::<str, _>(behind)
                .filter(|(_, entry)| now.since(entry.at) < KEPT)
                .map(|(_, entry)| entry.heartbeat.clone())
                .collect(),
            None => Vec::new(),
        };
        kept.into_iter()
            .filter_map(|kept| WorkerHeartbeat::decode(kept).ok())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tenants> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(heartbeat: &WorkerHeartbeat, now: Timestamp) -> Result<(Arc<str>, Entry), HeartbeatError> {
    let key = heartbeat.worker_instance_key.as_str();
    match key.len() {
        0 => return Err(HeartbeatError::NoKey),
        1..=ID_BYTES_MAX => {}
        bytes => return Err(HeartbeatError::LongKey(bytes)),
    }
    let bytes = heartbeat.encoded_len();
    if bytes > HEARTBEAT_BYTES_MAX {
        let key = key.to_owned();
        return Err(HeartbeatError::Large { key, bytes });
    }
    let entry = Entry {
        at: now,
        status: heartbeat.status,
        heartbeat: heartbeat.encode_to_vec().into(),
    };
    Ok((key.into(), entry))
}

#[cfg(test)]
mod tests;
