//! The only writer of the registry: one change at a time, committed before it is seen or answered.
//!
//! Invariant: a refused change leaves no trace; a secret leaves this file once, in the answer to the call that made it.

use std::sync::Arc;

use orchestrion_history::ids::{InvalidName, Namespace, Timestamp};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::ids::{self, ApiKey, WebhookSecret};
use super::records::{self, Record};
use super::{
    API_KEYS_PER_PROJECT_MAX, PROJECT_NAME_BYTES_MAX, Project, RegisteredService, Registry,
    SERVICES_PER_PROJECT_MAX, ServiceKind, Topic, WEBHOOK_URL_BYTES_MAX, WEBHOOKS_PER_TOPIC_MAX,
    Webhook,
};
use crate::engine::handle::{CallError, Handle};
use crate::plan;
use crate::seams::{self, Chance, Clock};

/// Why the registry did not change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// No such service in this project.
    #[error(
        "service with id {0} not found in this project: register without an id to get a new one"
    )]
    UnknownService(String),
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

/// A URL that deliveries can go to: absolute, http or https, with a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    /// Checks a URL; it is kept as it was given.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let refuse = |reason: String| RegistryError::InvalidUrl {
            url: text.to_owned(),
            reason,
        };
        if text.len() > WEBHOOK_URL_BYTES_MAX {
            return Err(RegistryError::TooLong {
                what: "a webhook url",
                bytes: text.len(),
                max: WEBHOOK_URL_BYTES_MAX,
            });
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(refuse("it holds a space or a control character".to_owned()));
        }
        let url = reqwest::Url::parse(text)
            .map_err(|e| refuse(format!("{e}; give an absolute http or https url")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("give an absolute http or https url".to_owned()));
        }
        if !url.has_host() {
            return Err(refuse("it names no host".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
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

/// A new webhook, with what is shown only now.
#[derive(Debug, Clone)]
pub struct CreatedWebhook {
    /// Its id.
    pub id: String,
    /// Its URL.
    pub url: String,
    /// What it is told of.
    pub topic: Topic,
    /// Signs its deliveries.
    pub secret: WebhookSecret,
}

/// A service or agent that registers, already checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// `None` makes a new one.
    pub id: Option<String>,
    /// Which route it came by.
    pub kind: ServiceKind,
    /// Not unique.
    pub name: String,
    /// Shown to the planner.
    pub description: String,
    /// JSON Schema, type object.
    pub input_schema: Value,
    /// JSON Schema, type object.
    pub output_schema: Value,
    /// Whether its tasks can be undone.
    pub revertible: bool,
}

/// Changes the registry. Clones share the lock.
#[derive(Clone)]
pub struct Registrar {
    registry: Registry,
    handle: Handle,
    ids: Arc<dyn Chance>,
    clock: Arc<dyn Clock>,
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
            ids,
            clock,
            turn: Arc::default(),
        }
    }

    /// The registry it changes.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A new project with its first key and its webhooks, in one commit.
    pub async fn create_project(&self, new: NewProject) -> Result<CreatedProject, RegistryError> {
        if new.name.len() > PROJECT_NAME_BYTES_MAX {
            let bytes = new.name.len();
            return Err(RegistryError::TooLong {
                what: "the project's name",
                bytes,
                max: PROJECT_NAME_BYTES_MAX,
            });
        }
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
        let mut records = vec![
            Record::Project {
                namespace: namespace.clone(),
                project: project.clone(),
            },
            Record::ApiKey {
                digest: api_key.digest(),
                namespace: namespace.clone(),
            },
        ];
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
                let (record, created) = self.new_webhook(&namespace, topic, url, at);
                records.push(record);
                webhooks.push(created);
            }
        }
        self.commit(turn, records, at).await?;
        Ok(CreatedProject {
            project,
            api_key,
            webhooks,
        })
    }

    /// One more key of a project.
    pub async fn add_api_key(&self, namespace: &Namespace) -> Result<ApiKey, RegistryError> {
        let turn = self.take_turn().await;
        limit(
            "api keys",
            self.registry.api_keys(namespace),
            API_KEYS_PER_PROJECT_MAX,
        )?;
        let key = ApiKey::generate(&*self.ids);
        let record = Record::ApiKey {
            digest: key.digest(),
            namespace: namespace.clone(),
        };
        self.commit(turn, vec![record], self.clock.now()).await?;
        Ok(key)
    }

    /// One more webhook of a project. The same URL twice is told twice.
    pub async fn add_webhook(
        &self,
        namespace: &Namespace,
        topic: Topic,
        url: WebhookUrl,
    ) -> Result<CreatedWebhook, RegistryError> {
        let turn = self.take_turn().await;
        let known = self.registry.webhooks(namespace, topic).len();
        limit("webhooks of this topic", known, WEBHOOKS_PER_TOPIC_MAX)?;
        let at = self.clock.now();
        let (record, created) = self.new_webhook(namespace, topic, url, at);
        self.commit(turn, vec![record], at).await?;
        Ok(created)
    }

    /// A new service, or the next version of a known one, which replaces everything of it.
    pub async fn register_service(
        &self,
        namespace: &Namespace,
        registration: Registration,
    ) -> Result<RegisteredService, RegistryError> {
        let turn = self.take_turn().await;
        let at = self.clock.now();
        let (id, version, created_at) = match registration.id {
            Some(id) => match self.registry.service(namespace, &id) {
                Some(known) => (id, known.version + 1, known.created_at),
                None => return Err(RegistryError::UnknownService(id)),
            },
            None => {
                limit(
                    "services",
                    self.registry.services(namespace).len(),
                    SERVICES_PER_PROJECT_MAX,
                )?;
                (ids::service_id(&*self.ids), 1, at)
            }
        };
        let service = RegisteredService {
            service: plan::Service {
                id,
                name: registration.name,
                description: registration.description,
                input_schema: registration.input_schema,
                output_schema: registration.output_schema,
                revertible: registration.revertible,
            },
            kind: registration.kind,
            version,
            created_at,
            updated_at: at,
        };
        let record = Record::Service {
            namespace: namespace.clone(),
            service: service.clone(),
        };
        self.commit(turn, vec![record], at).await?;
        Ok(service)
    }

    fn new_webhook(
        &self,
        namespace: &Namespace,
        topic: Topic,
        url: WebhookUrl,
        at: Timestamp,
    ) -> (Record, CreatedWebhook) {
        let webhook = Webhook {
            id: ids::webhook_id(&*self.ids),
            url: url.0,
            topic,
            secret: WebhookSecret::generate(&*self.ids),
            created_at: at,
        };
        let created = CreatedWebhook {
            id: webhook.id.clone(),
            url: webhook.url.clone(),
            topic,
            secret: webhook.secret.clone(),
        };
        (
            Record::Webhook {
                namespace: namespace.clone(),
                webhook,
            },
            created,
        )
    }

    /// Durable first, visible then. The turn is held throughout, so that no later change is based on an earlier state, and it is a
    /// task of its own, so that a caller who goes away does not leave memory behind the store.
    async fn commit(
        &self,
        turn: OwnedMutexGuard<()>,
        records: Vec<Record>,
        at: Timestamp,
    ) -> Result<(), RegistryError> {
        let (done, answer) = oneshot::channel();
        let (handle, registry) = (self.handle.clone(), self.registry.clone());
        seams::spawn(async move {
            let result = handle
                .put(
                    records
                        .iter()
                        .map(|record| records::encode(record, at))
                        .collect(),
                )
                .await;
            if result.is_ok() {
                registry.apply(records);
            }
            drop(turn);
            // Nobody waits any more when the caller went away; the change stands.
            let _ = done.send(result);
        });
        Ok(answer.await.map_err(|_| CallError::ShuttingDown)??)
    }

    async fn take_turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}

fn limit(what: &'static str, known: usize, max: usize) -> Result<(), RegistryError> {
    if known >= max {
        Err(RegistryError::Limit { what, max })
    } else {
        Ok(())
    }
}
