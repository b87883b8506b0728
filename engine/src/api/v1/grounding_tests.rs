//! `POST /v1/grounding-tests`: a grounding before it is in force: each of its use cases is planned with its example values.
//!
//! Invariant: nothing is applied, nothing is stored, nothing runs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::groundings::NewGrounding;
use super::input::{Caller, Json};
use super::problem::{Problem, ProblemView};
use super::respond;
use super::show::step_views;
use super::submit::{NewParameter, PlanView};
use crate::api::orra::Api;
use crate::grounding::Grounding;
use crate::orchestration::dry_run::{Outcome, TriedCase};
use crate::plan::{Service, describe};
use crate::planner::PlanError;
use crate::registry::RegistryError;

/// What came of trying a grounding out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroundingTest {
    /// The grounding's name.
    name: String,
    /// Its version.
    version: String,
    /// SHA-256 of all of it; the same once it is applied.
    digest: String,
    /// The lines that every plan was checked against.
    enforced: Vec<String>,
    /// The lines that only the planner was told.
    not_enforced: Vec<String>,
    /// What looks like a mistake and is none for sure, such as a rule about services that are not registered.
    warnings: Vec<String>,
    /// Whether each use case can be planned.
    passed: bool,
    /// One for each use case, in the same order.
    cases: Vec<TestedCase>,
}

/// What came of one use case.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TestedCase {
    /// The action, with the example values in place.
    action: String,
    /// The example values.
    data: Vec<NewParameter>,
    /// Whether there is a plan.
    outcome: CaseOutcome,
    /// Why there is none, one by one.
    reasons: Vec<String>,
    /// The plan; it is valid.
    plan: Option<PlanView>,
    /// Who planned: a model, or `builtin`; empty where nobody was asked.
    planner: String,
    /// How often the planner was asked.
    attempts: u32,
    /// Tokens read by the model.
    prompt_tokens: u64,
    /// Tokens written by the model.
    completion_tokens: u64,
}

/// Whether a use case can be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CaseOutcome {
    /// There is a valid plan.
    Planned,
    /// The planner says that it cannot be done with the services there are.
    NotActionable,
    /// No valid plan came of it.
    Failed,
}

impl TestedCase {
    fn of(case: TriedCase, services: &[Service]) -> Self {
        let (outcome, reasons, plan) = match case.tried.outcome {
            Outcome::Planned(plan) => {
                let shown = step_views(&plan, services);
                (CaseOutcome::Planned, Vec::new(), Some(shown))
            }
            Outcome::NotActionable(reason) => (CaseOutcome::NotActionable, vec![reason], None),
            Outcome::Failed(PlanError::Invalid { reasons }) => {
                let lines = describe(&reasons).lines().map(str::to_owned).collect();
                (CaseOutcome::Failed, lines, None)
            }
            Outcome::Failed(error) => (CaseOutcome::Failed, vec![error.to_string()], None),
        };
        let data = case.data.into_iter().map(|given| NewParameter {
            field: given.field,
            value: given.value,
        });
        Self {
            action: case.action,
            data: data.collect(),
            outcome,
            reasons,
            plan,
            planner: case.tried.model,
            attempts: case.tried.attempts,
            prompt_tokens: case.tried.prompt_tokens,
            completion_tokens: case.tried.completion_tokens,
        }
    }
}

/// Try out a grounding
///
/// Each use case is planned with its example values, as if this grounding alone were in force. Nothing is applied, stored or started;
/// a model that plans is asked, which costs tokens. A use case that cannot be planned is no problem of the request: `passed` is false.
#[utoipa::path(
    post, path = "/grounding-tests", operation_id = "testGrounding", tag = "planning",
    request_body = NewGrounding,
    responses(
        (status = 200, description = "What came of it.", body = GroundingTest),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "It could not be applied as it is.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn test_grounding(
    State(api): State<Api>,
    Caller(project): Caller,
    Json(new): Json<NewGrounding>,
) -> Result<Response, Problem> {
    let grounding = Grounding::new(new.into(), Timestamp::ZERO, 0);
    let grounding = Arc::new(grounding.map_err(RegistryError::Grounding)?);
    let attempts = api.settings.planning.attempts;
    let tried = api.desk.dry_run_cases(&project, &grounding, attempts).await;
    let services = api.registrar.registry().services(&project);
    let cases: Vec<_> = tried
        .into_iter()
        .map(|case| TestedCase::of(case, &services))
        .collect();
    let tested = GroundingTest {
        name: grounding.spec.name.clone(),
        version: grounding.spec.version.clone(),
        digest: grounding.digest.clone(),
        enforced: grounding.enforced().map(str::to_owned).collect(),
        not_enforced: grounding.rules.told.clone(),
        warnings: api.desk.doubts(&project, &grounding),
        passed: cases
            .iter()
            .all(|case| case.outcome == CaseOutcome::Planned),
        cases,
    };
    Ok(respond(StatusCode::OK, &tested))
}
