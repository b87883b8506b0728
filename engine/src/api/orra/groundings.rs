//! Groundings: orra's `/groundings`, and our `/grounding-tests`, which plans every use case of a grounding and runs none.
//!
//! Invariant: what is refused leaves no trace; what is tried out leaves none either.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::{Namespace, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::auth::{Authenticated, Caller};
use super::body::{Body, Id};
use super::error::{ApiError, Kind, code};
use super::json::{BadJson, Members};
use super::{Api, no_content, respond};
use crate::grounding::{Fault, Grounding, Spec, UseCase};
use crate::orchestration::dry_run::{Outcome, TriedCase};
use crate::plan::{Parameter, Plan};

/// A grounding as orra's clients read it.
#[derive(Serialize)]
struct GroundingJson<'a> {
    #[serde(rename = "projectID")]
    project_id: &'a str,
    #[serde(flatten)]
    spec: &'a Spec,
    /// Ours: SHA-256 of all of it.
    digest: &'a str,
    /// Ours: the lines that are enforced.
    enforced: Vec<&'a str>,
    /// Ours: the lines that only the planner is told.
    #[serde(rename = "notEnforced")]
    not_enforced: &'a [String],
}

impl<'a> GroundingJson<'a> {
    fn of(project: &'a Namespace, grounding: &'a Grounding) -> Self {
        Self {
            project_id: project.as_str(),
            spec: &grounding.spec,
            digest: &grounding.digest,
            enforced: grounding.enforced().collect(),
            not_enforced: &grounding.rules.told,
        }
    }
}

/// `POST /groundings`
pub async fn apply(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let spec = parse(body.as_str())?;
    let grounding = api
        .registrar
        .apply_grounding(&caller.project, spec, &caller.actor)
        .await?;
    tracing::info!(
        project = %caller.project,
        grounding = %grounding.spec.name,
        version = %grounding.spec.version,
        rules = grounding.rules.rules.len(),
        "grounding applied"
    );
    let shown = GroundingJson::of(&caller.project, &grounding);
    Ok(respond(StatusCode::CREATED, &shown))
}

/// `GET /groundings`: by name, `null` when there are none.
pub async fn list(State(api): State<Api>, Authenticated(project): Authenticated) -> Response {
    let groundings = api.registrar.registry().groundings(&project);
    let shown: Vec<_> = groundings
        .iter()
        .map(|grounding| GroundingJson::of(&project, grounding))
        .collect();
    respond(StatusCode::OK, &(!shown.is_empty()).then_some(shown))
}

/// `DELETE /groundings/{name}`: an unknown name is refused only where there are no groundings at all, as orra has it.
pub async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Id(name): Id,
) -> Result<Response, ApiError> {
    if api
        .registrar
        .registry()
        .groundings(&caller.project)
        .is_empty()
    {
        let message = format!("the project has no groundings, so there is no {name:?} to remove");
        return Err(ApiError::new(Kind::Unanticipated, message).code(code::UNANTICIPATED));
    }
    let gone = api
        .registrar
        .remove_groundings(&caller.project, Some(&name), &caller.actor)
        .await?;
    tracing::info!(project = %caller.project, grounding = %name, gone, "grounding removed");
    Ok(no_content())
}

/// `DELETE /groundings`
pub async fn remove_all(State(api): State<Api>, caller: Caller) -> Result<Response, ApiError> {
    let gone = api
        .registrar
        .remove_groundings(&caller.project, None, &caller.actor)
        .await?;
    tracing::info!(project = %caller.project, gone, "groundings removed");
    Ok(no_content())
}

/// What came of trying a grounding out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TestedJson<'a> {
    name: &'a str,
    version: &'a str,
    digest: &'a str,
    enforced: Vec<&'a str>,
    not_enforced: &'a [String],
    /// What looks like a mistake and is none for sure.
    warnings: Vec<String>,
    passed: bool,
    cases: Vec<CaseJson>,
}

/// What came of trying a use case out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CaseJson {
    action: String,
    data: Vec<Parameter>,
    /// `planned`, `not actionable` or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    model: String,
    tries: u32,
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// `POST /grounding-tests`: the body is a grounding. It is not applied, and nothing runs.
pub async fn test(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    body: Body,
) -> Result<Response, ApiError> {
    let grounding = Grounding::new(parse(body.as_str())?, Timestamp::ZERO, 0)?;
    let grounding = Arc::new(grounding);
    let attempts = api.settings.planning.attempts;
    let tried = api.desk.dry_run_cases(&project, &grounding, attempts).await;
    let cases: Vec<_> = tried.into_iter().map(CaseJson::of).collect();
    let tested = TestedJson {
        name: &grounding.spec.name,
        version: &grounding.spec.version,
        digest: &grounding.digest,
        enforced: grounding.enforced().collect(),
        not_enforced: &grounding.rules.told,
        warnings: api.desk.doubts(&project, &grounding),
        passed: cases.iter().all(|case| case.outcome == "planned"),
        cases,
    };
    Ok(respond(StatusCode::OK, &tested))
}

impl CaseJson {
    fn of(case: TriedCase) -> Self {
        let (outcome, reason, plan) = match case.tried.outcome {
            Outcome::Planned(plan) => ("planned", None, Some(plan)),
            Outcome::NotActionable(reason) => ("not actionable", Some(reason), None),
            Outcome::Failed(error) => ("failed", Some(error.to_string()), None),
        };
        Self {
            action: case.action,
            data: case.data,
            outcome,
            reason,
            plan,
            model: case.tried.model,
            tries: case.tried.attempts,
            prompt_tokens: case.tried.prompt_tokens,
            completion_tokens: case.tried.completion_tokens,
        }
    }
}

fn parse(body: &str) -> Result<Spec, ApiError> {
    let body = Members::of_body(body)?;
    let text = |name: &str| body.string(name).map(Option::unwrap_or_default);
    let cases = body.array("useCases")?.into_iter().map(use_case);
    Ok(Spec {
        name: text("name")?,
        domain: text("domain")?,
        version: text("version")?,
        use_cases: cases.collect::<Result<_, _>>()?,
        constraints: body.strings("constraints")?,
    })
}

fn use_case(raw: &RawValue) -> Result<UseCase, BadJson> {
    let case = Members::of("an element of \"useCases\"", raw)?;
    let text = |name: &str| case.string(name).map(Option::unwrap_or_default);
    // The names are the author's: they are told apart by case.
    let params: BTreeMap<String, Option<String>> = match case.get("params") {
        None => BTreeMap::new(),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| BadJson::Kind {
            what: "member \"params\"".to_owned(),
            expected: "an object of strings",
        })?,
    };
    let params = params.into_iter();
    Ok(UseCase {
        action: text("action")?,
        params: params
            .map(|(name, value)| (name, value.unwrap_or_default()))
            .collect(),
        capabilities: case.strings("capabilities")?,
        intent: text("intent")?,
    })
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self::new(Kind::InvalidRequest, fault.message).param(fault.param)
    }
}
