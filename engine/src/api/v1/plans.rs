//! `POST /v1/plans`: what would be done. Nothing is started, nothing is stored.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::input::{Caller, Json};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use super::show::step_views;
use super::submit::{NewOrchestration, PlanView, parsed};
use crate::api::orra::Api;
use crate::api::orra::submit::{own_hit, own_plan};
use crate::orchestration::dry_run::Outcome;
use crate::plan::describe;
use crate::planner::PlanError;

/// What would be done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// The plan; it is valid.
    plan: PlanView,
    /// How long it may take in milliseconds, judged by how long its services took before; null where that is not known.
    estimated_duration_ms: Option<u64>,
    /// Who planned: a model, `builtin`, or `submitted`.
    planner: String,
    /// How often the planner was asked.
    attempts: u32,
    /// Tokens read by the model.
    prompt_tokens: u64,
    /// Tokens written by the model.
    completion_tokens: u64,
}

/// Plan without running
///
/// The same body as a submission, the same planner and the same checks; nothing is started and nothing is stored.
#[utoipa::path(
    post, path = "/plans", operation_id = "planDryRun", tag = "orchestrations",
    request_body = NewOrchestration,
    responses(
        (status = 200, description = "The plan.", body = Planned),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "The plan is refused, or the action cannot be done.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn plan(
    State(api): State<Api>,
    Caller(project): Caller,
    Json(new): Json<NewOrchestration>,
) -> Result<Response, Problem> {
    let request = parsed(&api, new)?;
    let services = api.registrar.registry().services(&project);
    let data = request.data.as_deref().unwrap_or_default();
    let mut planned = Planned {
        plan: PlanView {
            steps: Vec::new(),
            parallel_execution_groups: Vec::new(),
        },
        estimated_duration_ms: None,
        planner: "submitted".to_owned(),
        attempts: 0,
        prompt_tokens: 0,
        completion_tokens: 0,
    };
    let plan = match &request.plan {
        Some(draft) => {
            let hit = own_hit(&api, &project, request.asked(), &services).await?;
            own_plan(draft, &services, data, hit.as_ref())?
        }
        None => {
            if services.is_empty() {
                return Err(Problem::new(
                    Code::PlanningFailed,
                    "the project has no services: register one first",
                ));
            }
            planned.planner = api.desk.planner.model().to_owned();
            let groundings = api.registrar.registry().groundings(&project);
            let attempts_max = request.options.planning_attempts;
            let tried = api
                .desk
                .dry_run(
                    &project,
                    &groundings,
                    (&request.action.content, data),
                    attempts_max,
                )
                .await;
            planned.attempts = tried.attempts;
            planned.prompt_tokens = tried.prompt_tokens;
            planned.completion_tokens = tried.completion_tokens;
            match tried.outcome {
                Outcome::Planned(plan) => plan,
                Outcome::NotActionable(reason) => {
                    return Err(Problem::new(Code::NotActionable, reason).param("action"));
                }
                Outcome::Failed(error) => return Err(failed(&error)),
            }
        }
    };
    planned.estimated_duration_ms = api
        .durations
        .estimate(&api.handle, &project, &plan)?
        .map(|rest| u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
    planned.plan = step_views(&plan, &services);
    Ok(respond(StatusCode::OK, &planned))
}

fn failed(error: &PlanError) -> Problem {
    match error {
        PlanError::Invalid { reasons } => {
            Problem::new(Code::PlanningFailed, "the planner's plans were not valid")
                .reasons(describe(reasons).lines().map(str::to_owned).collect())
        }
        other => Problem::new(Code::PlanningFailed, other.to_string()),
    }
}
