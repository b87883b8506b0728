//! Compensations that failed: what is not undone, what people decide about it, and reverts that are run again.
//!
//! Invariant: a failure changes in its resolution and its retries only, and only in its own project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::Timestamp;
use orchestrion_proto::v1::{CompensationFailure, RevertRetry};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::input::{Acting, Caller, Id, Json, Params, bounded, page_limit};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use crate::api::orra::Api;
use crate::compensations::{CompensationError, Decision};
use crate::orchestration::effect::rfc3339;

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 1_000;
/// Failures of a page.
const LIMIT_MAX: u32 = 100;

/// A compensation that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureView {
    /// Its id.
    id: String,
    /// The orchestration.
    execution_id: String,
    /// The step that is not undone.
    step: String,
    /// The service that should have undone it.
    service_id: String,
    /// The service's name.
    service_name: String,
    /// `failed`, `expired` or `unknown`.
    status: String,
    /// Why.
    reason: String,
    /// How often it was tried.
    attempts: i32,
    /// What the service gets to undo it by.
    data: Value,
    /// Why it was to be undone.
    context: Value,
    /// When it was given up.
    #[schema(format = DateTime)]
    failed_at: String,
    /// What people decided.
    resolution: ResolutionView,
    /// Their words.
    resolution_reason: String,
    /// When they decided; null until then.
    #[schema(format = DateTime)]
    resolved_at: Option<String>,
    /// The times its revert was run again.
    retries: Vec<RetryView>,
}

/// What people decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResolutionView {
    /// Nothing yet.
    Pending,
    /// It is undone, or does not matter any more.
    Resolved,
    /// It stays as it is.
    Ignored,
}

impl ResolutionView {
    fn of(record: &CompensationFailure) -> Self {
        match record.resolution_state.as_str() {
            "resolved" => Self::Resolved,
            "ignored" => Self::Ignored,
            _ => Self::Pending,
        }
    }
}

/// A revert that was run again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryView {
    /// Its execution.
    id: String,
    /// When it was asked for.
    #[schema(format = DateTime)]
    requested_at: String,
    /// When it ended; null while it is under way.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// How it ended; `processing` while it is under way.
    status: String,
    /// Why it failed, if it did.
    reason: String,
}

impl RetryView {
    fn of(retry: &RevertRetry) -> Self {
        let ended = retry.ended_at != 0;
        Self {
            id: retry.workflow_id.clone(),
            requested_at: rfc3339(Timestamp(retry.requested_at)),
            ended_at: ended.then(|| rfc3339(Timestamp(retry.ended_at))),
            status: if ended { &retry.status } else { "processing" }.to_owned(),
            reason: retry.failure.clone(),
        }
    }
}

impl FailureView {
    fn of(record: &CompensationFailure) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        Self {
            id: record.id.clone(),
            execution_id: record.orchestration_id.clone(),
            step: record.task_id.clone(),
            service_id: record.service_id.clone(),
            service_name: record.service_name.clone(),
            status: record.status.clone(),
            reason: record.failure.clone(),
            attempts: record.attempts_made,
            data: json(&record.data_json),
            context: json(&record.context_json),
            failed_at: rfc3339(Timestamp(record.at)),
            resolution: ResolutionView::of(record),
            resolution_reason: record.resolution.clone(),
            resolved_at: (record.resolved_at != 0).then(|| rfc3339(Timestamp(record.resolved_at))),
            retries: record.retries.iter().map(RetryView::of).collect(),
        }
    }
}

/// A page of compensations that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// Newest first.
    items: Vec<FailureView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Which of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only these.
    #[param(inline)]
    resolution: Option<ResolutionView>,
    /// Only those of this orchestration.
    execution_id: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[param(pattern = "^[0-8][0-9]{18}-c_[A-Za-z0-9]{1,60}$")]
    cursor: Option<String>,
}

/// What was decided.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resolution {
    /// Why, for those who read it later.
    #[schema(max_length = 1000)]
    reason: String,
}

