//! Plans that were made before, to be used again for the same action with other values. One cache per project, durable.
//!
//! ```text
//!  a plan of a model, no literal of which holds a caller's value --keep--> entry (template, vector, digests)   one commit
//!  an action --find: same space, services, groundings, fields, specifics; likeness over the threshold; young--> entry
//!  entry --template + the caller's values--> draft --validated under today's rules--> plan    or a miss
//! ```
//!
//! A template is the plan without the caller's values: its tasks refer to them by the fields' names, and to nothing else of them. So a
//! value comes into a plan by its name and never because it equals another one.
//!
//! Invariant: an entry serves only under the very services and groundings it was made under; what it serves is validated again.
//! Invariant: memory follows the store: what was cleared is not served after a restart either.

mod entry;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use orchestrion_history::ids::{Namespace, ShardId};
use orchestrion_history::store::{Key as StoreKey, KeyRange, Op, RegistryKind, Store, StoreError};
use tokio::sync::Mutex;

pub use self::entry::{Entry, Key, Template};
use crate::acts::{Act, Actor, Acts, What};
use crate::engine::handle::{CallError, Handle};
use crate::planner::Cost;
use crate::seams::{self, Chance, Clock};

/// Entries read at once while loading.
const LOAD_PAGE: usize = 256;
/// Bytes of one entry; a larger plan is made again each time.
const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// How much is kept, how long, and how alike actions must be.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    /// Whether nothing is kept and nothing served.
    pub off: bool,
    /// Entries of one project; the oldest leaves first.
    pub size: u32,
    /// How long an entry serves.
    pub age: Duration,
    /// The least likeness of two actions, 1 is the most.
    pub threshold: f64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            off: false,
            size: 1_000,
            age: Duration::from_secs(24 * 3_600),
            threshold: 0.95,
        }
    }
}

type Entries = HashMap<Namespace, Vec<Arc<Entry>>>;

/// The caches of all projects. Clones share them.
#[derive(Clone)]
pub struct PlanCache {
    settings: CacheSettings,
    handle: Handle,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    acts: Acts,
    /// Of each project, oldest first.
    entries: Arc<RwLock<Entries>>,
    turn: Arc<Mutex<()>>,
}

impl PlanCache {
    /// Reads what was kept. An entry that cannot be read is no use and no harm: it is left out.
    pub fn load(
        store: &dyn Store,
        namespaces: impl IntoIterator<Item = Namespace>,
        settings: CacheSettings,
        handle: Handle,
        (clock, chance): (Arc<dyn Clock>, Arc<dyn Chance>),
        acts: Acts,
    ) -> Result<Self, StoreError> {
        let mut entries = Entries::new();
        for namespace in namespaces {
            let mut of_project = Vec::new();
            let mut range =
                KeyRange::registry_kind(ShardId::REGISTRY, &namespace, RegistryKind::PlanCache);
            loop {
                let page = store.scan(&range, LOAD_PAGE, false)?;
                for (key, value) in &page.entries {
                    match Entry::decode(value) {
                        Ok(entry) => of_project.push(Arc::new(entry)),
                        Err(error) => {
                            tracing::warn!(%key, %error, "a cached plan cannot be read; it is not used");
                        }
                    }
                }
                match page.entries.last() {
                    Some((last, _)) if page.more => range = range.after(last),
                    _ => break,
                }
            }
            of_project.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
            if !of_project.is_empty() {
                entries.insert(namespace, of_project);
            }
        }
        Ok(Self {
            settings,
            handle,
            clock,
            chance,
            acts,
            entries: Arc::new(RwLock::new(entries)),
            turn: Arc::default(),
        })
    }

    /// Whether it serves anything.
    pub fn is_off(&self) -> bool {
        self.settings.off
    }

    /// How it is set up.
    pub fn settings(&self) -> &CacheSettings {
        &self.settings
    }

