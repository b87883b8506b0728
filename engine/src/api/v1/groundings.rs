//! What a project's actions may be: groundings, applied, listed and taken out of force.
//!
//! Invariant: what is refused leaves no trace.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::{Acting, Caller, Id, Json, objects_or_null};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use crate::api::orra::Api;
use crate::grounding::{Grounding, Spec, UseCase};
use crate::orchestration::effect::rfc3339;

/// A grounding in force.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroundingView {
    /// Unique in the project.
    name: String,
    /// What it is about.
    domain: String,
    /// As its author counts.
    version: String,
    /// What may be asked for.
    use_cases: Vec<UseCaseView>,
    /// The lines that every plan is checked against.
    enforced: Vec<String>,
    /// The lines that only the planner is told.
    not_enforced: Vec<String>,
    /// SHA-256 of all of it; recorded with each plan.
    digest: String,
    /// How often this name was applied.
    revision: i64,
    /// When it was applied last.
    #[schema(format = DateTime)]
    applied_at: String,
}

/// Something that may be asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UseCaseView {
    /// The action, with `{name}` where a parameter stands.
    #[schema(max_length = 4096)]
    action: String,
    /// An example value of each parameter.
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// What planned services must offer.
    #[schema(min_items = 1, max_items = 50)]
    capabilities: Vec<String>,
    /// What is meant by it.
    #[schema(max_length = 4096)]
    intent: String,
}

impl GroundingView {
    fn of(grounding: &Grounding) -> Self {
        let spec = &grounding.spec;
        Self {
            name: spec.name.clone(),
            domain: spec.domain.clone(),
            version: spec.version.clone(),
            use_cases: spec.use_cases.iter().map(UseCaseView::of).collect(),
            enforced: grounding.enforced().map(str::to_owned).collect(),
            not_enforced: grounding.rules.told.clone(),
            digest: grounding.digest.clone(),
            revision: grounding.revision,
            applied_at: rfc3339(grounding.applied_at),
        }
    }
}

impl UseCaseView {
    fn of(case: &UseCase) -> Self {
        Self {
            action: case.action.clone(),
            params: case.params.clone(),
            capabilities: case.capabilities.clone(),
            intent: case.intent.clone(),
        }
    }
}

/// The groundings of a project.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Groundings {
    /// By name. While there are none, anything may be asked for.
    items: Vec<GroundingView>,
    /// There is one page.
    next_cursor: Option<String>,
}

/// A grounding to apply.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewGrounding {
    /// Unique in the project: another one of this name is replaced.
    #[schema(
        min_length = 3,
        max_length = 63,
        pattern = "^[a-z0-9][a-z0-9.-]*[a-z0-9]$"
    )]
    name: String,
    /// What it is about.
    #[schema(
        min_length = 3,
        max_length = 63,
        pattern = "^[a-z0-9][a-z0-9.-]*[a-z0-9]$"
    )]
    domain: String,
    /// A new text needs a new one.
    #[schema(min_length = 1, max_length = 64)]
    version: String,
    /// What may be asked for.
    #[serde(deserialize_with = "use_cases")]
    #[schema(min_items = 1, max_items = 200)]
    use_cases: Vec<UseCaseView>,
    /// Free text for the planner, and rules, which begin with `rule:`.
    #[serde(default)]
    #[schema(max_items = 200)]
    constraints: Vec<String>,
}

fn use_cases<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<UseCaseView>, D::Error> {
    objects_or_null(from)?
        .ok_or_else(|| serde::de::Error::custom("useCases must be an array of objects"))
}

impl From<NewGrounding> for Spec {
    fn from(new: NewGrounding) -> Self {
        let cases = new.use_cases.into_iter().map(|case| UseCase {
            action: case.action,
            params: case.params,
            capabilities: case.capabilities,
            intent: case.intent,
        });
        Self {
            name: new.name,
            domain: new.domain,
            version: new.version,
            use_cases: cases.collect(),
            constraints: new.constraints,
        }
    }
}

/// List groundings
#[utoipa::path(
    get, path = "/groundings", operation_id = "listGroundings", tag = "planning",
    responses(
        (status = 200, description = "All of them.", body = Groundings),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn groundings(
    State(api): State<Api>,
    Caller(project): Caller,
) -> Result<Response, Problem> {
    let groundings = api.registrar.registry().groundings(&project);
    let body = Groundings {
        items: groundings.iter().map(|g| GroundingView::of(g)).collect(),
        next_cursor: None,
    };
    Ok(respond(StatusCode::OK, &body))
}

/// Apply a grounding
///
/// From now on only what its use cases, or those of the project's other groundings, allow is planned, and every plan keeps its rules.
/// Plans that were made before are not used again.
#[utoipa::path(
    post, path = "/groundings", operation_id = "applyGrounding", tag = "planning",
    request_body = NewGrounding,
    responses(
        (status = 201, description = "It is in force.", body = GroundingView),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "This version of it is there already.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "It cannot be applied as it is, or there are too many.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn apply_grounding(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Json(new): Json<NewGrounding>,
) -> Result<Response, Problem> {
    let grounding = api
        .registrar
        .apply_grounding(&project, new.into(), &actor)
        .await?;
    tracing::info!(%project, grounding = %grounding.spec.name, version = %grounding.spec.version, "grounding applied");
    Ok(respond(StatusCode::CREATED, &GroundingView::of(&grounding)))
}

/// Remove a grounding
///
/// When the last one is gone, anything may be asked for again.
#[utoipa::path(
    delete, path = "/groundings/{name}", operation_id = "removeGrounding", tag = "planning",
    params(("name" = String, Path, description = "The grounding.")),
    responses(
        (status = 204, description = "It is out of force."),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn remove_grounding(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Id(name): Id,
) -> Result<Response, Problem> {
    let gone = api
        .registrar
        .remove_groundings(&project, Some(&name), &actor)
        .await?;
    if gone == 0 {
        let detail =
            format!("there is no grounding {name:?}: list what there is with GET /v1/groundings");
        return Err(Problem::new(Code::NotFound, detail).param("name"));
    }
    tracing::info!(%project, grounding = %name, "grounding removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}
