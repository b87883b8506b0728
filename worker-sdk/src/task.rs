//! What handlers are given, and what they give back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrion_proto::worker as wire;
use orchestrion_proto::worker::from_worker::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// A handler's message, and the idempotency key of its task.
pub(crate) type Report = (Arc<str>, Message);

/// The task a handler works on. Clones are the same task.
#[derive(Clone)]
pub struct Task {
    pub(crate) key: Arc<str>,
    pub(crate) about: Arc<About>,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    pub(crate) canceled: watch::Receiver<bool>,
}

/// What does not change while a handler runs.
pub(crate) struct About {
    pub(crate) id: String,
    pub(crate) execution_id: String,
    pub(crate) attempt: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) heartbeat_every: Option<Duration>,
    pub(crate) heartbeat_details: Bytes,
}

impl Task {
    /// The task's id in its plan.
    pub fn id(&self) -> &str {
        &self.about.id
    }

    /// Of this attempt.
    pub fn execution_id(&self) -> &str {
        &self.about.execution_id
    }

    /// The same for all attempts of this task, and for no other task: what a handler does under it, it does once.
    pub fn idempotency_key(&self) -> &str {
        &self.key
    }

    /// 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.about.attempt
    }

    /// How long the attempt may take, where that is limited. A result that comes later still counts if nothing else happened meanwhile.
    pub fn timeout(&self) -> Option<Duration> {
        self.about.timeout
    }

    /// How often the engine wants a [heartbeat](Self::heartbeat), if it does.
    pub fn heartbeat_every(&self) -> Option<Duration> {
        self.about.heartbeat_every
    }

    /// Tells whoever follows the orchestration how far this task is. Every update is kept in its record.
    ///
    /// It does not wait; an update that cannot be written as JSON is dropped, and logged.
    pub fn push_update<T: Serialize>(&self, update: T) {
        self.report("an update", &update, |update| {
            Message::Progress(wire::Progress {
                attempt: None,
                update,
            })
        });
    }

    /// Says that the attempt is alive. The details are given to the next attempt if this one fails.
    pub fn heartbeat<T: Serialize>(&self, details: T) {
        self.report("a heartbeat", &details, |details| {
            Message::Heartbeat(wire::Heartbeat {
                attempt: None,
                details,
            })
        });
    }

    /// The details of the last heartbeat of an earlier attempt, if there was one and they are a `T`.
    pub fn last_heartbeat<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.about.heartbeat_details).ok()
    }

    /// Ends the whole orchestration, and has undone what was done: return it as the handler's error.
    ///
    /// ```
    /// # use orchestrion_worker::{Failure, Task};
    /// # async fn handler(task: Task, sold_out: bool) -> Result<(), Failure> {
    /// if sold_out {
    ///     return Err(task.abort("sold out"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort<T: Serialize>(&self, payload: T) -> Failure {
        match serde_json::to_vec(&payload) {
            Ok(payload) => Failure(Kind::Abort(payload.into())),
            Err(error) => {
                Failure::permanent(format!("the payload of an abort is no JSON: {error}"))
            }
        }
    }

    /// Whether nobody waits for this attempt any more. Known after a heartbeat.
    pub fn is_canceled(&self) -> bool {
        *self.canceled.borrow()
    }

    /// Returns once nobody waits for this attempt any more.
    pub async fn canceled(&self) {
        let mut canceled = self.canceled.clone();
        if canceled.wait_for(|canceled| *canceled).await.is_err() {
            // Nothing will ever say so.
            std::future::pending::<()>().await;
        }
    }

    fn report<T: Serialize>(
        &self,
        what: &'static str,
        value: &T,
        message: impl FnOnce(Bytes) -> Message,
    ) {
        match serde_json::to_vec(value) {
            // The receiver is gone only when the worker has ended.
            Ok(text) => {
                _ = self
                    .reports
                    .send((Arc::clone(&self.key), message(text.into())))
            }
            Err(error) => {
                tracing::warn!(task = %self.about.id, %error, "{what} is no JSON: it is dropped");
            }
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.about.id)
            .field("execution_id", &self.about.execution_id)
            .field("attempt", &self.about.attempt)
            .finish_non_exhaustive()
    }
}

