//! The inspection of one orchestration, in the members its clients read.
//!
//! Invariant: a status is never an empty string: there are clients that cut off its first letter.

use orchestrion_history::ids::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::planning::PlanningInspection;
use super::{Happened, RevertProgress, Task, View};
use crate::orchestration::effect::rfc3339;
use crate::orchestration::outcome::RevertStatus;
use crate::plan::reference::resolve;
use crate::plan::{Plan, PlanTask};

/// An orchestration, task by task.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The orchestration.
    pub id: String,
    /// Where it stands.
    pub status: String,
    /// The action's text.
    pub action: String,
    /// When it came to its status, RFC 3339.
    pub timestamp: String,
    /// Why it failed: a string of a planning, `{id,producer,error}` of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// Who ended it, and with what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_info: Option<AbortInfo>,
    /// Its tasks in plan order, once there is a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<TaskInspection>>,
    /// Outputs of the last tasks; one null of a plan that did not get there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<Value>>,
    /// How the plan came about, when a planner was asked or is being asked again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planning: Option<PlanningInspection>,
    /// Nanoseconds since `timestamp`.
    pub duration: i64,
}

/// Who ended an orchestration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AbortInfo {
    /// The task; empty when a caller cancelled it.
    pub task_id: String,
    /// Its service.
    pub service_id: String,
    /// The service's name.
    pub service_name: String,
    /// What was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskInspection {
    /// Its id in the plan.
    pub id: String,
    /// Its service.
    #[serde(rename = "serviceId")]
    pub service_id: String,
    /// The service's name.
    #[serde(rename = "serviceName")]
    pub service_name: String,
    /// Its last status; `registered` before the first.
    pub status: &'static str,
    /// Every change of status, oldest first.
    #[serde(rename = "statusHistory")]
    pub status_history: Vec<StatusEvent>,
    /// Its planned input, the plan's constants filled in.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub input: Map<String, Value>,
    /// What it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What it said when it ended the orchestration.
    #[serde(rename = "abortPayload", skip_serializing_if = "Option::is_none")]
    pub abort_payload: Option<Value>,
    /// Of its last status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Nanoseconds from its first to its last change of status.
    pub duration: i64,
    /// What it told on the way.
    #[serde(rename = "interimResults", skip_serializing_if = "Vec::is_empty")]
    pub interim_results: Vec<InterimResult>,
    /// How its undoing stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Compensation>,
    /// How its undoing went, oldest first.
    #[serde(rename = "compensationHistory", skip_serializing_if = "Vec::is_empty")]
    pub compensation_history: Vec<CompensationEvent>,
    /// Whether its service can undo it.
    #[serde(rename = "isRevertible")]
    pub is_revertible: bool,
    /// Whether its result is that of the orchestration this one was forked from.
    #[serde(rename = "takenOver", skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
}

/// A change of a task's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusEvent {
    /// Unique in the orchestration.
    pub id: String,
    /// The orchestration.
    pub orchestration_id: String,
    /// The task.
    pub task_id: String,
    /// The new status.
    pub status: &'static str,
    /// When, RFC 3339.
    pub timestamp: String,
    /// The task's service.
    pub service_id: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a task told on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InterimResult {
    /// Unique in the orchestration.
    pub id: String,
    /// When, RFC 3339.
    pub timestamp: String,
    /// What.
    pub data: Value,
}

/// How the undoing of a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compensation {
    /// Its last status.
    pub status: &'static str,
    /// Attempts so far.
    pub attempt: i32,
    /// Attempts it may take.
    pub max_attempts: u32,
    /// When it came to that status, RFC 3339.
    pub timestamp: String,
}

/// A step in the undoing of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompensationEvent {
    /// Unique in the orchestration.
    pub id: String,
    /// The task.
    pub task_id: String,
    /// The new status.
    pub status: &'static str,
    /// Which attempt.
    pub attempt: i32,
    /// Attempts it may take.
    pub max_attempts: u32,
    /// When, RFC 3339.
    pub timestamp: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Inspection {
    pub(super) fn of(view: &View, now: Timestamp) -> Self {
        let planned = view.plan.as_ref();
        Self {
            id: view.id.clone(),
            status: view.status.clone(),
            action: view
                .submission
                .as_ref()
                .map(|s| s.action.content.clone())
                .unwrap_or_default(),
            timestamp: rfc3339(view.status_at),
            error: view.error.clone(),
            abort_info: abort_info(view),
            tasks: planned.map(|plan| {
                let tasks = plan.tasks.iter().zip(&view.tasks);
                tasks
                    .map(|(planned, task)| TaskInspection::of(view, plan, planned, task))
                    .collect()
            }),
            results: view.results.clone(),
            planning: PlanningInspection::of(view),
            duration: nanos_between(view.status_at, now),
        }
    }
}

