//! Compensations that failed, and what people decided about them.
//!
//! Invariant: a record changes in its resolution only, and only in its own project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::{Key, KeyRange, Op};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::CompensationFailure;
use serde::Serialize;

use super::auth::Authenticated;
use super::body::{Body, Id};
use super::error::{ApiError, Kind};
use super::json::Members;
use super::{Api, respond};
use crate::engine::handle::CallError;
use crate::orchestration::effect::{CompensationDataJson, rfc3339};

/// The newest so many are listed.
const LISTED_MAX: usize = 10_000;
const PAGE: usize = 512;
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
        }
    }
}

/// `GET /compensation-failures`: newest first, `null` when there are none.
pub async fn list(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
) -> Result<Response, ApiError> {
    let mut records = Vec::new();
    let mut range = KeyRange::compensations(ShardId::REGISTRY, &project);
    loop {
        let page = api
            .handle
            .store()
            .scan(&range, PAGE, false)
            .map_err(CallError::from)?;
        for (_, value) in &page.entries {
            records.push(
                CompensationFailure::decode(value.clone()).map_err(|e| ApiError::internal(&e))?,
            );
        }
        match page.entries.last() {
            Some((last, _)) if page.more => range = range.after(last),
            _ => break,
        }
    }
    records.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.cmp(&b.id)));
    records.truncate(LISTED_MAX);
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
    let record = find(&api, &project, &id)?;
    Ok(respond(StatusCode::OK, &RecordJson::of(&project, &record)))
}

/// `POST /compensation-failures/{id}/resolve`
pub async fn resolve(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    Id(id): Id,
    body: Body,
) -> Result<Response, ApiError> {
    decide(&api, &project, &id, &body, "resolved").await
}

/// `POST /compensation-failures/{id}/ignore`
pub async fn ignore(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    Id(id): Id,
    body: Body,
) -> Result<Response, ApiError> {
    decide(&api, &project, &id, &body, "ignored").await
}

async fn decide(
    api: &Api,
    project: &Namespace,
    id: &str,
    body: &Body,
    to: &str,
) -> Result<Response, ApiError> {
    let reason = Members::of_body(body.as_str())?
        .string("reason")?
        .unwrap_or_default();
    let mut record = find(api, project, id)?;
    to.clone_into(&mut record.resolution_state);
    record.resolution = reason;
    record.resolved_at = api.clock.now().0;
    let value = Bytes::from(record.encode_to_vec());
    api.handle
        .put(vec![Op::Put(key(project, id), value)])
        .await?;
    Ok(respond(StatusCode::OK, &RecordJson::of(project, &record)))
}

/// A foreign record is as unknown as one that never was.
fn find(api: &Api, project: &Namespace, id: &str) -> Result<CompensationFailure, ApiError> {
    let value = api.handle.store().get(&key(project, id)).map_err(CallError::from)?.ok_or_else(|| {
        ApiError::new(Kind::NotExist, format!("unknown compensation failure {id:?}: list what there is with GET /compensation-failures"))
    })?;
    CompensationFailure::decode(value).map_err(|e| ApiError::internal(&e))
}

fn key(project: &Namespace, id: &str) -> Key {
    Key::Compensation {
        shard: ShardId::REGISTRY,
        namespace: project.clone(),
        id: id.to_owned(),
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
