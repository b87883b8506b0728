//! Services and agents: registered, replaced by their next version, deleted.
//!
//! Invariant: a service that somebody still needs is deleted only by whoever says so.

use orchestrion_history::ids::{Namespace, ShardId, TaskQueueName};
use orchestrion_history::store::{KeyRange, QueueKind};
use serde_json::Value;

use super::records::Record;
use super::registrar::{Registrar, RegistryError, limit};
use super::{RegisteredService, SERVICES_PER_PROJECT_MAX, ServiceKind, ids};
use crate::acts::{Act, Actor, What};
use crate::engine::handle::CallError;
use crate::plan;

/// Waiting attempts that are counted; more are not told apart.
const WAITING_COUNTED_MAX: usize = 1_000;

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

impl Registration {
    /// Whether a registered service is exactly this.
    pub fn describes(&self, registered: &RegisteredService) -> bool {
        let service = &registered.service;
        (self.kind, &self.name, &self.description)
            == (registered.kind, &service.name, &service.description)
            && self.input_schema == *service.input_schema
            && self.output_schema == service.output_schema
            && self.revertible == service.revertible
    }
}

impl Registrar {
    /// A new service, or the next version of a known one, which replaces everything of it.
    pub async fn register_service(
        &self,
        namespace: &Namespace,
        registration: Registration,
        actor: &Actor,
    ) -> Result<RegisteredService, RegistryError> {
        let turn = self.take_turn().await;
        let at = self.clock.now();
        let (id, version, created_at) = match registration.id {
            Some(id) => match self.registry.service(namespace, &id) {
                Some(known) => (id, known.version + 1, known.created_at),
                // On a stream its name is enough: who comes with it is the service that came with it before.
                None if id == ids::named_service_id(namespace, &registration.name) => {
                    self.room_for_a_service(namespace)?;
                    (id, 1, at)
                }
                None => return Err(RegistryError::UnknownService(id)),
            },
            None => {
                self.room_for_a_service(namespace)?;
                (ids::service_id(&*self.ids), 1, at)
            }
        };
        let service = RegisteredService {
            service: plan::Service {
                id,
                name: registration.name,
                description: registration.description,
                input_schema: registration.input_schema.into(),
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
        let act = Act::new(What::ServiceRegistered, service.service.id.clone())
            .with("name", service.service.name.clone())
            .with("version", service.version);
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await?;
        Ok(service)
    }

    fn room_for_a_service(&self, namespace: &Namespace) -> Result<(), RegistryError> {
        let known = self.registry.services(namespace).len();
        limit("services", known, SERVICES_PER_PROJECT_MAX)
    }

    /// Takes a service out of the project: the planner is not offered it any more and its sockets are closed. Without `force` a service
    /// is kept that is connected, or for which attempts wait; with it, those wait until their grace period ends, and fail.
    pub async fn delete_service(
        &self,
        namespace: &Namespace,
        id: &str,
        force: bool,
        actor: &Actor,
    ) -> Result<(), RegistryError> {
        let turn = self.take_turn().await;
        let Some(service) = self.registry.service(namespace, id) else {
            return Err(RegistryError::Unknown {
                what: "service",
                id: id.to_owned(),
                list: "/services",
            });
        };
        if !force {
            let (sessions, waiting) = self.demand_for(namespace, id).await?;
            if sessions + waiting > 0 {
                return Err(RegistryError::InUse {
                    id: id.to_owned(),
                    sessions,
                    waiting,
                });
            }
        }
        let record = Record::ServiceDeleted {
            namespace: namespace.clone(),
            id: id.to_owned(),
        };
        let act = Act::new(What::ServiceDeleted, id)
            .with("name", service.service.name.clone())
            .with("version", service.version)
            .with("forced", force);
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await
    }

    /// How many sessions serve a service now, and how many attempts wait for one or are under way.
    async fn demand_for(
        &self,
        namespace: &Namespace,
        id: &str,
    ) -> Result<(usize, usize), RegistryError> {
        let queue = TaskQueueName::parse(id)?;
        let presence = self
            .handle
            .presence(namespace.clone(), queue.clone())
            .await?;
        let mut waiting = 0;
        for shard in 0..self.handle.shards() {
            let range = KeyRange::queue(ShardId(shard), namespace, QueueKind::Activity, &queue);
            let page = self
                .handle
                .store()
                .scan(&range, WAITING_COUNTED_MAX, false)
                .map_err(CallError::from)?;
            waiting += page.entries.len();
        }
        Ok((presence.sessions, waiting))
    }
}
