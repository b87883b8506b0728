//! The registry in memory: what [`super::Registry`] reads behind its lock.
//!
//! Invariant: applying the records of the store in any order gives the same memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestrion_history::ids::Namespace;

use super::ids::KeyDigest;
use super::records::Record;
use super::{Identity, KnownNamespace, Project, ProjectKey, RegisteredService, Topic, Webhook};
use crate::grounding::Grounding;
use crate::plan;
use crate::visibility::Catalogue;

#[derive(Default)]
pub(super) struct Memory {
    keys: HashMap<KeyDigest, Held>,
    tenants: HashMap<Namespace, Tenant>,
}

/// A key, and whether it was used since its uses were written down last.
struct Held {
    namespace: Namespace,
    key: ProjectKey,
    id: String,
    used: AtomicBool,
}

#[derive(Default)]
struct Tenant {
    project: Option<Arc<Project>>,
    /// By time of creation.
    api_keys: BTreeMap<(i64, [u8; 32]), KeyDigest>,
    services: BTreeMap<String, Arc<RegisteredService>>,
    /// The same services, ready to be handed out.
    planning: Arc<[plan::Service]>,
    /// By name.
    groundings: BTreeMap<String, Arc<Grounding>>,
    /// By time of creation, then id.
    webhooks: BTreeMap<(i64, String), Arc<Webhook>>,
    /// As it was registered or changed, if it was.
    known: Option<Arc<KnownNamespace>>,
    catalogue: Arc<Catalogue>,
}

impl Tenant {
    fn plan_with_services(&mut self) {
        self.planning = self.services.values().map(|s| s.service.clone()).collect();
    }
}

impl Memory {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Project { namespace, project } => {
                self.tenant(namespace).project = Some(Arc::new(project));
            }
            Record::ApiKey { namespace, key } => {
                let place = (key.created_at.0, key.digest.0);
                self.tenant(namespace.clone())
                    .api_keys
                    .insert(place, key.digest);
                let before = self.keys.remove(&key.digest);
                let held = Held {
                    namespace,
                    id: key.id(),
                    used: before.map_or_else(Default::default, |before| before.used),
                    key,
                };
                self.keys.insert(held.key.digest, held);
            }
            Record::ApiKeyRevoked { namespace, digest } => {
                self.keys.remove(&digest);
                self.tenant(namespace)
                    .api_keys
                    .retain(|_, known| *known != digest);
            }
            Record::Service { namespace, service } => {
                let tenant = self.tenant(namespace);
                tenant
                    .services
                    .insert(service.service.id.clone(), Arc::new(service));
                tenant.plan_with_services();
            }
            Record::ServiceDeleted { namespace, id } => {
                let tenant = self.tenant(namespace);
                tenant.services.remove(&id);
                tenant.plan_with_services();
            }
            Record::Grounding {
                namespace,
                grounding,
            } => {
                let name = grounding.spec.name.clone();
                self.tenant(namespace).groundings.insert(name, grounding);
            }
            Record::GroundingRemoved { namespace, name } => {
                self.tenant(namespace).groundings.remove(&name);
            }
            Record::Webhook { namespace, webhook } => {
                let place = (webhook.created_at.0, webhook.id.clone());
                self.tenant(namespace)
                    .webhooks
                    .insert(place, Arc::new(webhook));
            }
            Record::WebhookRemoved { namespace, id } => {
                self.tenant(namespace)
                    .webhooks
                    .retain(|_, webhook| webhook.id != id);
            }
            Record::Namespace { namespace, known } => {
                self.tenant(namespace).known = Some(Arc::new(known));
            }
            Record::SearchAttribute {
                namespace,
                name,
                kind,
                ..
            } => Arc::make_mut(&mut self.tenant(namespace).catalogue).add(name, kind),
            Record::SearchAttributeRemoved { namespace, name } => {
                Arc::make_mut(&mut self.tenant(namespace).catalogue).remove(&name);
            }
        }
    }

    fn tenant(&mut self, namespace: Namespace) -> &mut Tenant {
        self.tenants.entry(namespace).or_default()
    }

    pub(super) fn namespaces(&self) -> Vec<Namespace> {
        self.tenants.keys().cloned().collect()
    }

    /// A key, and its project.
    pub(super) fn key(&self, digest: KeyDigest) -> Option<(&Namespace, &ProjectKey)> {
        let held = self.keys.get(&digest)?;
        // A key without its project is half a record: nobody may use it.
        self.project(&held.namespace)
            .map(|_| (&held.namespace, &held.key))
    }

    pub(super) fn identify(&self, digest: KeyDigest) -> Option<Identity> {
        let held = self.keys.get(&digest)?;
        self.project(&held.namespace)?;
        held.used.store(true, Ordering::Relaxed);
        Some(Identity {
            namespace: held.namespace.clone(),
            key_id: held.id.clone(),
        })
    }

    /// The keys that were used since this was asked last.
    pub(super) fn take_used_keys(&self) -> Vec<(Namespace, ProjectKey)> {
        let used = self
            .keys
            .values()
            .filter(|held| held.used.swap(false, Ordering::Relaxed));
        used.map(|held| (held.namespace.clone(), held.key.clone()))
            .collect()
    }

    pub(super) fn projects(&self) -> Vec<Arc<Project>> {
        let tenants = self.tenants.values();
        let mut projects: Vec<_> = tenants
            .filter_map(|tenant| tenant.project.clone())
            .collect();
        projects.sort_by(|a, b| a.id.cmp(&b.id));
        projects
    }

    pub(super) fn project(&self, namespace: &Namespace) -> Option<Arc<Project>> {
        self.tenants.get(namespace)?.project.clone()
    }

    pub(super) fn known(&self, namespace: &Namespace) -> Option<Arc<KnownNamespace>> {
        self.tenants.get(namespace)?.known.clone()
    }

    pub(super) fn catalogue(&self, namespace: &Namespace) -> Arc<Catalogue> {
        self.tenants
            .get(namespace)
            .map_or_else(Arc::default, |tenant| tenant.catalogue.clone())
    }

    pub(super) fn services(&self, namespace: &Namespace) -> Arc<[plan::Service]> {
        self.tenants
            .get(namespace)
            .map_or_else(|| Arc::from([]), |tenant| Arc::clone(&tenant.planning))
    }

    pub(super) fn registered_services(&self, namespace: &Namespace) -> Vec<Arc<RegisteredService>> {
        let tenant = self.tenants.get(namespace).into_iter();
        tenant
            .flat_map(|tenant| tenant.services.values().cloned())
            .collect()
    }

    pub(super) fn service(
        &self,
        namespace: &Namespace,
        id: &str,
    ) -> Option<Arc<RegisteredService>> {
        self.tenants.get(namespace)?.services.get(id).cloned()
    }

    pub(super) fn groundings(&self, namespace: &Namespace) -> Vec<Arc<Grounding>> {
        let tenant = self.tenants.get(namespace).into_iter();
        tenant
            .flat_map(|tenant| tenant.groundings.values().cloned())
            .collect()
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

    pub(super) fn api_keys(&self, namespace: &Namespace) -> Vec<ProjectKey> {
        let digests = self.tenants.get(namespace).into_iter();
        digests
            .flat_map(|tenant| tenant.api_keys.values())
            .filter_map(|digest| self.keys.get(digest).map(|held| held.key.clone()))
            .collect()
    }
}
