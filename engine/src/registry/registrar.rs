//! The only writer of the registry: one change at a time, committed before it is seen or answered.
//!
//! Invariant: a refused change leaves no trace; a secret leaves this file once, in the answer to the call that made it.

use std::sync::Arc;

use orchestrion_history::ids::{InvalidName, Namespace};
use orchestrion_history::store::Op;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::api_keys::FIRST_KEY_NAME;
use super::ids::{self, ApiKey};
use super::records::{self, Record};
use super::{
    CreatedWebhook, PROJECT_NAME_BYTES_MAX, Project, Registry, Topic, WEBHOOKS_PER_TOPIC_MAX,
    WebhookUrl,
};
use crate::acts::{Act, Actor, Acts, What};
use crate::engine::handle::{CallError, Handle};
use crate::seams::{self, Chance, Clock};

/// Why the registry did not change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// No such service in this project.
    #[error(
        "service with id {0} not found in this project: register without an id to get a new one"
    )]
    UnknownService(String),
    /// No such key, service or webhook in this project.
    #[error("unknown {what} {id:?}: list what there is with GET {list}")]
    Unknown {
        /// What.
        what: &'static str,
        /// As given.
        id: String,
        /// The route that lists them.
        list: &'static str,
    },
    /// The project could not be reached any more.
    #[error("{0} is the last key of its project: make another one first")]
    LastKey(String),
    /// It signs for submissions under way.
    #[error("{0} signs for the urls that submissions name: it stays, rotate its secret instead")]
    Signer(String),
    /// Somebody still needs the service.
    #[error(
        "service {id} is in use ({sessions} connected, {waiting} tasks wait for it): stop it first, or say force=true to delete it all the same"
    )]
    InUse {
        /// The service.
        id: String,
        /// Connections it has.
        sessions: usize,
        /// Attempts that wait in its queue or are under way.
        waiting: usize,
    },
    /// The same text again, or another one under an old version.
    #[error(
        "project {project} already has a grounding spec with name {name} and version {version}: give a changed one a new version"
    )]
    SameVersion {
        /// The project.
        project: String,
        /// The grounding.
        name: String,
        /// Its version.
        version: String,
    },
    /// A grounding that is not one.
    #[error(transparent)]
    Grounding(#[from] crate::grounding::Fault),
    /// A limit is reached.
    #[error("this project has {max} {what} already: no more are allowed")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How many.
        max: usize,
    },
    /// Too long.
    #[error("{what} has {bytes} bytes: at most {max} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// Not a URL that can be delivered to.
    #[error("webhook url {url:?} cannot be called: {reason}")]
    InvalidUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An id came out malformed.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The commit failed or was refused.
    #[error(transparent)]
    Engine(#[from] CallError),
}

/// A project to create. There is nothing else a caller may set.
#[derive(Debug, Clone, Default)]
pub struct NewProject {
    /// May be empty.
    pub name: String,
    /// Told of the ends of orchestrations.
    pub webhooks: Vec<WebhookUrl>,
    /// Told of failed compensations.
    pub compensation_failure_webhooks: Vec<WebhookUrl>,
}

/// A new project, with what is shown only now.
#[derive(Debug, Clone)]
pub struct CreatedProject {
    /// The project.
    pub project: Project,
    /// Its first key.
    pub api_key: ApiKey,
    /// Its webhooks, with their secrets.
    pub webhooks: Vec<CreatedWebhook>,
}

/// Changes the registry. Clones share the lock.
#[derive(Clone)]
pub struct Registrar {
    pub(super) registry: Registry,
    pub(super) handle: Handle,
    pub(super) ids: Arc<dyn Chance>,
    pub(super) clock: Arc<dyn Clock>,
    acts: Acts,
    turn: Arc<Mutex<()>>,
}

impl Registrar {
    /// The registrar of a registry. There is one per engine.
    pub fn new(
        registry: Registry,
        handle: Handle,
        ids: Arc<dyn Chance>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            registry,
            handle,
            acts: Acts::new(clock.clone(), ids.clone()),
            ids,
            clock,
            turn: Arc::default(),
        }
    }

    /// The registry it changes.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Drafts the records of administrative acts, for whoever commits a change that is not the registry's.
    pub fn acts(&self) -> &Acts {
        &self.acts
    }

    /// A new project with its first key and its webhooks, in one commit.
    pub async fn create_project(
        &self,
        new: NewProject,
        actor: &Actor,
    ) -> Result<CreatedProject, RegistryError> {
        short("the project's name", &new.name, PROJECT_NAME_BYTES_MAX)?;
        for urls in [&new.webhooks, &new.compensation_failure_webhooks] {
            limit(
                "webhooks of this topic",
                urls.len().saturating_sub(1),
                WEBHOOKS_PER_TOPIC_MAX,
            )?;
        }
        let turn = self.take_turn().await;
        let at = self.clock.now();
        let id = ids::project_id(&*self.ids);
        let namespace = Namespace::parse(&id)?;
        let project = Project {
            id,
            name: new.name,
            created_at: at,
            updated_at: at,
        };
        let api_key = ApiKey::generate(&*self.ids);
        let created = Act::new(What::ProjectCreated, project.id.clone());
        let mut acts = vec![created.with("name", project.name.clone())];
        let (record, act) = self.new_api_key(&namespace, &api_key, FIRST_KEY_NAME, at);
        let mut records = vec![
            Record::Project {
                namespace: namespace.clone(),
                project: project.clone(),
            },
            record,
        ];
        acts.push(act);
        let mut webhooks = Vec::new();
        let topics = [
            (Topic::Orchestration, new.webhooks),
            (
                Topic::CompensationFailure,
                new.compensation_failure_webhooks,
            ),
        ];
        for (topic, urls) in topics {
            for url in urls {
                let (record, created, act) = self.new_webhook(&namespace, topic, url, at);
                records.push(record);
                acts.push(act);
                webhooks.push(created);
            }
        }
        self.commit(turn, &namespace, records, actor, acts).await?;
        Ok(CreatedProject {
            project,
            api_key,
            webhooks,
        })
    }

    /// Durable first, visible then. The turn is held throughout, so that no later change is based on an earlier state, and it is a
    /// task of its own, so that a caller who goes away does not leave memory behind the store.
    pub(super) async fn commit(
        &self,
        turn: OwnedMutexGuard<()>,
        namespace: &Namespace,
        records: Vec<Record>,
        actor: &Actor,
        acts: Vec<Act>,
    ) -> Result<(), RegistryError> {
        let mut ops: Vec<Op> = records.iter().map(records::encode).collect();
        ops.extend(
            acts.into_iter()
                .map(|act| self.acts.record(namespace, actor, act)),
        );
        let (done, answer) = oneshot::channel();
        let (handle, registry) = (self.handle.clone(), self.registry.clone());
        seams::beside(async move {
            let result = handle.put(ops).await;
            if result.is_ok() {
                registry.apply(records);
            }
            drop(turn);
            // Nobody waits any more when the caller went away; the change stands.
            let _ = done.send(result);
        });
        Ok(answer.await.map_err(|_| CallError::ShuttingDown)??)
    }

    pub(super) async fn take_turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}

pub(super) fn short(what: &'static str, text: &str, max: usize) -> Result<(), RegistryError> {
    if text.len() > max {
        let bytes = text.len();
        Err(RegistryError::TooLong { what, bytes, max })
    } else {
        Ok(())
    }
}

pub(super) fn limit(what: &'static str, known: usize, max: usize) -> Result<(), RegistryError> {
    if known >= max {
        Err(RegistryError::Limit { what, max })
    } else {
        Ok(())
    }
}
