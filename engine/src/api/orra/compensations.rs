//! Compensations that failed, and what people decided about them.
//!
//! Invariant: a record changes in its resolution only, and only in its own project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::{Namespace, Timestamp};
use orchestrion_proto::v1::{CompensationFailure, RevertRetry};
use serde::Serialize;

use super::auth::{Authenticated, Caller};
use super::body::{Body, Id};
use super::error::{ApiError, Kind};
use super::json::Members;
use super::{Api, respond};
use crate::compensations::{CompensationError, Decision};
use crate::orchestration::effect::{CompensationDataJson, rfc3339};

/// The wire's word for "not yet".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordJson<'a> {
    id: &'a str,
    project_id: &'a str,
    orchestration_id: &'a str,
    task_id: &'a str,
    service_id: &'a str,
    service_name: &'a str,
    compensation_data: CompensationDataJson<'a>,
    status: &'a str,
    resolution_state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    failure: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resolution: &'a str,
    attempts_made: i32,
    max_attempts: i32,
    timestamp: String,
    resolved_at: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retries: Vec<RetryJson<'a>>,
}

/// A revert that was run again.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetryJson<'a> {
    /// Of its execution.
    id: &'a str,
    requested_at: String,
    /// Absent while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// `processing` while it is under way.
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    failure: &'a str,
}

impl<'a> RetryJson<'a> {
    fn of(retry: &'a RevertRetry) -> Self {
        let ended = retry.ended_at != 0;
        Self {
            id: &retry.workflow_id,
            requested_at: rfc3339(Timestamp(retry.requested_at)),
            ended_at: ended.then(|| rfc3339(Timestamp(retry.ended_at))),
            status: if ended { &retry.status } else { "processing" },
            failure: &retry.failure,
        }
    }
}

impl<'a> RecordJson<'a> {
    fn of(project: &'a Namespace, record: &'a CompensationFailure) -> Self {
        Self {
            id: &record.id,
            project_id: project.as_str(),
            orchestration_id: &record.orchestration_id,
            task_id: &record.task_id,
            service_id: &record.service_id,
            service_name: &record.service_name,
            compensation_data: CompensationDataJson::of(record),
            status: &record.status,
            resolution_state: if record.resolution_state.is_empty() {
                "pending"
            } else {
                &record.resolution_state
            },
            failure: &record.failure,
            resolution: &record.resolution,
            attempts_made: record.attempts_made,
            max_attempts: record.max_attempts,
            timestamp: rfc3339(Timestamp(record.at)),
            resolved_at: match record.resolved_at {
                0 => ZERO_TIME.to_owned(),
                at => rfc3339(Timestamp(at)),
            },
            retries: record.retries.iter().map(RetryJson::of).collect(),
        }
    }
}

/// `GET /compensation-failures`: newest first, `null` when there are none.
pub async fn list(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
) -> Result<Response, ApiError> {
    let records = api.compensations.list(&project)?;
    let shown: Vec<RecordJson<'_>> = records
        .iter()
        .map(|record| RecordJson::of(&project, record))
        .collect();
    Ok(respond(
        StatusCode::OK,
        &(!shown.is_empty()).then_some(shown),
    ))
}

/// `GET /compensation-failures/{id}`
pub async fn show(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let record = api.compensations.find(&project, &id)?;
    Ok(respond(StatusCode::OK, &RecordJson::of(&project, &record)))
}

/// `POST /compensation-failures/{id}/resolve`
pub async fn resolve(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    body: Body,
) -> Result<Response, ApiError> {
    decide(&api, &caller, &id, &body, Decision::Resolved).await
}

/// `POST /compensation-failures/{id}/ignore`
pub async fn ignore(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    body: Body,
) -> Result<Response, ApiError> {
    decide(&api, &caller, &id, &body, Decision::Ignored).await
}

async fn decide(
    api: &Api,
    caller: &Caller,
    id: &str,
    body: &Body,
    decision: Decision,
) -> Result<Response, ApiError> {
    let reason = Members::of_body(body.as_str())?
        .string("reason")?
        .unwrap_or_default();
    let record = api
        .compensations
        .decide(&caller.project, id, decision, reason, &caller.actor)
        .await?;
    Ok(respond(
        StatusCode::OK,
        &RecordJson::of(&caller.project, &record),
    ))
}

/// `POST /compensation-failures/{id}/retry`: 202 once it is certain that the revert is run again.
pub async fn retry(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let record = api
        .compensations
        .retry(&caller.project, &id, &caller.actor)
        .await?;
    tracing::info!(project = %caller.project, record = %id, "a revert is run again");
    Ok(respond(
        StatusCode::ACCEPTED,
        &RecordJson::of(&caller.project, &record),
    ))
}

impl From<CompensationError> for ApiError {
    fn from(error: CompensationError) -> Self {
        match error {
            CompensationError::Unknown(_) => Self::new(Kind::NotExist, error.to_string()),
            CompensationError::NotNow(text) => Self::new(Kind::InvalidOperation, text),
            CompensationError::Damaged(text) => Self::internal(&text),
            CompensationError::Engine(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_orras_clients_know_it() {
        let record = CompensationFailure {
            id: "c_1".into(),
            orchestration_id: "o_1".into(),
            task_id: "task1".into(),
            service_id: "s_a".into(),
            service_name: "inventory".into(),
            data_json: r#"{"originalTask":{"n":1.0}}"#.into(),
            context_json: r#"{"reason":"failed"}"#.into(),
            ttl_ms: 5,
            status: "failed".into(),
            failure: "no".into(),
            attempts_made: 10,
            max_attempts: 10,
            at: 1_700_000_000_000_000_000,
            ..Default::default()
        };
        let project = Namespace::parse("p_1").unwrap();
        let text = serde_json::to_string(&RecordJson::of(&project, &record)).unwrap();
        let expected = concat!(
            r#"{"id":"c_1","projectId":"p_1","orchestrationId":"o_1","taskId":"task1","serviceId":"s_a","#,
            r#""serviceName":"inventory","compensationData":{"data":{"originalTask":{"n":1.0}},"#,
            r#""context":{"reason":"failed"},"ttl":5},"status":"failed","resolutionState":"pending","failure":"no","#,
            r#""attemptsMade":10,"maxAttempts":10,"timestamp":"2023-11-14T22:13:20Z","resolvedAt":"0001-01-01T00:00:00Z"}"#
        );
        assert_eq!(text, expected);
    }
}