fn abort_info(view: &View) -> Option<AbortInfo> {
    let payload = view.abort.as_ref()?;
    let task = view.culprit.and_then(|task| view.planned(task));
    Some(AbortInfo {
        task_id: task.map(|task| task.id.clone()).unwrap_or_default(),
        service_id: task.map(|task| task.service.clone()).unwrap_or_default(),
        service_name: task
            .map(|task| task.service_name.clone())
            .unwrap_or_default(),
        payload: Some(payload.clone()).filter(|payload| !payload.is_null()),
    })
}

impl TaskInspection {
    fn of(view: &View, plan: &Plan, planned: &PlanTask, task: &Task) -> Self {
        let last = task.history.last();
        let max_attempts = view.options.compensation_attempts;
        let reverts = || {
            task.reverts
                .iter()
                .map(|step| (step, revert_status(step.status)))
        };
        let last_revert = reverts().next_back();
        Self {
            id: planned.id.clone(),
            service_id: planned.service.clone(),
            service_name: planned.service_name.clone(),
            status: last.map_or("registered", |last| last.status.as_str()),
            status_history: task
                .history
                .iter()
                .enumerate()
                .map(|(at, event)| StatusEvent {
                    id: format!("evt_{}_{}", planned.id, at + 1),
                    orchestration_id: view.id.clone(),
                    task_id: planned.id.clone(),
                    status: event.status.as_str(),
                    timestamp: rfc3339(event.at),
                    service_id: planned.service.clone(),
                    error: event.error.clone(),
                })
                .collect(),
            input: shown_input(plan, planned),
            output: task.output.clone(),
            abort_payload: task
                .abort_payload
                .clone()
                .filter(|payload| !payload.is_null()),
            error: last.and_then(|last| last.error.clone()),
            duration: match (task.history.first(), last) {
                (Some(first), Some(last)) => nanos_between(first.at, last.at),
                _ => 0,
            },
            interim_results: task
                .interim
                .iter()
                .enumerate()
                .map(|(at, (when, data))| InterimResult {
                    id: format!("interim_{}_{}", planned.id, at + 1),
                    timestamp: rfc3339(*when),
                    data: data.clone(),
                })
                .collect(),
            compensation: last_revert.map(|(step, status)| Compensation {
                status,
                attempt: step.attempt,
                max_attempts,
                timestamp: rfc3339(step.at),
            }),
            compensation_history: reverts()
                .map(|(step, status)| CompensationEvent {
                    id: revert_event_id(&planned.id, step),
                    task_id: planned.id.clone(),
                    status,
                    attempt: step.attempt,
                    max_attempts,
                    timestamp: rfc3339(step.at),
                    error: step.error.clone(),
                })
                .collect(),
            is_revertible: planned.revertible,
            taken_over: task.taken_over,
        }
    }
}

fn revert_status(progress: RevertProgress) -> &'static str {
    match progress {
        RevertProgress::Attempted => "processing",
        RevertProgress::AttemptFailed => "failed",
        RevertProgress::Ended(status) => status.as_str(),
    }
}

fn revert_event_id(task: &str, step: &Happened<RevertProgress>) -> String {
    let attempt = step.attempt;
    match step.status {
        RevertProgress::Attempted => format!("comp_attempt_{task}_{attempt}"),
        RevertProgress::AttemptFailed | RevertProgress::Ended(RevertStatus::Failed) => {
            format!("comp_fail_{task}_{attempt}")
        }
        RevertProgress::Ended(RevertStatus::Completed) => format!("comp_completed_{task}"),
        RevertProgress::Ended(RevertStatus::Partial) => format!("comp_completed_partially_{task}"),
        RevertProgress::Ended(RevertStatus::Expired) => format!("comp_expired_{task}"),
        RevertProgress::Ended(RevertStatus::Unknown) => format!("comp_unknown_{task}"),
    }
}

/// The planned input with the plan's constants filled in; what refers to other tasks stays as it was planned.
fn shown_input(plan: &Plan, planned: &PlanTask) -> Map<String, Value> {
    let shown = planned.input.iter().map(|(name, value)| {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        let resolved = resolve(&alone, &plan.task_zero, &|_| None)
            .ok()
            .and_then(|mut resolved| resolved.remove(name));
        (name.clone(), resolved.unwrap_or_else(|| value.clone()))
    });
    shown.collect()
}

fn nanos_between(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(to.since(from).as_nanos()).unwrap_or(i64::MAX)
}
