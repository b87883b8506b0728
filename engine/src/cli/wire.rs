//! The answers of the server that the client reads, as far as it reads them. Everything may be
//! absent: a client that refuses to show an answer for want of a member helps nobody.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `GET /orchestrations`: lists by status, absent when empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Orchestrations {
    /// Being planned.
    #[serde(deserialize_with = "or_default")]
    pub pending: Vec<Listed>,
    /// Running.
    #[serde(deserialize_with = "or_default")]
    pub processing: Vec<Listed>,
    /// Done.
    #[serde(deserialize_with = "or_default")]
    pub completed: Vec<Listed>,
    /// Failed, in planning or in a task.
    #[serde(deserialize_with = "or_default")]
    pub failed: Vec<Listed>,
    /// Cannot be done with the services there are.
    #[serde(deserialize_with = "or_default")]
    pub not_actionable: Vec<Listed>,
    /// Stopped by a task.
    #[serde(deserialize_with = "or_default")]
    pub aborted: Vec<Listed>,
    /// Stopped from outside.
    #[serde(deserialize_with = "or_default")]
    pub cancelled: Vec<Listed>,
}

/// One of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// The action's text.
    pub action: String,
    /// Its status.
    pub status: String,
    /// Why it failed: a string, or `{id,producer,error}`.
    pub error: Value,
    /// When it was submitted.
    #[serde(deserialize_with = "time")]
    pub timestamp: Option<Timestamp>,
    /// How far its undoing is.
    pub compensation: Option<CompensationSummary>,
}

/// How far the undoing of an orchestration is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CompensationSummary {
    /// Whether it goes on now.
    #[serde(deserialize_with = "some_or_any")]
    pub active: bool,
    /// How many tasks can be undone.
    pub total: u64,
    /// How many were.
    pub completed: u64,
    /// How many could not be.
    pub failed: u64,
}

/// `POST /orchestrations`: what was accepted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Submitted {
    /// Its id.
    pub id: String,
    /// The plan it follows.
    #[serde(deserialize_with = "or_default")]
    pub plan: Plan,
}

/// A plan, as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Its tasks but `task0`.
    #[serde(deserialize_with = "or_default")]
    pub tasks: Vec<PlannedTask>,
    /// The ids of tasks that run together, group after group.
    #[serde(deserialize_with = "or_default")]
    pub parallel_groups: Vec<Vec<String>>,
}

/// One task of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PlannedTask {
    /// Its id.
    pub id: String,
    /// The service's id.
    pub service: String,
    /// The service's name.
    pub service_name: String,
    /// Its inputs, references included.
    pub input: Value,
}

/// `GET /orchestrations/inspections/{id}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Inspection {
    /// Its id.
    pub id: String,
    /// Its status.
    pub status: String,
    /// The action's text.
    pub action: String,
    /// When its status changed last.
    #[serde(deserialize_with = "time")]
    pub timestamp: Option<Timestamp>,
    /// Why it failed: a string, or `{id,producer,error}`.
    pub error: Value,
    /// Who stopped it, and what it said.
    pub abort_info: Option<AbortInfo>,
    /// Its tasks; none when it was never planned.
    #[serde(deserialize_with = "or_default")]
    pub tasks: Vec<Task>,
    /// What came of it.
    #[serde(deserialize_with = "or_default")]
    pub results: Vec<Value>,
}

/// Who stopped an orchestration, and what it said.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AbortInfo {
    /// The task.
    pub task_id: String,
    /// Its service.
    pub service_name: String,
    /// What it handed over.
    pub payload: Value,
}

/// One task of an orchestration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its service.
    pub service_name: String,
    /// Its status.
    pub status: String,
    /// What happened to it, oldest first.
    #[serde(deserialize_with = "or_default")]
    pub status_history: Vec<StatusEvent>,
    /// What it was given.
    pub input: Value,
    /// What came of it.
    pub output: Value,
    /// What it said when it stopped everything.
    pub abort_payload: Value,
    /// Its last error.
    #[serde(deserialize_with = "or_default")]
    pub error: String,
    /// From its first to its last event, in nanoseconds.
    pub duration: i64,
    /// What it told on the way.
    #[serde(deserialize_with = "or_default")]
    pub interim_results: Vec<Update>,
    /// How its undoing stands.
    pub compensation: Option<Compensation>,
    /// How its undoing went, oldest first.
    #[serde(deserialize_with = "or_default")]
    pub compensation_history: Vec<CompensationEvent>,
    /// Whether it can be undone at all.
    pub is_revertible: bool,
}

/// One change of a task's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StatusEvent {
    /// To what.
    pub status: String,
    /// When.
    #[serde(deserialize_with = "time")]
    pub timestamp: Option<Timestamp>,
    /// Why.
    #[serde(deserialize_with = "or_default")]
    pub error: String,
}

/// Something a task told on the way.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Update {
    /// When.
    #[serde(deserialize_with = "time")]
    pub timestamp: Option<Timestamp>,
    /// What.
    pub data: Value,
}

/// How the undoing of a task stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Compensation {
    /// Its status.
    pub status: String,
    /// The attempt it is at.
    pub attempt: u64,
    /// The last attempt it will make.
    pub max_attempts: u64,
}

/// One step of undoing a task.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CompensationEvent {
    /// To what status.
    pub status: String,
    /// The attempt.
    pub attempt: u64,
    /// The last attempt it will make.
    pub max_attempts: u64,
    /// When.
    #[serde(deserialize_with = "time")]
    pub timestamp: Option<Timestamp>,
    /// Why it did not work.
    #[serde(deserialize_with = "or_default")]
    pub error: String,
}

/// `GET /orchestrations/{id}/replay`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Replay {
    /// The orchestration's id.
    pub id: String,
    /// The execution's workflow id.
    pub workflow_id: String,
    /// The run's id.
    pub run_id: String,
    /// The journal, in order.
    #[serde(deserialize_with = "or_default")]
    pub records: Vec<Record>,
    /// The state that folding them gives.
    pub state: Value,
    /// Whether it equals the stored one.
    pub verified: bool,
    /// Where it does not.
    pub difference: Option<String>,
    /// The record after which the fold stopped, when it was asked to.
    pub until: Option<u64>,
}

/// One record of a journal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// Its place.
    pub seq: u64,
    /// `event` or `note`.
    pub kind: String,
    /// Its place in the history that the workers see; notes have none.
    pub event_id: Option<u64>,
    /// What it records.
    #[serde(rename = "type")]
    pub kind_of: String,
    /// When.
    #[serde(deserialize_with = "time")]
    pub at: Option<Timestamp>,
    /// What is in it, for people.
    pub summary: String,
}

/// `null` is the same as absent.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A flag, or a count of which anything but zero means yes.
fn some_or_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(flag) => flag,
        Value::Number(count) => count.as_u64() != Some(0),
        _ => false,
    })
}

/// RFC 3339; the wire's zero time and anything unreadable are no time.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    Ok(text
        .parse::<Timestamp>()
        .ok()
        .filter(|_| !text.starts_with("0001-")))
}
