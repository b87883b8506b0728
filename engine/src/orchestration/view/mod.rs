//! What callers are shown of an orchestration: a fold of its committed journal, events and notes.
//!
//! ```text
//!  task: registered --attempt started--> processing --attempt failed-------> failed --> processing ..
//!                                                   --connection lost------> paused --> processing ..
//!        registered | failed --no worker connected--> paused
//!        processing --close--> completed | failed | aborted | unknown | cancelled      unknown .. --late result--> completed
//! ```
//!
//! Invariant: a view of any prefix of a journal exists; nothing in it is looked up by comparing parts of ids.

mod inspection;
mod list;
mod planning;

/// Why a task does not go on, where somebody wants it so.
fn held(identity: &str, reason: &str) -> String {
    let by = if identity.is_empty() {
        "an operator"
    } else {
        identity
    };
    match reason {
        "" => format!("held by {by}"),
        reason => format!("held by {by}: {reason}"),
    }
}

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::common::v1::{Memo, Payload};
use orchestrion_proto::temporal::api::enums::v1::TimeoutType;
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskScheduledEventAttributes, HistoryEvent,
};
use orchestrion_proto::v1::{Note, note};
use serde_json::Value;

pub use self::inspection::{
    AbortInfo, Compensation, CompensationEvent, Inspection, InterimResult, StatusEvent,
    TaskInspection,
};
pub use self::list::{ListItem, Listing};
pub use self::planning::{FailedPlanning, FailedPlanningInspection, PlanningInspection};
use super::outcome::{
    CompensationSummary, RevertOutcome, RevertStatus, TaskResult, abort_payload, ends_unknown,
    failure_text, late_result, task_result, text_of, timeout_type,
};
use super::planning::cost_of;
use super::submission::{
    Options, PlanningOutcome, PlanningResult, Submission, json_or_null, read_json,
};
use super::{
    LATE_RESULT_SIGNAL, PLAN_ACTIVITY_TYPE, REVERT_ID_PREFIX, REVERT_WORKFLOW_TYPE, time_of,
};
use crate::grounding::Applied;
use crate::orchestration::GROUNDING_MEMO;
use crate::plan::{Plan, PlanTask};

/// An orchestration as its journal shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its id.
    pub id: String,
    /// When it was submitted.
    pub started_at: Timestamp,
    /// `pending`, `processing`, `completed`, `failed`, `not_actionable`, `aborted` or `cancelled`.
    pub status: String,
    /// When it came to that status.
    pub status_at: Timestamp,
    /// Whether its run has closed: nothing of it is done or undone any more.
    pub closed: bool,
    /// What was submitted; `None` when that cannot be read.
    pub submission: Option<Submission>,
    /// What the planner answered, if it was asked.
    pub planning: Option<PlanningResult>,
    /// The grounding under which its plan was checked.
    pub grounding: Option<Applied>,
    /// The attempts of the planning that brought no answer, oldest first.
    pub failed_plannings: Vec<FailedPlanning>,
    /// The plan, once there is one.
    pub plan: Option<Plan>,
    /// Why it failed: a string of a planning, `{id,producer,error}` of a task.
    pub error: Option<Value>,
    /// The payload with which it was aborted.
    pub abort: Option<Value>,
    /// Outputs of the last tasks; one null of a plan that did not get there.
    pub results: Option<Vec<Value>>,
    /// How far its undoing is.
    pub compensation: Option<CompensationSummary>,
    /// The task whose end was the plan's end.
    culprit: Option<usize>,
    options: Options,
    /// In plan order.
    tasks: Vec<Task>,
    nodes: HashMap<i64, Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Planning,
    Task(usize),
    Revert(usize),
}

