//! Who may use the engine and who works for it: projects, API keys, services, webhooks.
//!
//! ```text
//!  Registrar --records, act--> engine: put (one commit) --then--> Registry (memory) --> every request's reads
//!  store --load at start--> Registry
//! ```
//!
//! | what                     | changes in        |
//! |--------------------------|-------------------|
//! | projects                 | `registrar.rs`    |
//! | API keys, their last use | `api_keys.rs`     |
//! | services                 | `services.rs`     |
//! | webhooks, their secrets  | `webhooks.rs`     |
//! | groundings               | `groundings.rs`   |
//! | namespaces, attributes   | `namespaces.rs`   |
//!
//! Invariant: memory changes only after the commit, so what a caller was shown survives a crash.
//! Invariant: each change is committed with the administrative act that tells of it.
//! Invariant: a project's namespace is its id; nothing here answers across namespaces except the check of an API key.

mod api_keys;
mod groundings;
pub mod ids;
mod memory;
mod namespaces;
mod records;
mod registrar;
mod services;
#[cfg(test)]
mod tests;
mod webhooks;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::{KeyRange, RegistryKind, Store, StoreError};
use tokio::sync::watch;

pub use self::api_keys::CreatedApiKey;
use self::ids::{KeyDigest, WebhookSecret};
use self::memory::Memory;
pub use self::namespaces::{
    DEFAULT_NAMESPACE, KnownNamespace, NamespaceChange, NamespaceError, NamespaceState,
};
pub use self::registrar::{CreatedProject, NewProject, Registrar, RegistryError};
pub use self::services::Registration;
pub use self::webhooks::{CreatedWebhook, RotatedSecret, WebhookUrl};
use crate::grounding::Grounding;
use crate::plan;
use crate::visibility::Catalogue;

/// Records read at once while loading.
const LOAD_PAGE: usize = 512;

/// Services one project may have: every one of them is shown to the planner.
pub const SERVICES_PER_PROJECT_MAX: usize = 1_000;
/// Webhooks one project may have in one topic.
pub const WEBHOOKS_PER_TOPIC_MAX: usize = 100;
/// API keys one project may have.
pub const API_KEYS_PER_PROJECT_MAX: usize = 1_000;
/// Bytes of a project's name.
pub const PROJECT_NAME_BYTES_MAX: usize = 255;
/// Bytes of an API key's name.
pub const API_KEY_NAME_BYTES_MAX: usize = 255;
/// Bytes of a webhook's URL.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2_048;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Also its namespace.
    pub id: String,
    /// Not unique; may be empty.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
}

/// Which route a service registered by. Nothing else depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// `/register/service`
    Service,
    /// `/register/agent`
    Agent,
}

/// A service or agent with what planning does not need to know.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredService {
    /// What planning and validation see.
    pub service: plan::Service,
    /// How it registered.
    pub kind: ServiceKind,
    /// 1 for the first registration; each further one adds 1.
    pub version: i64,
    /// When it registered first.
    pub created_at: Timestamp,
    /// When it registered last.
    pub updated_at: Timestamp,
}

/// A key of a project, as it is kept: nobody can ask with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectKey {
    /// SHA-256 of the key.
    pub digest: KeyDigest,
    /// Not unique; may be empty.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last seen in use, give or take the interval in which uses are written down.
    pub last_used_at: Option<Timestamp>,
}

impl ProjectKey {
    /// Its public id.
    pub fn id(&self) -> String {
        ids::api_key_id(self.digest)
    }
}

/// Who asks with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key's project.
    pub namespace: Namespace,
    /// The key's public id.
    pub key_id: String,
}

/// What a webhook is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The end of an orchestration.
    Orchestration,
    /// A compensation that failed for good.
    CompensationFailure,
    /// Nothing by itself: it signs for the URLs that single submissions name. A project has at most one of these.
    Submission,
}

/// A secret that was rotated away and still signs along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    /// The secret.
    pub secret: WebhookSecret,
    /// When it stops to sign.
    pub until: Timestamp,
}

/// Somebody to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `w_` and 22 digits.
    pub id: String,
    /// Absolute, http or https; empty for [`Topic::Submission`].
    pub url: String,
    /// Of what.
    pub topic: Topic,
    /// Signs its deliveries.
    pub secret: WebhookSecret,
    /// Signs along for a while after a rotation.
    pub previous: Option<PreviousSecret>,
    /// When its secret was rotated last.
    pub rotated_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Webhook {
    /// The secrets that sign at an instant, the newest first.
    pub fn secrets_at(&self, now: Timestamp) -> impl Iterator<Item = &WebhookSecret> {
        let previous = self.previous.iter().filter(move |p| p.until > now);
        std::iter::once(&self.secret).chain(previous.map(|p| &p.secret))
    }
}

/// The registry as of the last commit, in memory. Clones share it.
#[derive(Clone)]
pub struct Registry {
    memory: Arc<RwLock<Memory>>,
    /// Counts what was taken away: keys, services, webhooks.
    removals: Arc<watch::Sender<u64>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::of(Memory::default())
    }
}

