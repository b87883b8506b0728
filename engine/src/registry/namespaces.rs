//! Namespaces beside the projects', and what runs of a namespace can be searched by.
//!
//! ```text
//!  (unknown) --register--> Registered --delete--> Deleted --its runs are gone, register--> Registered
//! ```
//!
//! `default` and the projects' namespaces are registered without a record; a record of one holds what was changed of it.
//!
//! Invariant: runs of a deleted namespace are ended and removed before its name is given again.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::KeyRange;

use super::memory::Memory;
use super::records::Record;
use super::registrar::{Registrar, RegistryError, limit, short};
use crate::acts::{Act, Actor, What};
use crate::engine::handle::CallError;
use crate::visibility::attributes::{AttributeError, CUSTOM_ATTRIBUTES_MAX};
use crate::visibility::{Catalogue, ValueType};

/// The namespace that is there without a project.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Bytes of a namespace's name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of each text of a namespace.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// Entries of a namespace's data.
const DATA_ENTRIES_MAX: usize = 100;
/// What ids of projects begin with.
const PROJECT_PREFIX: &str = "p_";

/// Why a namespace, or what its runs can be searched by, did not change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NamespaceError {
    /// The name is taken.
    #[error("namespace {0} exists already")]
    Exists(String),
    /// The name is not free yet.
    #[error("namespace {0} was deleted and its runs are still being removed: ask again later")]
    Leaving(String),
    /// It goes with its project, or never.
    #[error("namespace {0} cannot be deleted: it is there for its project, or always")]
    Stays(String),
    /// There is none of that name.
    #[error("namespace {0} is not found")]
    Unknown(String),
    /// A name no namespace can have.
    #[error("namespace name {name:?} is refused: {why}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is there with another type.
    #[error(
        "search attribute {name} exists already with the type {there}: remove it first, or choose another name"
    )]
    AttributeExists {
        /// Which.
        name: String,
        /// Its type.
        there: &'static str,
    },
    /// The namespace did not add it.
    #[error("search attribute {0} is not one that this namespace added: list what there is")]
    UnknownAttribute(String),
    /// No attribute can be called so.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// A limit, or the commit.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What is known of a namespace beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownNamespace {
    /// For people.
    pub description: String,
    /// For people.
    pub owner_email: String,
    /// Whatever its owners keep there.
    pub data: BTreeMap<String, String>,
    /// How long closed runs are kept; the server's setting if none is given.
    pub retention: Option<Duration>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// See [`NamespaceState::Deleted`].
    pub deleted: bool,
}

/// Whether a namespace can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceState {
    /// There is none of that name.
    Unknown,
    /// It can be used.
    Registered,
    /// It cannot be used any more; its runs are ended and removed.
    Deleted,
}

/// What changes of a namespace; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceChange {
    /// For people.
    pub description: Option<String>,
    /// For people.
    pub owner_email: Option<String>,
    /// Entries to set; those that are not named stay.
    pub data: BTreeMap<String, String>,
    /// How long closed runs are kept.
    pub retention: Option<Duration>,
}

pub(super) fn state(memory: &Memory, namespace: &Namespace) -> NamespaceState {
    match memory.known(namespace) {
        Some(known) if known.deleted => NamespaceState::Deleted,
        Some(_) => NamespaceState::Registered,
        None if namespace.as_str() == DEFAULT_NAMESPACE => NamespaceState::Registered,
        None if memory.project(namespace).is_some() => NamespaceState::Registered,
        None => NamespaceState::Unknown,
    }
}

pub(super) fn known(memory: &Memory, namespace: &Namespace) -> KnownNamespace {
    if let Some(known) = memory.known(namespace) {
        return (*known).clone();
    }
    memory
        .project(namespace)
        .map_or_else(Default::default, |p| KnownNamespace {
            description: p.name.clone(),
            created_at: p.created_at,
            updated_at: p.updated_at,
            ..Default::default()
        })
}

