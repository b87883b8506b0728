//! API keys of projects: made, named, used, revoked.
//!
//! Invariant: a project keeps at least one key.
//! Invariant: the last use of a key costs no commit of its own request; uses are written down together, once an interval.

use std::time::Duration;

use orchestrion_history::ids::{Namespace, Timestamp};

use super::ids::ApiKey;
use super::records::Record;
use super::registrar::{Registrar, RegistryError, limit, short};
use super::{API_KEY_NAME_BYTES_MAX, API_KEYS_PER_PROJECT_MAX, ProjectKey};
use crate::acts::{Act, Actor, What};

/// What the key is called that comes with a new project.
pub(super) const FIRST_KEY_NAME: &str = "first key";

/// A new key, with what is shown only now.
#[derive(Debug, Clone)]
pub struct CreatedApiKey {
    /// As it is kept.
    pub kept: ProjectKey,
    /// The key itself.
    pub key: ApiKey,
}

impl Registrar {
    /// One more key of a project.
    pub async fn add_api_key(
        &self,
        namespace: &Namespace,
        name: &str,
        actor: &Actor,
    ) -> Result<CreatedApiKey, RegistryError> {
        short("the key's name", name, API_KEY_NAME_BYTES_MAX)?;
        let turn = self.take_turn().await;
        let known = self.registry.api_keys(namespace).len();
        limit("api keys", known, API_KEYS_PER_PROJECT_MAX)?;
        let key = ApiKey::generate(&*self.ids);
        let at = self.clock.now();
        let (record, act) = self.new_api_key(namespace, &key, name, at);
        let kept = kept(&key, name, at);
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await?;
        Ok(CreatedApiKey { kept, key })
    }

    /// Takes a key away, by its public id. Requests with it are refused from now on, and sockets that came with it are closed.
    pub async fn revoke_api_key(
        &self,
        namespace: &Namespace,
        id: &str,
        actor: &Actor,
    ) -> Result<(), RegistryError> {
        let turn = self.take_turn().await;
        let keys = self.registry.api_keys(namespace);
        let Some(key) = keys.iter().find(|key| key.id() == id) else {
            return Err(RegistryError::Unknown {
                what: "api key",
                id: id.to_owned(),
                list: "/apikeys",
            });
        };
        if keys.len() == 1 {
            return Err(RegistryError::LastKey(id.to_owned()));
        }
        let record = Record::ApiKeyRevoked {
            namespace: namespace.clone(),
            digest: key.digest,
        };
        let act = Act::new(What::ApiKeyRevoked, id).with("name", key.name.clone());
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await
    }

    /// Writes down which keys were used since this was asked last, each no more often than once in `interval`. Answers how many were.
    pub async fn note_key_uses(&self, interval: Duration) -> Result<usize, RegistryError> {
        // Within a turn: a key that is revoked meanwhile does not come back by its last use.
        let turn = self.take_turn().await;
        let now = self.clock.now();
        let due = |key: &ProjectKey| key.last_used_at.is_none_or(|at| now.since(at) >= interval);
        let used = self.registry.take_used_keys();
        let records: Vec<Record> = used
            .into_iter()
            .filter(|(_, key)| due(key))
            .map(|(namespace, key)| Record::ApiKey {
                namespace,
                key: ProjectKey {
                    last_used_at: Some(now),
                    ..key
                },
            })
            .collect();
        let count = records.len();
        if count > 0 {
            self.commit(turn, &Namespace::system(), records, &Actor::ENGINE, vec![])
                .await?;
        }
        Ok(count)
    }

    pub(super) fn new_api_key(
        &self,
        namespace: &Namespace,
        key: &ApiKey,
        name: &str,
        at: Timestamp,
    ) -> (Record, Act) {
        let kept = kept(key, name, at);
        let act = Act::new(What::ApiKeyAdded, kept.id()).with("name", name);
        let record = Record::ApiKey {
            namespace: namespace.clone(),
            key: kept,
        };
        (record, act)
    }
}

fn kept(key: &ApiKey, name: &str, created_at: Timestamp) -> ProjectKey {
    ProjectKey {
        digest: key.digest(),
        name: name.to_owned(),
        created_at,
        last_used_at: None,
    }
}
