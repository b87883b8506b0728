//! What must leave the engine: webhooks, each at least once, under an id by which receivers drop repeats.
//!
//! ```text
//!  effect of a turn --entries_for--> OutboxEntry, committed with the turn --notify--> Worker --POST--> webhook
//!  store, at the start ----------------------- pending entries -------------------------^  |
//!                                                                     outcome, next try <--'  (committed)
//! ```
//!
//! | what                                 | file          |
//! |--------------------------------------|---------------|
//! | one try                              | `deliver.rs`  |
//! | where a try may go                   | `guard.rs`    |
//! | what came of the last tries          | `log.rs`      |
//! | what is tried when                   | `schedule.rs` |
//! | signatures                           | `sign.rs`     |
//! | the loop                             | `worker.rs`   |
//!
//! Invariant: an entry is committed with what it tells of, and tried until it is delivered or its time is over.
//! Invariant: each webhook has its own entry; the event id they are sent is the same.

mod deliver;
pub mod guard;
pub mod log;
mod schedule;
mod sign;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::Key;
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::{OutboxEntry, WebhookDelivery, outbox_entry};
use tokio::sync::mpsc;

pub use self::deliver::Receivers;
pub use self::sign::{is_signed_by, signature, signatures};
pub use self::worker::Worker;
use crate::engine::{Keep, Surroundings};
use crate::orchestration::Effect;
use crate::orchestration::effect::{
    COMPENSATION_EVENT_TYPE, compensation_body, compensation_event_id,
};
use crate::registry::{NamespaceState, Registry, Topic};
use crate::visibility::Catalogue;

/// Tells the worker of committed entries.
#[derive(Debug, Clone)]
pub struct Notifier(mpsc::UnboundedSender<Vec<Key>>);

/// Where the worker hears of committed entries.
pub type Committed = mpsc::UnboundedReceiver<Vec<Key>>;

impl Notifier {
    /// A notifier and its worker's end.
    pub fn new() -> (Self, Committed) {
        let (sender, committed) = mpsc::unbounded_channel();
        (Self(sender), committed)
    }

    /// These entries are durable. Only keys wait in memory, and the worker bounds how many it keeps.
    pub fn committed(&self, keys: Vec<Key>) {
        // Without a worker the entries wait in the store for the next start.
        let _ = self.0.send(keys);
    }
}

/// The outbox as the engine sees it.
pub struct Outbox {
    registry: Registry,
    notifier: Notifier,
}

impl Outbox {
    /// An outbox for the webhooks of a registry.
    pub fn new(registry: Registry, notifier: Notifier) -> Self {
        Self { registry, notifier }
    }
}

impl Surroundings for Outbox {
    fn outbox_entries(&self, namespace: &Namespace, effect: &Effect) -> Vec<(Key, Bytes)> {
        let entries = entries_for(&self.registry, namespace, effect);
        entries
            .into_iter()
            .map(|(key, entry)| (key, Bytes::from(entry.encode_to_vec())))
            .collect()
    }

    fn outbox_committed(&self, keys: Vec<Key>) {
        self.notifier.committed(keys);
    }

    fn catalogue(&self, namespace: &Namespace) -> Option<Arc<Catalogue>> {
        Some(self.registry.catalogue(namespace))
    }

    fn keep(&self, namespace: &Namespace) -> Keep {
        if self.registry.namespace_state(namespace) == NamespaceState::Deleted {
            return Keep::Nothing;
        }
        let known = self.registry.known_namespace(namespace);
        known.retention.map_or(Keep::AsSet, Keep::For)
    }
}

/// What an effect has to tell.
struct Event {
    event_id: String,
    event_type: &'static str,
    body: String,
    at: Timestamp,
}

impl Event {
    fn of(namespace: &Namespace, effect: &Effect) -> Self {
        match effect {
            Effect::StatusChanged(change) => Self {
                event_id: change.event_id.clone(),
                event_type: change.status.event_type(),
                body: change.body(namespace.as_str()).to_string(),
                at: change.at,
            },
            Effect::CompensationFailed(record) => Self {
                event_id: compensation_event_id(record),
                event_type: COMPENSATION_EVENT_TYPE,
                body: compensation_body(record, namespace.as_str()),
                at: Timestamp(record.at),
            },
        }
    }
}

/// The entries of an effect: one for each webhook of the project that is told of such things.
pub fn entries_for(
    registry: &Registry,
    namespace: &Namespace,
    effect: &Effect,
) -> Vec<(Key, OutboxEntry)> {
    let topic = match effect {
        Effect::StatusChanged(_) => Topic::Orchestration,
        Effect::CompensationFailed(_) => Topic::CompensationFailure,
    };
    let mut receivers: Vec<(String, String)> = registry
        .webhooks(namespace, topic)
        .iter()
        .map(|webhook| (webhook.id.clone(), webhook.url.clone()))
        .collect();
    receivers.extend(own_receiver(registry, namespace, effect, &receivers));
    if receivers.is_empty() {
        return Vec::new();
    }
    let event = Event::of(namespace, effect);
    let entry = |webhook_id: &str, url: &str| OutboxEntry {
        event_id: event.event_id.clone(),
        kind: Some(outbox_entry::Kind::Webhook(WebhookDelivery {
            webhook_id: webhook_id.to_owned(),
            url: url.to_owned(),
            event_type: event.event_type.to_owned(),
            body_json: event.body.clone(),
        })),
        created_at: event.at.0,
        next_attempt_at: event.at.0,
        ..Default::default()
    };
    receivers
        .iter()
        .map(|(id, url)| (key_of(namespace, &event.event_id, id), entry(id, url)))
        .collect()
}

/// The URL that the submission itself named, and the webhook record that signs for it. One that is told anyway is not told twice.
fn own_receiver(
    registry: &Registry,
    namespace: &Namespace,
    effect: &Effect,
    told: &[(String, String)],
) -> Option<(String, String)> {
    let Effect::StatusChanged(change) = effect else {
        return None;
    };
    let url = change.webhook.as_ref()?;
    if told.iter().any(|(_, known)| known == url) {
        return None;
    }
    let signer = registry.webhooks(namespace, Topic::Submission);
    Some((signer.first()?.id.clone(), url.clone()))
}

fn key_of(namespace: &Namespace, event_id: &str, webhook_id: &str) -> Key {
    Key::Outbox {
        shard: ShardId::REGISTRY,
        namespace: namespace.clone(),
        event_id: format!("{event_id}/{webhook_id}"),
    }
}