/// What happened to one task.
#[derive(Debug, Clone, PartialEq, Default)]
struct Task {
    scheduled: bool,
    history: Vec<Happened<TaskStatus>>,
    attempts: i32,
    /// Whether the attempt before the last gave no answer in time.
    timed_out_before: bool,
    output: Option<Value>,
    abort_payload: Option<Value>,
    interim: Vec<(Timestamp, Value)>,
    /// When it completed and how long it can be undone.
    undoable: Option<(Timestamp, u64)>,
    reverts: Vec<Happened<RevertProgress>>,
    /// Whether its result is another orchestration's.
    taken_over: bool,
}

/// A change of status.
#[derive(Debug, Clone, PartialEq)]
struct Happened<S> {
    status: S,
    at: Timestamp,
    attempt: i32,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskStatus {
    Processing,
    Paused,
    Failed,
    Completed,
    Aborted,
    Unknown,
    Cancelled,
}

impl TaskStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RevertProgress {
    Attempted,
    AttemptFailed,
    Ended(RevertStatus),
}

impl Task {
    fn push(&mut self, status: TaskStatus, at: Timestamp, error: Option<String>) {
        let attempt = self.attempts;
        self.history.push(Happened {
            status,
            at,
            attempt,
            error,
        });
    }

    fn status(&self) -> Option<TaskStatus> {
        self.history.last().map(|last| last.status)
    }

    fn pause(&mut self, at: Timestamp, reason: &str) {
        if self.status() != Some(TaskStatus::Paused) {
            self.push(TaskStatus::Paused, at, Some(reason.to_owned()));
        }
    }

    fn go_on(&mut self, at: Timestamp) {
        if self.status() == Some(TaskStatus::Paused) {
            self.push(TaskStatus::Processing, at, None);
        }
    }

    fn complete(&mut self, result: TaskResult, at: Timestamp, revertible: bool) {
        self.push(TaskStatus::Completed, at, None);
        self.output = Some(result.output);
        self.undoable = result
            .compensation
            .filter(|_| revertible)
            .map(|compensation| (at, compensation.ttl_ms));
    }

    fn push_revert(
        &mut self,
        status: RevertProgress,
        at: Timestamp,
        attempt: Option<i32>,
        error: Option<String>,
    ) {
        let attempt = attempt
            .or_else(|| self.reverts.last().map(|last| last.attempt))
            .unwrap_or(0);
        self.reverts.push(Happened {
            status,
            at,
            attempt,
            error,
        });
    }

    fn end_revert(&mut self, outcome: RevertOutcome, at: Timestamp) {
        self.push_revert(
            RevertProgress::Ended(outcome.status),
            at,
            None,
            outcome.error,
        );
    }

    /// Where nothing was scheduled because the time was over, the journal says so by what it lacks.
    fn expire(&mut self, now: Timestamp) {
        let Some((completed_at, ttl_ms)) = self.undoable else {
            return;
        };
        if self.reverts.is_empty()
            && now >= completed_at.plus(std::time::Duration::from_millis(ttl_ms))
        {
            self.push_revert(
                RevertProgress::Ended(RevertStatus::Expired),
                now,
                None,
                None,
            );
        }
    }
}

fn grounding_of(memo: Option<&Memo>) -> Option<Applied> {
    let payload = memo?.fields.get(GROUNDING_MEMO)?;
    serde_json::from_value(json_or_null(Some(payload))).ok()
}

impl View {
    /// Folds a journal, whole or a prefix of it. `None` when it has no beginning.
    pub fn fold(journal: &[Record]) -> Option<Self> {
        let (first, rest) = journal.split_first()?;
        let mut view = Self::begin(first.event()?)?;
        for record in rest {
            match record {
                Record::Event(event) => view.apply_event(event, time_of(event)),
                Record::Note(note) => view.apply_note(note),
            }
        }
        Some(view)
    }

    /// The orchestration in the form of an inspection; `now` makes its age.
    pub fn inspection(&self, now: Timestamp) -> Inspection {
        Inspection::of(self, now)
    }