/// List compensations that failed
#[utoipa::path(
    get, path = "/compensation-failures", operation_id = "listCompensationFailures", tag = "compensation", params(Wanted),
    responses(
        (status = 200, description = "A page of them.", body = Failures),
        (status = 400, description = "The query is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(api): State<Api>,
    Caller(project): Caller,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let limit = page_limit(wanted.limit, LIMIT_MAX, LIMIT_MAX)?;
    let mut records = api.compensations.list(&project)?;
    // The order of the list: what stands behind the last one seen is the rest, whatever has come since.
    if let Some(cursor) = &wanted.cursor {
        let after = place(cursor).ok_or_else(|| {
            let detail =
                "the cursor is none of this server: give nextCursor of a page as it is, or none";
            Problem::new(Code::InvalidRequest, detail).param("cursor")
        })?;
        records.retain(|record| (-record.at, record.id.as_str()) > after);
    }
    records.retain(|record| {
        wanted
            .resolution
            .is_none_or(|only| ResolutionView::of(record) == only)
            && (wanted.execution_id.as_ref()).is_none_or(|only| record.orchestration_id == *only)
    });
    let last = (records.len() > limit).then(|| &records[limit - 1]);
    let next_cursor = last.map(|last| format!("{:019}-{}", last.at, last.id));
    let items = records.iter().take(limit).map(FailureView::of).collect();
    Ok(respond(StatusCode::OK, &Failures { items, next_cursor }))
}

/// Where a cursor points to: the newest first, by id where the time is the same.
fn place(cursor: &str) -> Option<(i64, &str)> {
    let (at, id) = cursor.split_once('-')?;
    Some((at.parse::<i64>().ok()?.checked_neg()?, id))
}

/// Show a compensation that failed
#[utoipa::path(
    get, path = "/compensation-failures/{id}", operation_id = "getCompensationFailure", tag = "compensation",
    params(("id" = String, Path, description = "The compensation that failed.")),
    responses(
        (status = 200, description = "It.", body = FailureView),
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
    let record = api.compensations.find(&project, &id)?;
    Ok(respond(StatusCode::OK, &FailureView::of(&record)))
}

/// Resolve a compensation that failed
///
/// It is undone by hand, or does not matter any more.
#[utoipa::path(
    post, path = "/compensation-failures/{id}/resolve", operation_id = "resolveCompensationFailure", tag = "compensation",
    params(("id" = String, Path, description = "The compensation that failed.")),
    request_body = Resolution,
    responses(
        (status = 200, description = "So it is noted.", body = FailureView),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn resolve(
    State(api): State<Api>,
    acting: Acting,
    Id(id): Id,
    Json(resolution): Json<Resolution>,
) -> Result<Response, Problem> {
    decide(&api, acting, &id, Decision::Resolved, resolution).await
}

/// Ignore a compensation that failed
///
/// It stays as it is.
#[utoipa::path(
    post, path = "/compensation-failures/{id}/ignore", operation_id = "ignoreCompensationFailure", tag = "compensation",
    params(("id" = String, Path, description = "The compensation that failed.")),
    request_body = Resolution,
    responses(
        (status = 200, description = "So it is noted.", body = FailureView),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn ignore(
    State(api): State<Api>,
    acting: Acting,
    Id(id): Id,
    Json(resolution): Json<Resolution>,
) -> Result<Response, Problem> {
    decide(&api, acting, &id, Decision::Ignored, resolution).await
}

async fn decide(
    api: &Api,
    acting: Acting,
    id: &str,
    decision: Decision,
    Resolution { reason }: Resolution,
) -> Result<Response, Problem> {
    bounded("reason", &reason, REASON_CHARS_MAX)?;
    let Acting { project, actor } = acting;
    let record = api
        .compensations
        .decide(&project, id, decision, reason, &actor)
        .await?;
    Ok(respond(StatusCode::OK, &FailureView::of(&record)))
}

/// Run a revert again
///
/// The answer comes once it is certain that it is run. What comes of it stands in `retries`; when it is undone, it is resolved.
#[utoipa::path(
    post, path = "/compensation-failures/{id}/retry", operation_id = "retryCompensation", tag = "compensation",
    params(("id" = String, Path, description = "The compensation that failed.")),
    responses(
        (status = 202, description = "It is run again.", body = FailureView),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "It is resolved, or run again already, or cannot be.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn retry(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Id(id): Id,
) -> Result<Response, Problem> {
    let record = api.compensations.retry(&project, &id, &actor).await?;
    tracing::info!(%project, record = %id, "a revert is run again");
    Ok(respond(StatusCode::ACCEPTED, &FailureView::of(&record)))
}

impl From<CompensationError> for Problem {
    fn from(error: CompensationError) -> Self {
        match error {
            CompensationError::Unknown(id) => {
                let detail = format!(
                    "there is no compensation failure {id:?}: list what there is with GET /v1/compensation-failures"
                );
                Self::new(Code::NotFound, detail).param("id")
            }
            CompensationError::NotNow(text) => Self::new(Code::Conflict, text),
            CompensationError::Damaged(text) => Self::internal(&text),
            CompensationError::Engine(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_place_in_the_list() {
        assert_eq!(place("12-c_a-b"), Some((-12, "c_a-b")));
        for wrong in ["", "12", "x-c_1", "-5-c_1", "99999999999999999999-c_1"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
