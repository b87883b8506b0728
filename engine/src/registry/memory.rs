//! The registry in memory: what [`super::Registry`] reads behind its lock.
//!
//! Invariant: applying the records of the store in any order gives the same memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use orchestrion_history::ids::Namespace;

use super::ids::KeyDigest;
use super::records::Record;
use super::{Project, RegisteredService, Topic, Webhook};
use crate::plan;

#[derive(Default)]
pub(super) struct Memory {
    keys: HashMap<KeyDigest, Namespace>,
    tenants: HashMap<Namespace, Tenant>,
}

#[derive(Default)]
struct Tenant {
    project: Option<Arc<Project>>,
    api_keys: usize,
    services: BTreeMap<String, Arc<RegisteredService>>,
    /// The same services, ready to be handed out.
    planning: Arc<[plan::Service]>,
    /// By time of creation, then id.
    webhooks: BTreeMap<(i64, String), Arc<Webhook>>,
}

impl Memory {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Project { namespace, project } => {
                self.tenant(namespace).project = Some(Arc::new(project));
            }
            Record::ApiKey { digest, namespace } => {
                if self.keys.insert(digest, namespace.clone()).is_none() {
                    self.tenant(namespace).api_keys += 1;
                }
            }
            Record::Service { namespace, service } => {
                let tenant = self.tenant(namespace);
                tenant
                    .services
                    .insert(service.service.id.clone(), Arc::new(service));
                tenant.planning = tenant
                    .services
                    .values()
                    .map(|s| s.service.clone())
                    .collect();
            }
            Record::Webhook { namespace, webhook } => {
                let place = (webhook.created_at.0, webhook.id.clone());
                self.tenant(namespace)
                    .webhooks
                    .insert(place, Arc::new(webhook));
            }
        }
    }

    fn tenant(&mut self, namespace: Namespace) -> &mut Tenant {
        self.tenants.entry(namespace).or_default()
    }

    pub(super) fn project_of_key(&self, key: KeyDigest) -> Option<Namespace> {
        let namespace = self.keys.get(&key)?;
        // A key without its project is half a record: nobody may use it.
        self.project(namespace).map(|_| namespace.clone())
    }

    pub(super) fn project(&self, namespace: &Namespace) -> Option<Arc<Project>> {
        self.tenants.get(namespace)?.project.clone()
    }

    pub(super) fn services(&self, namespace: &Namespace) -> Arc<[plan::Service]> {
        self.tenants
            .get(namespace)
            .map_or_else(|| Arc::from([]), |tenant| Arc::clone(&tenant.planning))
    }

    pub(super) fn service(
        &self,
        namespace: &Namespace,
        id: &str,
    ) -> Option<Arc<RegisteredService>> {
        self.tenants.get(namespace)?.services.get(id).cloned()
    }

    pub(super) fn webhooks(&self, namespace: &Namespace, topic: Topic) -> Vec<Arc<Webhook>> {
        let webhooks = self
            .tenants
            .get(namespace)
            .into_iter()
            .flat_map(|tenant| tenant.webhooks.values());
        webhooks
            .filter(|webhook| webhook.topic == topic)
            .cloned()
            .collect()
    }

    pub(super) fn webhook(&self, namespace: &Namespace, id: &str) -> Option<Arc<Webhook>> {
        self.tenants
            .get(namespace)?
            .webhooks
            .values()
            .find(|webhook| webhook.id == id)
            .cloned()
    }

    pub(super) fn api_keys(&self, namespace: &Namespace) -> usize {
        self.tenants
            .get(namespace)
            .map_or(0, |tenant| tenant.api_keys)
    }
}