    fn begin(event: &HistoryEvent) -> Option<Self> {
        let Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) = &event.attributes
        else {
            return None;
        };
        // A revert that is run again is no orchestration.
        let kind = started.workflow_type.as_ref();
        if kind.map_or("", |kind| kind.name.as_str()) == REVERT_WORKFLOW_TYPE {
            return None;
        }
        let at = time_of(event);
        let submission = read_json::<Submission>(started.input.as_ref()).ok();
        let options = submission
            .as_ref()
            .map(|s| s.options.bounded())
            .unwrap_or_default();
        let plan = submission.as_ref().and_then(|s| s.plan.clone());
        let mut view = Self {
            id: started.workflow_id.clone(),
            started_at: at,
            status: if plan.is_some() {
                "processing"
            } else {
                "pending"
            }
            .to_owned(),
            status_at: at,
            closed: false,
            submission,
            planning: None,
            grounding: grounding_of(started.memo.as_ref()),
            failed_plannings: Vec::new(),
            plan: None,
            error: None,
            abort: None,
            results: None,
            compensation: None,
            culprit: None,
            options,
            tasks: Vec::new(),
            nodes: HashMap::new(),
        };
        if let Some(plan) = plan {
            view.set_plan(plan);
        }
        let results = view.submission.as_ref().map(|s| s.taken_over.clone());
        for result in results.unwrap_or_default() {
            if let Some(task) = view.place_of(&result.task) {
                let task = &mut view.tasks[task];
                task.push(TaskStatus::Completed, at, None);
                task.output = Some(result.output);
                task.taken_over = true;
            }
        }
        Some(view)
    }

    fn set_plan(&mut self, plan: Plan) {
        self.tasks = vec![Task::default(); plan.tasks.len()];
        self.plan = Some(plan);
    }

    fn planned(&self, task: usize) -> Option<&PlanTask> {
        self.plan.as_ref()?.tasks.get(task)
    }

    fn place_of(&self, task_id: &str) -> Option<usize> {
        self.plan
            .as_ref()?
            .tasks
            .iter()
            .position(|task| task.id == task_id)
    }

    fn is_revertible(&self, task: usize) -> bool {
        self.planned(task).is_some_and(|planned| planned.revertible)
    }

    fn node_of(&self, scheduled: &ActivityTaskScheduledEventAttributes) -> Option<Node> {
        let kind = scheduled
            .activity_type
            .as_ref()
            .map_or("", |kind| kind.name.as_str());
        if kind == PLAN_ACTIVITY_TYPE && self.plan.is_none() {
            return Some(Node::Planning);
        }
        match self
            .place_of(&scheduled.activity_id)
            .filter(|&task| !self.tasks[task].scheduled)
        {
            Some(task) => Some(Node::Task(task)),
            None => scheduled
                .activity_id
                .strip_prefix(REVERT_ID_PREFIX)
                .and_then(|id| self.place_of(id))
                .map(Node::Revert),
        }
    }