impl Registry {
    fn of(memory: Memory) -> Self {
        Self {
            memory: Arc::new(RwLock::new(memory)),
            removals: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Reads the whole registry from the store: who there is, then what each project has.
    pub fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut memory = Memory::default();
        for kind in [
            RegistryKind::Project,
            RegistryKind::ApiKey,
            RegistryKind::Namespace,
        ] {
            load_kind(store, &mut memory, &Namespace::system(), kind)?;
        }
        for namespace in memory.namespaces() {
            for kind in [
                RegistryKind::Service,
                RegistryKind::Webhook,
                RegistryKind::Grounding,
            ] {
                load_kind(store, &mut memory, &namespace, kind)?;
            }
        }
        let default = Namespace::parse(DEFAULT_NAMESPACE).into_iter();
        let named: BTreeSet<_> = memory.namespaces().into_iter().chain(default).collect();
        for namespace in named {
            load_kind(
                store,
                &mut memory,
                &namespace,
                RegistryKind::SearchAttribute,
            )?;
        }
        Ok(Self::of(memory))
    }

    /// The project an API key belongs to. Asking counts as a use of the key.
    pub fn authenticate(&self, key: KeyDigest) -> Option<Namespace> {
        Some(self.identify(key)?.namespace)
    }

    /// Who asks with an API key. Asking counts as a use of the key.
    pub fn identify(&self, key: KeyDigest) -> Option<Identity> {
        self.read().identify(key)
    }

    /// Whether a key is one of a project's, now.
    pub fn holds_key(&self, key: KeyDigest) -> bool {
        self.read().key(key).is_some()
    }

    /// Every project, by id.
    pub fn projects(&self) -> Vec<Arc<Project>> {
        self.read().projects()
    }

    /// A project.
    pub fn project(&self, namespace: &Namespace) -> Option<Arc<Project>> {
        self.read().project(namespace)
    }

    /// Every namespace that can be used: `default`, the projects' and the registered ones, by name.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let memory = self.read();
        let default = Namespace::parse(DEFAULT_NAMESPACE).into_iter();
        let named: BTreeSet<_> = memory.namespaces().into_iter().chain(default).collect();
        let usable = |namespace: &Namespace| {
            namespaces::state(&memory, namespace) == NamespaceState::Registered
        };
        named.into_iter().filter(usable).collect()
    }

    /// Whether a namespace can be used.
    pub fn namespace_state(&self, namespace: &Namespace) -> NamespaceState {
        namespaces::state(&self.read(), namespace)
    }

    /// What is known of a namespace beside its name: as it was registered, or as its project says.
    pub fn known_namespace(&self, namespace: &Namespace) -> KnownNamespace {
        namespaces::known(&self.read(), namespace)
    }

    /// What runs of a namespace can be searched by.
    pub fn catalogue(&self, namespace: &Namespace) -> Arc<Catalogue> {
        self.read().catalogue(namespace)
    }

    /// A project's services, by id, as planning and validation see them.
    pub fn services(&self, namespace: &Namespace) -> Arc<[plan::Service]> {
        self.read().services(namespace)
    }

    /// A project's services, by id, with all that is known of them.
    pub fn registered_services(&self, namespace: &Namespace) -> Vec<Arc<RegisteredService>> {
        self.read().registered_services(namespace)
    }

    /// One service of a project.
    pub fn service(&self, namespace: &Namespace, id: &str) -> Option<Arc<RegisteredService>> {
        self.read().service(namespace, id)
    }

    /// A project's groundings, by name.
    pub fn groundings(&self, namespace: &Namespace) -> Vec<Arc<Grounding>> {
        self.read().groundings(namespace)
    }

    /// A project's webhooks of one topic, oldest first.
    pub fn webhooks(&self, namespace: &Namespace, topic: Topic) -> Vec<Arc<Webhook>> {
        self.read().webhooks(namespace, topic)
    }

    /// One webhook of a project.
    pub fn webhook(&self, namespace: &Namespace, id: &str) -> Option<Arc<Webhook>> {
        self.read().webhook(namespace, id)
    }

    /// A project's API keys, oldest first.
    pub fn api_keys(&self, namespace: &Namespace) -> Vec<ProjectKey> {
        self.read().api_keys(namespace)
    }

    /// The keys that were used since this was asked last.
    fn take_used_keys(&self) -> Vec<(Namespace, ProjectKey)> {
        self.read().take_used_keys()
    }

    /// Changes whenever a key, a service or a webhook was taken away: whoever stands on one looks whether it is still there.
    pub fn removals(&self) -> watch::Receiver<u64> {
        self.removals.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        // Memory changes by whole assignments only, so a panic elsewhere leaves it whole.
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn apply(&self, records: Vec<records::Record>) {
        let removes = records.iter().any(records::Record::removes);
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            memory.apply(record);
        }
        drop(memory);
        if removes {
            self.removals.send_modify(|count| *count += 1);
        }
    }
}

fn load_kind(
    store: &dyn Store,
    memory: &mut Memory,
    namespace: &Namespace,
    kind: RegistryKind,
) -> Result<(), StoreError> {
    let mut range = KeyRange::registry_kind(ShardId::REGISTRY, namespace, kind);
    loop {
        let page = store.scan(&range, LOAD_PAGE, false)?;
        for (key, value) in &page.entries {
            if let Some(record) = records::decode(key, value)? {
                memory.apply(record);
            }
        }
        match page.entries.last() {
            Some((last, _)) if page.more => range = range.after(last),
            _ => return Ok(()),
        }
    }
}
