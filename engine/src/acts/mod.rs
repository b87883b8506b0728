//! Administrative acts: who did what to a project from outside its runs, from where, and when.
//!
//! ```text
//!  a change of the registry, a decision on a record --Acts::record--> one more operation of the same batch
//!  audit, people ------------------------------------read----------> the acts of a project, in order
//! ```
//!
//! Invariant: an act is committed in the batch of what it tells of: neither is there without the other.
//! Invariant: no secret is in an act; keys are named by their public ids.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::{
    Key, KeyRange, Op, RegistryKind, Store, StoreError, StoreErrorKind,
};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::AdministrativeAct;
use orchestrion_proto::v1::administrative_act::Actor as ActorKind;
pub use orchestrion_proto::v1::administrative_act::What;
use serde_json::{Map, Value};

use crate::registry::ids::hex;
use crate::seams::{Chance, Clock};

/// Bytes of chance in an act's id.
const CHANCE_BYTES: usize = 4;

/// Who acts, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub who: Who,
    /// The address the request came from; behind a proxy it is the proxy's.
    pub peer: Option<SocketAddr>,
}

impl Actor {
    /// The engine itself.
    pub const ENGINE: Self = Self {
        who: Who::Engine,
        peer: None,
    };
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever has the project's key of this public id.
    Key(String),
    /// Whoever has the server's admin key.
    Admin,
    /// Whoever reaches the server: registration is open.
    Anybody,
    /// The engine.
    Engine,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub what: What,
    /// The id of what it is done to.
    pub subject: String,
    /// What else is worth knowing; never a secret.
    pub detail: Map<String, Value>,
}

impl Act {
    /// Without detail.
    pub fn new(what: What, subject: impl Into<String>) -> Self {
        Self {
            what,
            subject: subject.into(),
            detail: Map::new(),
        }
    }

    /// With one detail more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

/// Drafts the records of acts. Clones share the clock that keeps them in order.
#[derive(Clone)]
pub struct Acts {
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    /// The time of the last act: no two have the same.
    last: Arc<AtomicI64>,
}

impl Acts {
    /// There is one per engine; its clones are the same one.
    pub fn new(clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Self {
        Self {
            clock,
            chance,
            last: Arc::default(),
        }
    }

    /// The operation that records an act: it belongs into the batch of what it tells of.
    pub fn record(&self, namespace: &Namespace, actor: &Actor, act: Act) -> Op {
        let at = self.next_instant();
        let mut chance = [0u8; CHANCE_BYTES];
        self.chance.fill(&mut chance);
        let id = format!("{}-{}", time_digits(Timestamp(at)), hex(&chance));
        let (kind, key_id) = match &actor.who {
            Who::Key(id) => (ActorKind::ProjectKey, id.clone()),
            Who::Admin => (ActorKind::AdminKey, String::new()),
            Who::Anybody => (ActorKind::Anybody, String::new()),
            Who::Engine => (ActorKind::Engine, String::new()),
        };
        let record = AdministrativeAct {
            id: id.clone(),
            at,
            actor: kind.into(),
            key_id,
            peer: actor.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            what: act.what.into(),
            subject: act.subject,
            detail_json: if act.detail.is_empty() {
                String::new()
            } else {
                Value::Object(act.detail).to_string()
            },
        };
        Op::Put(
            Key::Registry {
                shard: ShardId::REGISTRY,
                namespace: namespace.clone(),
                kind: RegistryKind::Act,
                id,
            },
            Bytes::from(record.encode_to_vec()),
        )
    }

    fn next_instant(&self) -> i64 {
        let now = self.clock.now().0.max(0);
        let before = self
            .last
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
                Some(now.max(last + 1))
            })
            .unwrap_or_else(|last| last);
        now.max(before + 1)
    }
}

/// A page of acts, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The acts.
    pub acts: Vec<AdministrativeAct>,
    /// Where to go on, for [`read`]; `None` at the end.
    pub next: Option<String>,
}

/// The acts of a project from one instant up to but without another, at most `limit` of them. `after` is the [`Page::next`] of the page before.
pub fn read(
    store: &dyn Store,
    namespace: &Namespace,
    (from, until): (Timestamp, Timestamp),
    after: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    // An id goes on behind its time, so nothing of an instant sorts before its digits.
    let mut range = KeyRange::registry_between(
        ShardId::REGISTRY,
        namespace,
        RegistryKind::Act,
        &time_digits(from),
        &time_digits(until),
    );
    if let Some(id) = after {
        range = range.after(&Key::Registry {
            shard: ShardId::REGISTRY,
            namespace: namespace.clone(),
            kind: RegistryKind::Act,
            id: id.to_owned(),
        });
    }
    let page = store.scan(&range, limit, false)?;
    let mut acts = Vec::with_capacity(page.entries.len());
    for (key, value) in page.entries {
        let act = AdministrativeAct::decode(value).map_err(|e| {
            let message =
                format!("the act does not decode: {e}; restore the data folder from a backup");
            StoreError::new(StoreErrorKind::Corrupt, "scan", message).at(&key)
        })?;
        acts.push(act);
    }
    let next = acts
        .last()
        .filter(|_| page.more)
        .map(|last| last.id.clone());
    Ok(Page { acts, next })
}

/// Its order as text is the order of time.
fn time_digits(at: Timestamp) -> String {
    format!("{:019}", at.0.max(0))
}