    fn apply_event(&mut self, event: &HistoryEvent, at: Timestamp) {
        let Some(attributes) = &event.attributes else {
            return;
        };
        match attributes {
            Attributes::ActivityTaskScheduledEventAttributes(a) => {
                let Some(node) = self.node_of(a) else { return };
                match node {
                    Node::Task(task) => self.tasks[task].scheduled = true,
                    Node::Revert(_) => self.tasks.iter_mut().for_each(|task| task.expire(at)),
                    Node::Planning => {}
                }
                self.nodes.insert(event.event_id, node);
            }
            Attributes::ActivityTaskCompletedEventAttributes(a) => {
                match self.nodes.get(&a.scheduled_event_id) {
                    Some(Node::Planning) => self.planned_with(read_json(a.result.as_ref()).ok()),
                    Some(&Node::Task(task)) => {
                        match task_result(a.result.as_ref(), self.options.compensation_ttl_ms) {
                            Ok(result) => self.complete_task(task, result, at),
                            Err(bad) => self.tasks[task].push(TaskStatus::Failed, at, Some(bad)),
                        }
                    }
                    Some(&Node::Revert(task)) => {
                        self.tasks[task].end_revert(RevertOutcome::shown(a.result.as_ref()), at);
                    }
                    None => {}
                }
            }
            Attributes::ActivityTaskFailedEventAttributes(a) => {
                match self.nodes.get(&a.scheduled_event_id) {
                    Some(&Node::Task(task)) => self.fail_task(task, a.failure.as_ref(), at),
                    Some(&Node::Revert(task)) => {
                        let outcome =
                            RevertOutcome::of_failure(a.failure.as_ref(), a.retry_state());
                        self.tasks[task].end_revert(outcome, at);
                    }
                    Some(Node::Planning) => self.planning_failed(a.failure.as_ref(), at),
                    None => {}
                }
            }
            Attributes::ActivityTaskTimedOutEventAttributes(a) => {
                match self.nodes.get(&a.scheduled_event_id) {
                    Some(&Node::Task(task)) => {
                        let started = self.tasks[task].attempts > 0;
                        let unknown = ends_unknown(started, a.failure.as_ref());
                        let status = if unknown {
                            TaskStatus::Unknown
                        } else {
                            TaskStatus::Failed
                        };
                        self.tasks[task].push(status, at, Some(failure_text(a.failure.as_ref())));
                    }
                    Some(&Node::Revert(task)) => self.tasks[task]
                        .end_revert(RevertOutcome::of_timeout(a.failure.as_ref()), at),
                    Some(Node::Planning) => self.planning_failed(a.failure.as_ref(), at),
                    None => {}
                }
            }
            Attributes::ActivityTaskCanceledEventAttributes(a) => {
                if let Some(&Node::Task(task)) = self.nodes.get(&a.scheduled_event_id) {
                    let unknown = self.tasks[task].timed_out_before;
                    let status = if unknown {
                        TaskStatus::Unknown
                    } else {
                        TaskStatus::Cancelled
                    };
                    self.tasks[task].push(status, at, None);
                }
            }
            // Attempts are noted when they start; the late event only repeats the last one, and says what was before it.
            Attributes::ActivityTaskStartedEventAttributes(a) => {
                if let Some(&Node::Task(task)) = self.nodes.get(&a.scheduled_event_id) {
                    self.tasks[task].timed_out_before =
                        timeout_type(a.last_failure.as_ref()) != TimeoutType::Unspecified;
                }
            }
            Attributes::WorkflowExecutionSignaledEventAttributes(a)
                if a.signal_name == LATE_RESULT_SIGNAL =>
            {
                let Some((id, result)) =
                    late_result(a.input.as_ref(), self.options.compensation_ttl_ms)
                else {
                    return;
                };
                let awaited = [
                    Some(TaskStatus::Unknown),
                    Some(TaskStatus::Failed),
                    Some(TaskStatus::Cancelled),
                ];
                if let Some(task) = self
                    .place_of(&id)
                    .filter(|&task| awaited.contains(&self.tasks[task].status()))
                {
                    self.complete_task(task, result, at);
                }
            }
            Attributes::WorkflowPropertiesModifiedEventAttributes(a) => {
                self.apply_memo(a.upserted_memo.as_ref(), at)
            }
            Attributes::WorkflowExecutionPausedEventAttributes(a) => {
                let reason = held(&a.identity, &a.reason);
                let open = [Some(TaskStatus::Processing), Some(TaskStatus::Paused)];
                for task in &mut self.tasks {
                    if open.contains(&task.status()) {
                        task.push(TaskStatus::Paused, at, Some(reason.clone()));
                    }
                }
            }
            Attributes::WorkflowExecutionUnpausedEventAttributes(_) => {
                for task in &mut self.tasks {
                    task.go_on(at);
                }
            }
            Attributes::WorkflowExecutionCompletedEventAttributes(a) => {
                self.closed = true;
                self.set_status("completed", at);
                self.results = read_json(a.result.as_ref()).ok();
            }
            Attributes::WorkflowExecutionFailedEventAttributes(_)
            | Attributes::WorkflowExecutionCanceledEventAttributes(_) => self.close(at, None),
            Attributes::WorkflowExecutionTerminatedEventAttributes(a) => {
                self.close(at, Some(format!("the run was terminated: {}", a.reason)));
            }
            Attributes::WorkflowExecutionTimedOutEventAttributes(_) => {
                self.close(at, Some("the run timed out".to_owned()));
            }
            _ => {}
        }
    }