impl Registrar {
    /// A namespace without a project.
    pub async fn register_namespace(
        &self,
        name: &str,
        change: NamespaceChange,
        actor: &Actor,
    ) -> Result<Namespace, NamespaceError> {
        let namespace = free_name(name)?;
        check(&change)?;
        let turn = self.take_turn().await;
        match self.registry.namespace_state(&namespace) {
            NamespaceState::Unknown => {}
            NamespaceState::Registered => return Err(NamespaceError::Exists(name.into())),
            NamespaceState::Deleted if self.has_runs(&namespace)? => {
                return Err(NamespaceError::Leaving(name.into()));
            }
            NamespaceState::Deleted => {}
        }
        let at = self.clock.now();
        let known = applied(
            KnownNamespace {
                created_at: at,
                ..Default::default()
            },
            change,
            at,
        );
        let mut records = vec![Record::Namespace {
            namespace: namespace.clone(),
            known,
        }];
        // Of a namespace that had this name before.
        for name in self.registry.catalogue(&namespace).custom().keys() {
            records.push(Record::SearchAttributeRemoved {
                namespace: namespace.clone(),
                name: name.clone(),
            });
        }
        let act = Act::new(What::NamespaceRegistered, name);
        self.commit(turn, &namespace, records, actor, vec![act])
            .await?;
        Ok(namespace)
    }

    /// Changes what is known of a namespace.
    pub async fn update_namespace(
        &self,
        namespace: &Namespace,
        change: NamespaceChange,
        actor: &Actor,
    ) -> Result<KnownNamespace, NamespaceError> {
        check(&change)?;
        let turn = self.take_turn().await;
        self.usable(namespace)?;
        let mut act = Act::new(What::NamespaceUpdated, namespace.as_str());
        if let Some(retention) = change.retention {
            act = act.with("retentionSeconds", retention.as_secs());
        }
        let known = applied(
            self.registry.known_namespace(namespace),
            change,
            self.clock.now(),
        );
        limit(
            "entries of namespace data",
            known.data.len().saturating_sub(1),
            DATA_ENTRIES_MAX,
        )?;
        let record = Record::Namespace {
            namespace: namespace.clone(),
            known: known.clone(),
        };
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await?;
        Ok(known)
    }

    /// Takes a registered namespace out of use; its runs are ended and removed by the sweep. `default` and the projects' namespaces stay.
    pub async fn delete_namespace(
        &self,
        namespace: &Namespace,
        actor: &Actor,
    ) -> Result<(), NamespaceError> {
        let turn = self.take_turn().await;
        self.usable(namespace)?;
        if namespace.as_str() == DEFAULT_NAMESPACE || self.registry.project(namespace).is_some() {
            return Err(NamespaceError::Stays(namespace.to_string()));
        }
        let record = Record::Namespace {
            namespace: namespace.clone(),
            known: KnownNamespace {
                deleted: true,
                updated_at: self.clock.now(),
                ..self.registry.known_namespace(namespace)
            },
        };
        let act = Act::new(What::NamespaceDeleted, namespace.as_str());
        Ok(self
            .commit(turn, namespace, vec![record], actor, vec![act])
            .await?)
    }

    /// Adds search attributes to a namespace. One that is there already with that type is no error.
    pub async fn add_search_attributes(
        &self,
        namespace: &Namespace,
        wanted: BTreeMap<String, ValueType>,
        actor: &Actor,
    ) -> Result<(), NamespaceError> {
        for name in wanted.keys() {
            Catalogue::check_name(name)?;
        }
        let turn = self.take_turn().await;
        self.usable(namespace)?;
        let catalogue = self.registry.catalogue(namespace);
        let (mut records, mut acts) = (Vec::new(), Vec::new());
        for (name, kind) in wanted {
            match catalogue.custom().get(&name) {
                Some(there) if *there == kind => continue,
                Some(there) => {
                    return Err(NamespaceError::AttributeExists {
                        name,
                        there: there.name(),
                    });
                }
                None => {}
            }
            let act = Act::new(What::SearchAttributeAdded, name.clone());
            acts.push(act.with("type", kind.name()));
            records.push(Record::SearchAttribute {
                namespace: namespace.clone(),
                name,
                kind,
                created_at: self.clock.now(),
            });
        }
        if records.is_empty() {
            return Ok(());
        }
        let total = catalogue.custom().len() + records.len();
        limit("search attributes", total - 1, CUSTOM_ATTRIBUTES_MAX)?;
        Ok(self.commit(turn, namespace, records, actor, acts).await?)
    }