/// The word for what was done, as exports and people read it.
pub fn word(what: What) -> &'static str {
    match what {
        What::Unspecified => "unknown",
        What::ProjectCreated => "project created",
        What::ApiKeyAdded => "api key added",
        What::ApiKeyRevoked => "api key revoked",
        What::WebhookAdded => "webhook added",
        What::WebhookRemoved => "webhook removed",
        What::WebhookSecretRotated => "webhook secret rotated",
        What::ServiceRegistered => "service registered",
        What::ServiceDeleted => "service deleted",
        What::CompensationResolved => "compensation resolved",
        What::CompensationIgnored => "compensation ignored",
        What::CompensationRetried => "compensation retried",
        What::AdminLogin => "admin login",
        What::GroundingApplied => "grounding applied",
        What::GroundingRemoved => "grounding removed",
        What::PlanCacheCleared => "plan cache cleared",
        What::OrchestrationCancelled => "orchestration cancelled",
        What::AuditExported => "audit exported",
        What::NamespaceRegistered => "namespace registered",
        What::NamespaceUpdated => "namespace updated",
        What::NamespaceDeleted => "namespace deleted",
        What::SearchAttributeAdded => "search attribute added",
        What::SearchAttributeRemoved => "search attribute removed",
        What::BackupMade => "backup made",
        What::ExecutionDeleted => "execution deleted",
    }
}

/// Who acted, in words: `key k_…`, `admin`, `anybody`, `engine`.
pub fn who(act: &AdministrativeAct) -> String {
    match act.actor() {
        ActorKind::ProjectKey => format!("key {}", act.key_id),
        ActorKind::AdminKey => "admin".to_owned(),
        ActorKind::Anybody => "anybody".to_owned(),
        ActorKind::Engine => "engine".to_owned(),
        ActorKind::Unspecified => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use orchestrion_history::store::{Batch, MemoryStore, ShardWrite};

    use super::*;
    use crate::registry::ids::tests::CountingIds;
    use crate::seams::ManualClock;

    fn namespace() -> Namespace {
        Namespace::parse("p_1").unwrap()
    }

    fn store_of(ops: Vec<Op>) -> MemoryStore {
        let store = MemoryStore::new();
        let range = store.acquire(ShardId::REGISTRY).unwrap();
        let shard = ShardWrite {
            shard: ShardId::REGISTRY,
            range,
            ops,
        };
        let batch = Batch {
            shards: vec![shard],
        };
        store.commit(&batch).unwrap();
        store
    }

    const ALWAYS: (Timestamp, Timestamp) = (Timestamp(0), Timestamp(i64::MAX));

    #[test]
    fn acts_of_one_instant_keep_their_order_and_their_ids() {
        let clock = ManualClock::at(Timestamp(1_000));
        let acts = Acts::new(Arc::new(clock), Arc::new(CountingIds::default()));
        let actor = Actor {
            who: Who::Key("k_1".into()),
            peer: Some("10.0.0.1:99".parse().unwrap()),
        };
        let ops = ["a", "b", "c"].map(|subject| {
            let act = Act::new(What::WebhookAdded, subject).with("url", "http://h");
            acts.record(&namespace(), &actor, act)
        });
        let page = read(&store_of(ops.into()), &namespace(), ALWAYS, None, 10).unwrap();
        let told: Vec<(&str, i64)> = page
            .acts
            .iter()
            .map(|act| (act.subject.as_str(), act.at))
            .collect();
        assert_eq!(told, [("a", 1_000), ("b", 1_001), ("c", 1_002)]);
        let first = &page.acts[0];
        assert_eq!(first.peer, "10.0.0.1:99");
        assert_eq!(who(first), "key k_1");
        assert_eq!(word(first.what()), "webhook added");
        assert_eq!(first.detail_json, r#"{"url":"http://h"}"#);
        assert_eq!(page.next, None);
    }

    #[test]
    fn pages_and_time_ranges_hold_what_they_name() {
        let clock = ManualClock::at(Timestamp(0));
        let acts = Acts::new(Arc::new(clock.clone()), Arc::new(CountingIds::default()));
        let foreign = Namespace::parse("p_10").unwrap();
        let mut ops = Vec::new();
        for subject in 0..5 {
            clock.advance(std::time::Duration::from_nanos(10));
            let act = || Act::new(What::ApiKeyAdded, subject.to_string());
            ops.push(acts.record(&namespace(), &Actor::ENGINE, act()));
            ops.push(acts.record(&foreign, &Actor::ENGINE, act()));
        }
        let store = store_of(ops);
        let subjects = |range, after: Option<&str>, limit| {
            let page = read(&store, &namespace(), range, after, limit).unwrap();
            let subjects: Vec<String> = page.acts.iter().map(|act| act.subject.clone()).collect();
            (subjects.join(""), page.next)
        };
        assert_eq!(subjects(ALWAYS, None, 10).0, "01234");
        let (first, next) = subjects(ALWAYS, None, 2);
        assert_eq!(first, "01");
        let (second, next) = subjects(ALWAYS, next.as_deref(), 2);
        assert_eq!(second, "23");
        assert_eq!(subjects(ALWAYS, next.as_deref(), 2), ("4".to_owned(), None));
        let between = (Timestamp(20), Timestamp(40));
        assert_eq!(subjects(between, None, 10).0, "12");
    }
}