    fn apply_note(&mut self, note: &Note) {
        let at = Timestamp(note.at);
        match &note.kind {
            Some(note::Kind::ActivityAttemptStarted(n)) => {
                self.attempt_started(n.scheduled_event_id, n.attempt, at)
            }
            Some(note::Kind::ActivityAttemptFailed(n)) => {
                let error = Some(failure_text(n.failure.as_ref()));
                match self.nodes.get(&n.scheduled_event_id) {
                    Some(&Node::Task(task)) => self.tasks[task].push(TaskStatus::Failed, at, error),
                    Some(&Node::Revert(task)) => {
                        self.tasks[task].push_revert(
                            RevertProgress::AttemptFailed,
                            at,
                            Some(n.attempt),
                            error,
                        );
                    }
                    Some(Node::Planning) => self.planning_failed(n.failure.as_ref(), at),
                    None => {}
                }
            }
            Some(note::Kind::ActivityAttemptReturned(n)) => {
                self.pause(n.scheduled_event_id, at, &n.reason)
            }
            Some(note::Kind::ActivityWaiting(n)) => self.pause(n.scheduled_event_id, at, &n.reason),
            Some(note::Kind::ActivityPaused(n)) => {
                self.hold(n.scheduled_event_id, at, &held(&n.identity, &n.reason));
            }
            Some(note::Kind::ActivityUnpaused(n)) => self.go_on(n.scheduled_event_id, at),
            Some(note::Kind::ActivityReset(n)) if !n.keep_paused => {
                self.go_on(n.scheduled_event_id, at);
            }
            Some(note::Kind::ActivityProgress(n)) => {
                if let Some(&Node::Task(task)) = self.nodes.get(&n.scheduled_event_id) {
                    self.tasks[task]
                        .interim
                        .push((at, json_or_null(n.update.as_ref())));
                }
            }
            // Heartbeats, buffered events and workflow tasks say nothing to callers.
            _ => {}
        }
    }

    fn attempt_started(&mut self, scheduled_event_id: i64, attempt: i32, at: Timestamp) {
        match self.nodes.get(&scheduled_event_id) {
            Some(&Node::Task(task)) => {
                self.tasks[task].attempts = attempt;
                self.tasks[task].push(TaskStatus::Processing, at, None);
            }
            Some(&Node::Revert(task)) => {
                self.tasks[task].push_revert(RevertProgress::Attempted, at, Some(attempt), None);
            }
            Some(Node::Planning) | None => {}
        }
    }

    fn pause(&mut self, scheduled_event_id: i64, at: Timestamp, reason: &str) {
        if let Some(&Node::Task(task)) = self.nodes.get(&scheduled_event_id) {
            self.tasks[task].pause(at, reason);
        }
    }

    fn hold(&mut self, scheduled_event_id: i64, at: Timestamp, reason: &str) {
        if let Some(&Node::Task(task)) = self.nodes.get(&scheduled_event_id) {
            self.tasks[task].push(TaskStatus::Paused, at, Some(reason.to_owned()));
        }
    }

    /// It waits for its service again; where that is not there, the journal says so next.
    fn go_on(&mut self, scheduled_event_id: i64, at: Timestamp) {
        if let Some(&Node::Task(task)) = self.nodes.get(&scheduled_event_id) {
            self.tasks[task].go_on(at);
        }
    }

    fn planning_failed(&mut self, failure: Option<&Failure>, at: Timestamp) {
        self.failed_plannings.push(FailedPlanning {
            at,
            error: failure_text(failure),
            cost: cost_of(failure),
        });
    }

