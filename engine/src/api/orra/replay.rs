//! `GET /orchestrations/{id}/replay?until=N`: the journal in words, the state it folds to, and whether that is the state the engine
//! has.
//!
//! Invariant: a replay changes nothing.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::Timestamp;
use orchestrion_history::machines::Illegal;
use orchestrion_history::record::Record;
use orchestrion_history::replay::{difference, fold, fold_onto};
use orchestrion_history::state::{Activity, MutableState, Stage, WorkflowTask};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::Authenticated;
use super::body::{Id, Params};
use super::error::{ApiError, Kind};
use super::listing::target_of;
use super::story::summary;
use super::{Api, respond};
use crate::orchestration::effect::rfc3339;

/// How far to replay.
#[derive(Debug, Deserialize)]
pub struct Until {
    until: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplayJson<'a> {
    id: &'a str,
    workflow_id: &'a str,
    run_id: String,
    records: Vec<RecordJson>,
    state: Value,
    verified: bool,
    difference: Option<String>,
    until: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordJson {
    /// From 1.
    seq: usize,
    kind: &'static str,
    event_id: Option<i64>,
    r#type: String,
    at: String,
    summary: String,
}

/// Replays an orchestration.
pub async fn replay(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    Id(id): Id,
    Params(query): Params<Until>,
) -> Result<Response, ApiError> {
    let until = query
        .until
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(parse_until)
        .transpose()?;
    let target = target_of(&project, &id)?;
    // The state first: the journal read after it holds at least its records.
    let kept = api
        .handle
        .state(target.clone())
        .await
        .map_err(|error| super::listing::unknown_or(&id, error))?;
    let run = api
        .handle
        .journal(&target)?
        .ok_or_else(|| ApiError::unknown_orchestration(&id))?;
    let until = until.map(|until| until.min(run.records.len()));
    let replayed = replayed(&run.records, &kept, until.unwrap_or(run.records.len()));
    Ok(respond(
        StatusCode::OK,
        &ReplayJson {
            id: &id,
            workflow_id: run.workflow_id.as_str(),
            run_id: run.run_id.to_string(),
            records: run.records[..until.unwrap_or(run.records.len())]
                .iter()
                .enumerate()
                .map(record)
                .collect(),
            state: replayed.state,
            verified: replayed.difference.is_none(),
            difference: replayed.difference,
            until,
        },
    ))
}

fn parse_until(text: &str) -> Result<usize, ApiError> {
    text.parse().map_err(|_| {
        let message = format!("until is {text:?}: give the number of a record, counted from 1");
        ApiError::new(Kind::InvalidRequest, message).param("until")
    })
}

fn record((index, record): (usize, &Record)) -> RecordJson {
    RecordJson {
        seq: index + 1,
        kind: if record.event().is_some() {
            "event"
        } else {
            "note"
        },
        event_id: record
            .event()
            .map(|event| event.event_id)
            .filter(|id| *id > 0),
        r#type: record.type_name(),
        at: rfc3339(Timestamp(record.at())),
        summary: summary(record),
    }
}

struct Replayed {
    state: Value,
    difference: Option<String>,
}

/// Folds the whole journal for the comparison, and the first `until` records for the state that is shown.
fn replayed(records: &[Record], kept: &MutableState, until: usize) -> Replayed {
    let compared = usize::try_from(kept.records)
        .unwrap_or(usize::MAX)
        .min(records.len());
    let (first, second) = (until.min(compared), until.max(compared));
    let told = |error: Illegal| format!("the journal does not fold: {error}");
    let mut state = match fold(&records[..first]) {
        Ok(state) => state,
        Err(error) => {
            return Replayed {
                state: Value::Null,
                difference: Some(told(error)),
            };
        }
    };
    let at_first = state.clone();
    if let Err(error) = fold_onto(&mut state, &records[first..second]) {
        return Replayed {
            state: state_json(&at_first),
            difference: Some(told(error)),
        };
    }
    let (shown, verified) = if until <= compared {
        (&at_first, &state)
    } else {
        (&state, &at_first)
    };
    Replayed {
        state: state_json(shown),
        difference: difference(verified, kept),
    }
}

/// A state, for people.
pub(crate) fn state_json(state: &MutableState) -> Value {
    let time = |at: i64| (at != 0).then(|| rfc3339(Timestamp(at)));
    json!({
        "workflowId": state.workflow_id,
        "runId": state.run_id,
        "workflowType": state.workflow_type,
        "status": format!("{:?}", state.status),
        "startedAt": time(state.started_at),
        "closedAt": time(state.closed_at),
        "records": state.records,
        "nextEventId": state.next_event_id,
        "historyBytes": state.history_bytes,
        "workflowTask": match &state.workflow_task {
            WorkflowTask::None => Value::Null,
            WorkflowTask::Scheduled { scheduled_event_id, attempt, .. } => {
                json!({ "stage": "scheduled", "scheduledEventId": scheduled_event_id, "attempt": attempt })
            }
            WorkflowTask::Started { scheduled_event_id, attempt, .. } => {
                json!({ "stage": "started", "scheduledEventId": scheduled_event_id, "attempt": attempt })
            }
        },
        "activities": state.activities.iter().map(|(event, activity)| activity_json(*event, activity)).collect::<Vec<_>>(),
        "timers": state.timers.iter().map(|(id, timer)| json!({ "id": id, "fireAt": time(timer.fire_at) })).collect::<Vec<_>>(),
        "signals": state.signals,
        "cancelRequested": state.cancel_requested.is_some(),
        "bufferedEvents": state.buffered.len(),
    })
}

fn activity_json(event: i64, activity: &Activity) -> Value {
    let stage = match &activity.stage {
        Stage::Queued if activity.waiting => json!({ "name": "waiting" }),
        Stage::Queued => json!({ "name": "queued" }),
        Stage::Backoff { until } => {
            json!({ "name": "backoff", "until": rfc3339(Timestamp(*until)) })
        }
        Stage::Started { at, identity, .. } => {
            json!({ "name": "started", "at": rfc3339(Timestamp(*at)), "by": identity })
        }
        Stage::Settled => json!({ "name": "settled" }),
    };
    json!({
        "id": activity.activity_id,
        "type": activity.activity_type,
        "taskQueue": activity.task_queue,
        "scheduledEventId": event,
        "attempt": activity.attempt,
        "stage": stage,
        "cancelRequested": activity.cancel_requested_event_id != 0,
    })
}