/// Why a handler did not succeed. Any error becomes one with `?`, and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub(crate) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Error { text: String, permanent: bool },
    Abort(Bytes),
}

impl Failure {
    /// The attempt failed; the engine decides about the next one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Kind::Error {
            text: text.into(),
            permanent: false,
        })
    }

    /// The task failed: another attempt would fail as well.
    pub fn permanent(text: impl Into<String>) -> Self {
        Self(Kind::Error {
            text: text.into(),
            permanent: true,
        })
    }

    pub(crate) fn into_message(self) -> Message {
        match self.0 {
            Kind::Error { text, permanent } => Message::Failed(wire::Failed {
                attempt: None,
                error: text,
                permanent,
            }),
            Kind::Abort(payload) => Message::Aborted(wire::Aborted {
                attempt: None,
                payload,
            }),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self::new(text)
    }
}

/// An undoing: what a revert handler is given beside the input and the output of the task.
#[derive(Debug, Clone)]
pub struct Undo {
    /// The undoing as a task of its own: its [id](Task::id) is that of the task it undoes.
    pub task: Task,
    /// Why it is asked for.
    pub context: RevertContext,
}

/// Why a task is to be undone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevertContext {
    /// Of which orchestration it is.
    #[serde(default)]
    pub orchestration_id: String,
    /// What happened to it.
    pub reason: Reason,
    /// The payload of the abort, or what is known of the failure.
    #[serde(default)]
    pub payload: Option<Value>,
    /// When, RFC 3339.
    #[serde(default)]
    pub timestamp: String,
}

/// What happened to an orchestration whose tasks are undone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Reason {
    /// A task failed for good.
    Failed,
    /// A service, or a person, ended it.
    Aborted,
    /// Something a later engine knows.
    #[serde(other)]
    Other,
}

/// How far an undoing came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverted {
    /// All of the task is undone.
    Completed,
    /// Some of it is; people may want to know.
    Partial {
        /// What is undone.
        completed: Vec<String>,
        /// What is not.
        remaining: Vec<String>,
    },
    /// It cannot be undone, and trying again would not help: a person has to look at it. An attempt that may be repeated returns an error
    /// instead.
    Failed {
        /// Why not.
        error: String,
    },
}

impl Reverted {
    pub(crate) fn into_message(self) -> Message {
        let (status, error, details) = match self {
            Self::Completed => (wire::RevertStatus::Completed, String::new(), Bytes::new()),
            Self::Partial {
                completed,
                remaining,
            } => {
                let details = json!({"completed": completed, "remaining": remaining});
                (
                    wire::RevertStatus::Partial,
                    String::new(),
                    details.to_string().into(),
                )
            }
            Self::Failed { error } => (wire::RevertStatus::Failed, error, Bytes::new()),
        };
        Message::Reverted(wire::Reverted {
            attempt: None,
            status: status.into(),
            error,
            details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_is_a_failure_with_its_causes() {
        let failed = || -> Result<(), Failure> {
            serde_json::from_str::<u32>("x")?;
            Ok(())
        };
        let Kind::Error { text, permanent } = failed().unwrap_err().0 else {
            panic!("no error")
        };
        assert!(text.contains("expected value") && !permanent, "{text}");
    }

    #[test]
    fn contexts_are_read_as_the_engine_writes_them() {
        let text = r#"{"orchestrationId":"o_1","reason":"aborted","payload":{"why":"sold out"},"timestamp":"2026-11-21T10:00:00Z"}"#;
        let context: RevertContext = serde_json::from_str(text).unwrap();
        assert_eq!(context.reason, Reason::Aborted);
        assert_eq!(context.payload, Some(json!({"why": "sold out"})));
        let context: RevertContext = serde_json::from_str(r#"{"reason":"eclipsed"}"#).unwrap();
        assert_eq!(context.reason, Reason::Other);
    }
}
