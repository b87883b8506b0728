//! Effects: what leaves the engine because of a live turn, committed in the same batch as the turn itself.
//!
//! Invariant: an effect's id is a pure function of the run and of what happened, so a batch that is tried again repeats nothing.

use jiff::Timestamp as Instant;
use orchestrion_history::ids::Timestamp;
use orchestrion_proto::v1::CompensationFailure;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Something the engine commits beside the events of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The callers' webhooks learn how the orchestration stands.
    StatusChanged(StatusChange),
    /// Something could not be undone: a record for a person, and the callers' other webhooks.
    CompensationFailed(CompensationFailure),
}

/// The end of an orchestration as its callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusChange {
    /// The same on every delivery.
    pub event_id: String,
    /// The orchestration.
    pub orchestration_id: String,
    /// Which end.
    pub status: FinalStatus,
    /// When.
    pub at: Timestamp,
    /// Outputs of the last tasks; one null when there are none.
    pub results: Vec<Value>,
    /// `{id,producer,error}` of a failure.
    pub error: Option<Value>,
    /// The payload of an abort.
    pub abort_reason: Option<Value>,
    /// Where the submission itself wants to be told, beside the project's webhooks.
    pub webhook: Option<String>,
}

/// How an orchestration ended for its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinalStatus {
    /// Every task is done.
    Completed,
    /// A task failed.
    Failed,
    /// A service asked for its end.
    Aborted,
    /// A caller asked for its end.
    Cancelled,
}

impl FinalStatus {
    /// As callers read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
        }
    }

    /// The event type of its webhook.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Completed => "orchestration.completed",
            Self::Failed => "orchestration.failed",
            Self::Aborted => "orchestration.aborted",
            Self::Cancelled => "orchestration.cancelled",
        }
    }
}

impl StatusChange {
    pub(super) fn new(orchestration_id: &str, status: FinalStatus, at: Timestamp) -> Self {
        let seconds = at.as_millis().div_euclid(1_000);
        Self {
            event_id: format!("{orchestration_id}-{}-{seconds}", status.as_str()),
            orchestration_id: orchestration_id.to_owned(),
            status,
            at,
            results: vec![Value::Null],
            error: None,
            abort_reason: None,
            webhook: None,
        }
    }

    /// For tests of what becomes of one.
    #[cfg(test)]
    pub(crate) fn of(orchestration_id: &str, status: FinalStatus, at: Timestamp) -> Self {
        Self::new(orchestration_id, status, at)
    }

    /// The JSON a webhook is sent.
    pub fn body(&self, project_id: &str) -> Value {
        let mut body = json!({
            "event_id": self.event_id,
            "type": self.status.event_type(),
            "project_id": project_id,
            "orchestration_id": self.orchestration_id,
            "status": self.status.as_str(),
            "timestamp": rfc3339(self.at),
            "results": self.results,
        });
        for (name, member) in [("error", &self.error), ("abort_reason", &self.abort_reason)] {
            if let Some(member) = member {
                body[name] = member.clone();
            }
        }
        body
    }
}

/// The event type of a compensation failure's webhook, whatever its status.
pub const COMPENSATION_EVENT_TYPE: &str = "compensation.failed";

#[derive(Serialize)]
struct CompensationBody<'a> {
    event_id: String,
    r#type: &'static str,
    compensation_id: &'a str,
    project_id: &'a str,
    orchestration_id: &'a str,
    task_id: &'a str,
    service_id: &'a str,
    service_name: &'a str,
    status: &'a str,
    failure: &'a str,
    compensation_data: CompensationDataJson<'a>,
    timestamp: String,
}

/// The compensation data of a record as the wire carries it: `{data,context,ttl}`, the data verbatim.
#[derive(Debug, Clone, Serialize)]
pub struct CompensationDataJson<'a> {
    data: &'a RawValue,
    context: &'a RawValue,
    ttl: i64,
}

impl<'a> CompensationDataJson<'a> {
    /// Of a record. Text in it that is not JSON reads as null.
    pub fn of(record: &'a CompensationFailure) -> Self {
        Self {
            data: raw_or_null(&record.data_json),
            context: raw_or_null(&record.context_json),
            ttl: record.ttl_ms,
        }
    }
}

fn raw_or_null(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or(RawValue::NULL)
}

/// The event id of a compensation failure's webhook.
pub fn compensation_event_id(record: &CompensationFailure) -> String {
    format!(
        "{}-{}-{}",
        record.id,
        record.status,
        Timestamp(record.at).as_millis().div_euclid(1_000)
    )
}

/// The JSON a compensation failure's webhook is sent.
pub fn compensation_body(record: &CompensationFailure, project_id: &str) -> String {
    let body = CompensationBody {
        event_id: compensation_event_id(record),
        r#type: COMPENSATION_EVENT_TYPE,
        compensation_id: &record.id,
        project_id,
        orchestration_id: &record.orchestration_id,
        task_id: &record.task_id,
        service_id: &record.service_id,
        service_name: &record.service_name,
        status: &record.status,
        failure: &record.failure,
        compensation_data: CompensationDataJson::of(record),
        timestamp: rfc3339(Timestamp(record.at)),
    };
    serde_json::to_string(&body).expect("our JSON types have string keys only")
}

/// RFC 3339 in UTC with as many digits as it needs. A time no calendar has is the zero time of the wire.
pub fn rfc3339(at: Timestamp) -> String {
    Instant::from_nanosecond(i128::from(at.0))
        .map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completed_orchestration_reads_as_its_callers_know_it() {
        let mut change = StatusChange::new(
            "o_1",
            FinalStatus::Completed,
            Timestamp::from_millis(1_700_000_000_250),
        );
        change.results = vec![json!({"a": 1})];
        assert_eq!(
            change.body("p_1").to_string(),
            concat!(
                r#"{"event_id":"o_1-completed-1700000000","type":"orchestration.completed","project_id":"p_1","#,
                r#""orchestration_id":"o_1","status":"completed","timestamp":"2023-11-14T22:13:20.25Z","results":[{"a":1}]}"#
            )
        );
    }

    #[test]
    fn a_compensation_record_carries_its_data_verbatim() {
        let record = CompensationFailure {
            id: "c_1".to_owned(),
            data_json: r#"{"b" : 1.0}"#.to_owned(),
            context_json: "{}".to_owned(),
            ttl_ms: 5,
            status: "expired".to_owned(),
            at: 1_700_000_000_000_000_000,
            ..Default::default()
        };
        let body = compensation_body(&record, "p_1");
        assert!(
            body.contains(r#""compensation_data":{"data":{"b" : 1.0},"context":{},"ttl":5}"#),
            "{body}"
        );
        assert!(
            body.starts_with(
                r#"{"event_id":"c_1-expired-1700000000","type":"compensation.failed""#
            ),
            "{body}"
        );
    }
}
