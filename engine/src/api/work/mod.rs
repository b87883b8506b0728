//! What the wires of services have in common: attempts as services name them, and how their answers are put to the engine.
//!
//! ```text
//!  orra's socket     --\
//!                       >-- Answering --Request--> engine
//!  our worker stream --/        '-- locate: after a reconnect or a restart, by the idempotency key
//! ```

pub mod answering;
pub mod key;
pub mod locate;

use std::time::Duration;

use orchestrion_history::ids::Namespace;
use orchestrion_proto::temporal::api::common::v1::Payload;
use serde_json::json;
use tokio::sync::watch;

use crate::engine::handle::{Dispatch, Handle, SessionId, Target};
use crate::orchestration::COMPENSATION_HEADER;
use crate::orchestration::effect::rfc3339;
use crate::orchestration::submission::json_payload;
use crate::registry::Registry;
use crate::registry::ids::KeyDigest;

/// The largest message of a service. Results above the engine's payload limit are refused one by one; only beyond this is the
/// connection closed.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Which attempt a message is about, as the service says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempt {
    /// Of the attempt.
    pub execution_id: String,
    /// Of the activity.
    pub idempotency_key: String,
}

/// Whether an attempt undoes what another did.
pub fn undoes(dispatch: &Dispatch) -> bool {
    let has_context = context_in(dispatch).is_some();
    locate::is_revert(
        &dispatch.workflow_type,
        &dispatch.activity_type,
        has_context,
    )
}

/// Why an undoing is asked for: as its header says, or that a workflow wants it.
pub fn context_of(dispatch: &Dispatch) -> Payload {
    context_in(dispatch).cloned().unwrap_or_else(|| {
        json_payload(&json!({
            "orchestrationId": dispatch.workflow_id.as_str(),
            "reason": "aborted",
            "payload": null,
            "timestamp": rfc3339(dispatch.scheduled_at),
        }))
    })
}

fn context_in(dispatch: &Dispatch) -> Option<&Payload> {
    let header = dispatch.header.as_ref()?;
    header.fields.get(COMPENSATION_HEADER)
}

/// An attempt a service may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The run.
    pub target: Target,
    /// The activity's scheduling event.
    pub scheduled_event_id: i64,
    /// Which attempt; `None` when the service does not say it in a way we know.
    pub attempt: Option<i32>,
    /// The id the workflow gave it.
    pub activity_id: String,
    /// Whether it undoes a task.
    pub revert: bool,
}

impl Assignment {
    /// Of an attempt as it is handed out.
    pub fn of(dispatch: &Dispatch, revert: bool) -> Self {
        Self {
            target: Target {
                namespace: dispatch.namespace.clone(),
                workflow_id: dispatch.workflow_id.clone(),
                run_id: Some(dispatch.run_id),
            },
            scheduled_event_id: dispatch.scheduled_event_id,
            attempt: Some(dispatch.attempt),
            activity_id: dispatch.activity_id.clone(),
            revert,
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It worked. JSON text as it is recorded: of a task `{"task":…,"compensation":…}`, of a revert `{"status":…}`.
    Completed(Vec<u8>),
    /// The service ends the whole orchestration, with this JSON text as the reason.
    Aborted(Vec<u8>),
    /// It did not work.
    Failed {
        /// Why.
        text: String,
        /// Another attempt would fail as well.
        permanent: bool,
    },
}

/// A message that ends an attempt. What it means may depend on what the attempt was to do.
pub trait Said {
    /// How the attempt ended; `default_ttl` is for a service that says not how long its task can be undone.
    fn outcome(&self, to: &Assignment, default_ttl: Duration) -> Outcome;
}

/// The engine's side of a connection; dropping it gives the session back, and unanswered attempts with it.
pub struct Attached {
    handle: Handle,
    id: SessionId,
}

impl Attached {
    /// Of a session that was attached.
    pub fn new(handle: &Handle, id: SessionId) -> Self {
        Self {
            handle: handle.clone(),
            id,
        }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// So many attempts were answered: there is room for others.
    pub fn release(&self, slots: usize) {
        for _ in 0..slots {
            self.handle.release(self.id);
        }
    }

    /// No more attempts, but answers to those there are.
    pub fn pause(&self) {
        self.handle.pause(self.id);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.handle.detach(self.id);
    }
}

/// What a connection stands on: its service, and the key it came with.
pub struct Standing {
    registry: Registry,
    namespace: Namespace,
    service_id: String,
    key: KeyDigest,
    removals: watch::Receiver<u64>,
}

impl Standing {
    /// Of a connection that begins.
    pub fn new(
        registry: Registry,
        namespace: Namespace,
        service_id: String,
        key: KeyDigest,
    ) -> Self {
        Self {
            removals: registry.removals(),
            registry,
            namespace,
            service_id,
            key,
        }
    }

    /// Waits until one of them is taken away.
    pub async fn lost(&mut self) {
        loop {
            let held = self.registry.holds_key(self.key)
                && self
                    .registry
                    .service(&self.namespace, &self.service_id)
                    .is_some();
            // The registry outlives its connections: this holds it.
            if !held || self.removals.changed().await.is_err() {
                return;
            }
        }
    }
}