    /// A project's entries, oldest first, those that are too old included.
    pub fn list(&self, namespace: &Namespace) -> Vec<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(namespace).cloned().unwrap_or_default()
    }

    /// The entry most like an action, and how alike they are; of equals the newest.
    pub fn find(&self, namespace: &Namespace, key: &Key) -> Option<(Arc<Entry>, f64)> {
        if self.settings.off {
            return None;
        }
        let now = self.clock.now();
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut best: Option<(&Arc<Entry>, f64)> = None;
        for entry in entries.get(namespace)?.iter().rev() {
            if now.since(entry.created_at) >= self.settings.age || !entry.key.fits(key) {
                continue;
            }
            let Some(score) = entry.key.vector.likeness(&key.vector) else {
                continue;
            };
            let score = score.min(1.0);
            // Sums of products of rounded numbers come out a little below what they are.
            if score + 1e-6 >= self.settings.threshold && best.is_none_or(|(_, most)| score > most)
            {
                best = Some((entry, score));
            }
        }
        best.map(|(entry, score)| (entry.clone(), score))
    }

    /// Notes that an entry served a plan.
    pub fn served(&self, entry: &Entry) {
        entry.hits.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("orchestrion_plan_cache_total", "outcome" => "hit").increment(1);
        metrics::counter!("orchestrion_plan_cache_saved_tokens_total")
            .increment(entry.cost.prompt_tokens + entry.cost.completion_tokens);
    }

    /// Notes that a plan had to be made: none fitted, or the one that did is not valid any more.
    pub fn missed(&self, refused: bool) {
        let outcome = if refused { "refused" } else { "miss" };
        metrics::counter!("orchestrion_plan_cache_total", "outcome" => outcome).increment(1);
    }

    /// Keeps a template, in place of one for the same key, and lets go what is too old or too much.
    pub async fn keep(
        &self,
        namespace: &Namespace,
        action: &str,
        key: Key,
        template: Template,
        cost: Cost,
    ) -> Result<(), CallError> {
        if self.settings.off {
            return Ok(());
        }
        let turn = self.turn.clone().lock_owned().await;
        let now = self.clock.now();
        let mut bytes = [0; 12];
        self.chance.fill(&mut bytes);
        let entry = Entry {
            id: format!("c_{}", crate::registry::ids::hex(&bytes)),
            created_at: now,
            action: action.to_owned(),
            key,
            template,
            cost,
            hits: Default::default(),
        };
        let encoded = entry.encode();
        if encoded.len() > ENTRY_BYTES_MAX {
            return Ok(());
        }
        let old = self.list(namespace);
        let is_over = |known: &Entry| {
            now.since(known.created_at) >= self.settings.age
                || known.key.is_outdated_by(&entry.key)
                || known.key == entry.key
        };
        let mut kept: Vec<_> = old
            .iter()
            .filter(|known| !is_over(known))
            .cloned()
            .collect();
        let size = usize::try_from(self.settings.size)
            .unwrap_or(usize::MAX)
            .max(1);
        kept.drain(..(kept.len() + 1).saturating_sub(size));
        let mut ops: Vec<Op> = old
            .iter()
            .filter(|known| !kept.iter().any(|left| left.id == known.id))
            .map(|gone| Op::Delete(store_key(namespace, &gone.id)))
            .collect();
        ops.push(Op::Put(store_key(namespace, &entry.id), encoded));
        kept.push(Arc::new(entry));
        self.commit(turn, namespace, ops, kept).await
    }

    /// Forgets all plans of a project; how many there were.
    pub async fn clear(&self, namespace: &Namespace, actor: &Actor) -> Result<usize, CallError> {
        let turn = self.turn.clone().lock_owned().await;
        let old = self.list(namespace);
        let mut ops: Vec<Op> = old
            .iter()
            .map(|entry| Op::Delete(store_key(namespace, &entry.id)))
            .collect();
        let act = Act::new(What::PlanCacheCleared, "plan-cache").with("plans", old.len());
        ops.push(self.acts.record(namespace, actor, act));
        self.commit(turn, namespace, ops, Vec::new()).await?;
        Ok(old.len())
    }

    /// Durable first, visible then, in a task of its own: a caller who goes away leaves no memory behind the store.
    async fn commit(
        &self,
        turn: tokio::sync::OwnedMutexGuard<()>,
        namespace: &Namespace,
        ops: Vec<Op>,
        entries: Vec<Arc<Entry>>,
    ) -> Result<(), CallError> {
        let (handle, memory, namespace) =
            (self.handle.clone(), self.entries.clone(), namespace.clone());
        let (done, answer) = tokio::sync::oneshot::channel();
        seams::beside(async move {
            let result = handle.put(ops).await;
            if result.is_ok() {
                let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
                memory.insert(namespace, entries);
            }
            drop(turn);
            // Nobody waits any more when the caller went away; the change stands.
            let _ = done.send(result);
        });
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }
}

fn store_key(namespace: &Namespace, id: &str) -> StoreKey {
    StoreKey::Registry {
        shard: ShardId::REGISTRY,
        namespace: namespace.clone(),
        kind: RegistryKind::PlanCache,
        id: id.to_owned(),
    }
}
