//! Who may use the engine and who works for it: projects, API keys, services, webhooks.
//!
//! ```text
//!  Registrar --records--> engine: put (one commit) --then--> Registry (memory) --> every request's reads
//!  store --load at start--> Registry
//! ```
//!
//! Invariant: memory changes only after the commit, so what a caller was shown survives a crash.
//! Invariant: a project's namespace is its id; nothing here answers across namespaces except the check of an API key.

pub mod ids;
mod memory;
mod records;
mod registrar;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::{KeyRange, Store, StoreError};

use self::ids::{KeyDigest, WebhookSecret};
use self::memory::Memory;
pub use self::registrar::{
    CreatedProject, CreatedWebhook, NewProject, Registrar, Registration, RegistryError, WebhookUrl,
};
use crate::plan;

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

/// What a webhook is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The end of an orchestration.
    Orchestration,
    /// A compensation that failed for good.
    CompensationFailure,
}

/// Somebody to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `w_` and 22 digits.
    pub id: String,
    /// Absolute, http or https.
    pub url: String,
    /// Of what.
    pub topic: Topic,
    /// Signs its deliveries.
    pub secret: WebhookSecret,
    /// When it was added.
    pub created_at: Timestamp,
}

/// The registry as of the last commit, in memory. Clones share it.
#[derive(Clone, Default)]
pub struct Registry {
    memory: Arc<RwLock<Memory>>,
}

impl Registry {
    /// Reads the whole registry from the store.
    pub fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut memory = Memory::default();
        let mut range = KeyRange::registry_all(ShardId::REGISTRY);
        loop {
            let page = store.scan(&range, LOAD_PAGE, false)?;
            for (key, value) in &page.entries {
                if let Some(record) = records::decode(key, value)? {
                    memory.apply(record);
                }
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => {
                    return Ok(Self {
                        memory: Arc::new(RwLock::new(memory)),
                    });
                }
            }
        }
    }

    /// The project an API key belongs to.
    pub fn authenticate(&self, key: KeyDigest) -> Option<Namespace> {
        self.read().project_of_key(key)
    }

    /// A project.
    pub fn project(&self, namespace: &Namespace) -> Option<Arc<Project>> {
        self.read().project(namespace)
    }

    /// A project's services, by id, as planning and validation see them.
    pub fn services(&self, namespace: &Namespace) -> Arc<[plan::Service]> {
        self.read().services(namespace)
    }

    /// One service of a project.
    pub fn service(&self, namespace: &Namespace, id: &str) -> Option<Arc<RegisteredService>> {
        self.read().service(namespace, id)
    }

    /// A project's webhooks of one topic, oldest first.
    pub fn webhooks(&self, namespace: &Namespace, topic: Topic) -> Vec<Arc<Webhook>> {
        self.read().webhooks(namespace, topic)
    }

    /// One webhook of a project.
    pub fn webhook(&self, namespace: &Namespace, id: &str) -> Option<Arc<Webhook>> {
        self.read().webhook(namespace, id)
    }

    /// How many API keys a project has.
    pub fn api_keys(&self, namespace: &Namespace) -> usize {
        self.read().api_keys(namespace)
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        // Memory changes by whole assignments only, so a panic elsewhere leaves it whole.
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn apply(&self, records: Vec<records::Record>) {
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            memory.apply(record);
        }
    }
}