    fn planned_with(&mut self, answer: Option<PlanningResult>) {
        if let Some(PlanningResult {
            outcome: PlanningOutcome::Planned,
            plan: Some(plan),
            ..
        }) = &answer
        {
            self.set_plan(plan.clone());
        }
        self.grounding = answer.as_ref().and_then(|answer| answer.grounding.clone());
        self.planning = answer;
    }

    fn complete_task(&mut self, task: usize, result: TaskResult, at: Timestamp) {
        let revertible = self.is_revertible(task);
        self.tasks[task].complete(result, at, revertible);
    }

    fn fail_task(&mut self, task: usize, failure: Option<&Failure>, at: Timestamp) {
        match abort_payload(failure) {
            Some(payload) => {
                self.tasks[task].abort_payload = Some(payload);
                self.tasks[task].push(TaskStatus::Aborted, at, None);
            }
            None => self.tasks[task].push(TaskStatus::Failed, at, Some(failure_text(failure))),
        }
    }

    fn set_status(&mut self, status: &str, at: Timestamp) {
        if self.status != status {
            status.clone_into(&mut self.status);
            self.status_at = at;
        }
    }

    fn apply_memo(&mut self, memo: Option<&Memo>, at: Timestamp) {
        let summary = MemoView::of(memo);
        self.error = summary.error.or(self.error.take());
        self.abort = summary.abort.or(self.abort.take());
        self.compensation = summary.compensation.or(self.compensation);
        if let Some(status) = &summary.status {
            self.set_status(status, at);
        }
        if self.ended_badly() && self.plan.is_some() {
            self.results = Some(vec![Value::Null]);
        }
        self.culprit = summary
            .task
            .and_then(|id| self.place_of(&id))
            .or(self.culprit);
        // A task whose references lead nowhere fails without ever being scheduled.
        if let (Some(task), Some(error)) = (self.culprit, &self.error)
            && self.tasks[task].history.is_empty()
        {
            let text = text_of(error.get("error").unwrap_or(error));
            self.tasks[task].push(TaskStatus::Failed, at, Some(text));
        }
    }

    fn ended_badly(&self) -> bool {
        matches!(
            self.status.as_str(),
            "failed" | "aborted" | "cancelled" | "not_actionable"
        )
    }

    fn close(&mut self, at: Timestamp, from_outside: Option<String>) {
        self.closed = true;
        if !self.ended_badly() {
            self.set_status("failed", at);
            self.error = self.error.take().or(from_outside.clone().map(Value::from));
            self.results = self.plan.as_ref().map(|_| vec![Value::Null]);
        }
        if from_outside.is_some() {
            return;
        }
        for task in 0..self.tasks.len() {
            let revertible = self.is_revertible(task);
            let task = &mut self.tasks[task];
            task.expire(at);
            if revertible && task.status() == Some(TaskStatus::Unknown) {
                task.push_revert(RevertProgress::Ended(RevertStatus::Unknown), at, None, None);
            }
        }
    }
}

/// What a memo says of an orchestration.
#[derive(Debug, Default)]
struct MemoView {
    action: Option<String>,
    status: Option<String>,
    error: Option<Value>,
    abort: Option<Value>,
    compensation: Option<CompensationSummary>,
    task: Option<String>,
}

impl MemoView {
    fn of(memo: Option<&Memo>) -> Self {
        let field = |name: &str| -> Option<&Payload> { memo?.fields.get(name) };
        let value = |name: &str| field(name).map(|payload| json_or_null(Some(payload)));
        let text = |name: &str| value(name).and_then(|value| value.as_str().map(str::to_owned));
        Self {
            action: text("action"),
            status: text("status"),
            error: value("error"),
            abort: value("abort"),
            compensation: value("compensation")
                .and_then(|value| serde_json::from_value(value).ok()),
            task: text("task"),
        }
    }
}
