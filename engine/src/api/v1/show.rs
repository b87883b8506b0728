//! `GET /v1/orchestrations/{id}`: how one orchestration stands, or ended.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::input::{Caller, Id, target_of};
use super::problem::{Problem, ProblemView};
use super::respond;
use super::submit::{PlanView, StepView};
use crate::api::orra::Api;
use crate::orchestration::effect::rfc3339;
use crate::orchestration::view::{TaskInspection, View};
use crate::plan::reference::resolve;
use crate::plan::{Plan, Service};

/// How an orchestration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionStatus {
    /// It is being planned.
    Pending,
    /// It runs.
    Processing,
    /// All of it is done.
    Completed,
    /// It failed, in planning or in a step.
    Failed,
    /// It cannot be done with the services there are.
    NotActionable,
    /// A service asked for its end.
    Aborted,
    /// Somebody outside asked for its end.
    Cancelled,
}

impl ExecutionStatus {
    /// Of the word the views use.
    pub fn of(status: &str) -> Self {
        match status {
            "pending" => Self::Pending,
            "processing" => Self::Processing,
            "completed" => Self::Completed,
            "not_actionable" => Self::NotActionable,
            "aborted" => Self::Aborted,
            "cancelled" => Self::Cancelled,
            _ => Self::Failed,
        }
    }

    /// Whether it has ended, for its callers.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Processing)
    }
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StepStatus {
    /// It has not begun.
    Registered,
    /// An attempt runs.
    Processing,
    /// It waits for its service.
    Paused,
    /// It is done.
    Completed,
    /// It failed, or an attempt of it.
    Failed,
    /// Its service asked for the end of all.
    Aborted,
    /// It timed out: whether it was done is not known.
    Unknown,
    /// It was called off.
    Cancelled,
}

impl StepStatus {
    fn of(status: &str) -> Self {
        match status {
            "processing" => Self::Processing,
            "paused" => Self::Paused,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "aborted" => Self::Aborted,
            "unknown" => Self::Unknown,
            "cancelled" => Self::Cancelled,
            _ => Self::Registered,
        }
    }
}

/// One orchestration.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// Its id.
    pub execution_id: String,
    /// How it stands.
    pub status: ExecutionStatus,
    /// The action's text.
    pub action: String,
    /// When it was submitted.
    #[schema(format = DateTime)]
    pub start_time: String,
    /// When it ended, for its callers.
    #[schema(format = DateTime)]
    pub end_time: Option<String>,
    /// Whether nothing of it goes on any more, its undoing included.
    pub closed: bool,
    /// What came of it: the output of its last step, or an array where several steps are last.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<Value>,
    /// What was said when it was aborted or cancelled.
    pub abort: Option<Value>,
    /// How far its undoing is.
    pub compensation: Option<CompensationView>,
    /// In plan order; empty before there is a plan.
    pub step_results: Vec<StepResult>,
    /// The orchestration whose results it took over, and the step from which it runs anew.
    pub forked_from: Option<ForkedFrom>,
}

/// Where an orchestration was forked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForkedFrom {
    /// The original.
    pub execution_id: String,
    /// The step from which it runs anew.
    pub step: String,
}

/// How far an undoing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CompensationView {
    /// Whether some of it is still to be done.
    pub active: bool,
    /// Steps to undo.
    pub total: usize,
    /// Those undone.
    pub completed: usize,
    /// Those that could not be.
    pub failed: usize,
}

/// How a step stands.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepResult {
    /// The step.
    pub id: String,
    /// The name of its service.
    pub component: String,
    /// How it stands.
    pub status: StepStatus,
    /// When its first attempt began.
    #[schema(format = DateTime)]
    pub start_time: Option<String>,
    /// When it ended.
    #[schema(format = DateTime)]
    pub end_time: Option<String>,
    /// What it returned.
    pub output: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether its result is one of the orchestration that this one was forked from.
    pub taken_over: bool,
}

/// Show an orchestration
#[utoipa::path(
    get, path = "/orchestrations/{id}", operation_id = "getOrchestration", tag = "orchestrations",
    params(("id" = String, Path, description = "The orchestration.")),
    responses(
        (status = 200, description = "How it stands.", body = Execution),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    State(api): State<Api>,
    Caller(project): Caller,
    Id(id): Id,
) -> Result<Response, Problem> {
    let target = target_of(&project, &id)?;
    let run = api
        .handle
        .journal(&target)?
        .ok_or_else(|| Problem::unknown_orchestration(&id))?;
    let view = View::fold(&run.records).ok_or_else(|| Problem::unknown_orchestration(&id))?;
    Ok(respond(StatusCode::OK, &execution(&api, &view)))
}

fn execution(api: &Api, view: &View) -> Execution {
    let status = ExecutionStatus::of(&view.status);
    let tasks = view.inspection(api.clock.now()).tasks.unwrap_or_default();
    Execution {
        execution_id: view.id.clone(),
        status,
        action: view
            .submission
            .as_ref()
            .map(|submission| submission.action.content.clone())
            .unwrap_or_default(),
        start_time: rfc3339(view.started_at),
        end_time: status.is_final().then(|| rfc3339(view.status_at)),
        closed: view.closed,
        result: match (status, view.results.as_deref()) {
            (ExecutionStatus::Completed, Some([one])) => Some(one.clone()),
            (ExecutionStatus::Completed, Some(several)) => Some(Value::from(several.to_vec())),
            _ => None,
        },
        error: view.error.clone(),
        abort: view.abort.clone(),
        compensation: view.compensation.map(|summary| CompensationView {
            active: summary.active,
            total: summary.total,
            completed: summary.completed,
            failed: summary.failed,
        }),
        step_results: tasks.into_iter().map(step_result).collect(),
        forked_from: view
            .submission
            .as_ref()
            .and_then(|submission| submission.forked_from.as_ref())
            .map(|origin| ForkedFrom {
                execution_id: origin.orchestration.clone(),
                step: origin.task.clone(),
            }),
    }
}

fn step_result(task: TaskInspection) -> StepResult {
    let status = StepStatus::of(task.status);
    let ended = !matches!(
        status,
        StepStatus::Registered | StepStatus::Processing | StepStatus::Paused
    );
    let began = task
        .status_history
        .iter()
        .find(|event| event.status == "processing");
    StepResult {
        start_time: began.map(|event| event.timestamp.clone()),
        end_time: task
            .status_history
            .last()
            .filter(|_| ended)
            .map(|event| event.timestamp.clone()),
        id: task.id,
        component: task.service_name,
        status,
        output: task.output,
        error: task.error,
        taken_over: task.taken_over,
    }
}

/// A plan as this wire shows it.
pub fn step_views(plan: &Plan, services: &[Service]) -> PlanView {
    let steps = plan.tasks.iter().map(|task| {
        let service = services.iter().find(|service| service.id == task.service);
        let input = task.input.iter().map(|(name, value)| {
            let alone = serde_json::Map::from_iter([(name.clone(), value.clone())]);
            let resolved = resolve(&alone, &plan.task_zero, &|_| None)
                .ok()
                .and_then(|mut resolved| resolved.remove(name));
            (name.clone(), resolved.unwrap_or_else(|| value.clone()))
        });
        StepView {
            id: task.id.clone(),
            component: task.service_name.clone(),
            component_id: task.service.clone(),
            action: service.map_or_else(String::new, |service| service.description.clone()),
            input: input.collect(),
            expected_output: service.map(|service| service.output_schema.clone()),
            dependencies: task.depends_on.clone(),
        }
    });
    PlanView {
        steps: steps.collect(),
        parallel_execution_groups: plan.parallel_groups.clone(),
    }
}