    /// Takes search attributes away: runs keep their values, but nobody can search by them.
    pub async fn remove_search_attributes(
        &self,
        namespace: &Namespace,
        names: Vec<String>,
        actor: &Actor,
    ) -> Result<(), NamespaceError> {
        let turn = self.take_turn().await;
        self.usable(namespace)?;
        let catalogue = self.registry.catalogue(namespace);
        let (mut records, mut acts) = (Vec::new(), Vec::new());
        for name in names {
            if !catalogue.custom().contains_key(&name) {
                return Err(NamespaceError::UnknownAttribute(name));
            }
            acts.push(Act::new(What::SearchAttributeRemoved, name.clone()));
            records.push(Record::SearchAttributeRemoved {
                namespace: namespace.clone(),
                name,
            });
        }
        if records.is_empty() {
            return Ok(());
        }
        Ok(self.commit(turn, namespace, records, actor, acts).await?)
    }

    fn usable(&self, namespace: &Namespace) -> Result<(), NamespaceError> {
        match self.registry.namespace_state(namespace) {
            NamespaceState::Registered => Ok(()),
            _ => Err(NamespaceError::Unknown(namespace.to_string())),
        }
    }

    fn has_runs(&self, namespace: &Namespace) -> Result<bool, NamespaceError> {
        for shard in (0..self.handle.shards()).map(ShardId) {
            let range = KeyRange::run_heads_of(shard, namespace);
            let page = self.handle.store().scan(&range, 1, false);
            let page = page.map_err(|e| RegistryError::from(CallError::from(e)))?;
            if !page.entries.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A name that is neither a project's nor the engine's own.
fn free_name(name: &str) -> Result<Namespace, NamespaceError> {
    short("the namespace's name", name, NAME_BYTES_MAX)?;
    let namespace = Namespace::parse(name).map_err(RegistryError::from)?;
    let refuse = |why| {
        Err(NamespaceError::Name {
            name: name.to_owned(),
            why,
        })
    };
    if name.starts_with('~') {
        return refuse("names that begin with ~ are the engine's own");
    }
    if name.starts_with(PROJECT_PREFIX) {
        return refuse("names that begin with p_ are projects: create one instead");
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("it holds a blank or a control character");
    }
    Ok(namespace)
}

fn check(change: &NamespaceChange) -> Result<(), NamespaceError> {
    let texts = [&change.description, &change.owner_email];
    for text in texts.into_iter().flatten() {
        short("a text of the namespace", text, TEXT_BYTES_MAX)?;
    }
    for (key, value) in &change.data {
        short("a key of the namespace's data", key, TEXT_BYTES_MAX)?;
        short("a value of the namespace's data", value, TEXT_BYTES_MAX)?;
    }
    Ok(limit(
        "entries of namespace data",
        change.data.len().saturating_sub(1),
        DATA_ENTRIES_MAX,
    )?)
}

fn applied(known: KnownNamespace, change: NamespaceChange, at: Timestamp) -> KnownNamespace {
    let mut data = known.data;
    data.extend(change.data);
    KnownNamespace {
        description: change.description.unwrap_or(known.description),
        owner_email: change.owner_email.unwrap_or(known.owner_email),
        data,
        retention: change.retention.or(known.retention),
        created_at: known.created_at,
        updated_at: at,
        deleted: false,
    }
}
