//! How tasks and reverts end: the JSON their results carry, and the failures they close with.
//!
//! Invariant: compensation data is never re-encoded: the bytes a service sent are the bytes its revert is given.

use std::fmt;

use orchestrion_proto::temporal::api::common::v1::Payloads;
use orchestrion_proto::temporal::api::enums::v1::{RetryState, TimeoutType};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::ABORT_FAILURE_TYPE;
use super::submission::{BadPayload, json_or_null, json_text};

/// How SDKs encode nothing.
const NULL_ENCODING: &str = "binary/null";

/// What a task's success brings.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TaskResult {
    pub output: Value,
    pub compensation: Option<Compensation>,
}

/// What a service wants back when its task is undone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compensation {
    /// JSON text, verbatim.
    pub data: Vec<u8>,
    pub ttl_ms: u64,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with the member task")]
struct TaskResultJson<'a> {
    task: Value,
    #[serde(default, borrow)]
    compensation: Option<CompensationJson<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with the members data and ttl")]
struct CompensationJson<'a> {
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    ttl: Option<f64>,
}

#[derive(Deserialize)]
struct LateResultJson<'a> {
    task: String,
    #[serde(borrow)]
    result: &'a RawValue,
}

/// Reads `{"task":…,"compensation":null|{"data":…,"ttl":ms}}`.
/// A compensation whose service names no time can be asked for during `ttl_ms_default`.
pub(super) fn task_result(
    result: Option<&Payloads>,
    ttl_ms_default: u64,
) -> Result<TaskResult, String> {
    let text = json_text(result).map_err(|e| e.to_string())?;
    parse_task_result(text, ttl_ms_default)
}

/// A result that no task of an orchestration can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a task of an orchestration returns JSON, and {0}: return a value that is encoded as json/plain"
)]
pub struct NoTaskResult(BadPayload);

/// The result of a task that an ordinary worker ran: an object that already reads `{"task":…}` is taken as it is, anything else is the
/// task's output, with nothing to undo it by.
pub fn task_result_of(result: Option<Payloads>) -> Result<Payloads, NoTaskResult> {
    let text = match json_text(result.as_ref()) {
        Ok(text) => text,
        Err(BadPayload::Missing) => b"null",
        Err(BadPayload::Encoding(encoding)) if encoding == NULL_ENCODING => b"null",
        Err(bad) => return Err(NoTaskResult(bad)),
    };
    // The parser below takes an array for an object of that order; an array is an output like any other.
    let is_object = text.trim_ascii_start().starts_with(b"{");
    if is_object && serde_json::from_slice::<TaskResultJson<'_>>(text).is_ok() {
        return Ok(result.unwrap_or_default());
    }
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(text) {
        return Err(NoTaskResult(BadPayload::Json(error.to_string())));
    }
    let mut wrapped = Vec::with_capacity(text.len() + 30);
    wrapped.extend_from_slice(br#"{"task":"#);
    wrapped.extend_from_slice(text);
    wrapped.extend_from_slice(br#","compensation":null}"#);
    Ok(Payloads {
        payloads: vec![super::submission::raw_json_payload(wrapped)],
    })
}

fn parse_task_result(text: &[u8], ttl_ms_default: u64) -> Result<TaskResult, String> {
    let parsed: TaskResultJson<'_> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let compensation = parsed.compensation.map(|compensation| Compensation {
        data: compensation
            .data
            .map_or("null", RawValue::get)
            .as_bytes()
            .to_vec(),
        // A float beyond the range saturates; not a number and negative ones become 0, which has expired.
        ttl_ms: compensation.ttl.map_or(ttl_ms_default, |ms| ms as u64),
    });
    Ok(TaskResult {
        output: parsed.task,
        compensation,
    })
}

/// Reads a late result's signal: the task's id and its result. Anything else is nobody's late result.
pub(super) fn late_result(
    input: Option<&Payloads>,
    ttl_ms_default: u64,
) -> Option<(String, TaskResult)> {
    let parsed: LateResultJson<'_> = serde_json::from_slice(json_text(input).ok()?).ok()?;
    Some((
        parsed.task,
        parse_task_result(parsed.result.get().as_bytes(), ttl_ms_default).ok()?,
    ))
}

/// How an undoing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RevertStatus {
    /// All of the task is undone.
    Completed,
    /// The service undid what it could, and says so.
    Partial,
    /// It is not undone.
    Failed,
    /// It was asked for too late.
    Expired,
    /// Nobody knows.
    Unknown,
}

impl RevertStatus {
    /// As records and views spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a person has to look at it.
    pub fn needs_attention(self) -> bool {
        matches!(self, Self::Failed | Self::Expired | Self::Unknown)
    }
}

impl fmt::Display for RevertStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an undoing ended, and what is said of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RevertOutcome {
    pub status: RevertStatus,
    pub error: Option<String>,
}

impl RevertOutcome {
    pub(super) fn new(status: RevertStatus, error: impl Into<Option<String>>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    /// Reads `{"status":"completed"|"partial"|"failed"|"expired","error"?}`. A handler that returns nothing has completed.
    pub(super) fn of_result(result: Option<&Payloads>) -> Self {
        let answer = json_or_null(result.and_then(|p| p.payloads.first()));
        let error = answer.get("error").filter(|e| !e.is_null()).map(text_of);
        let because = |otherwise: &str| error.clone().unwrap_or_else(|| otherwise.to_owned());
        match answer.get("status").and_then(Value::as_str) {
            None | Some("completed") => Self::new(RevertStatus::Completed, None),
            Some("partial") => Self::new(RevertStatus::Partial, error),
            Some("expired") => Self::new(
                RevertStatus::Expired,
                because("the service says that it is too late"),
            ),
            Some("failed") => {
                Self::new(RevertStatus::Failed, because("the service gave no reason"))
            }
            Some(other) => Self::new(
                RevertStatus::Failed,
                because(&format!(
                    "the service answered with the unknown status {other:?}"
                )),
            ),
        }
    }

    /// The same for people: a partial undoing without words of its own says what is left to do.
    pub(super) fn shown(result: Option<&Payloads>) -> Self {
        let mut outcome = Self::of_result(result);
        if outcome.status == RevertStatus::Partial && outcome.error.is_none() {
            let answer = json_or_null(result.and_then(|p| p.payloads.first()));
            let remaining = answer["partial"]["remaining"].as_array();
            let remaining: Vec<String> = remaining.into_iter().flatten().map(text_of).collect();
            outcome.error =
                (!remaining.is_empty()).then(|| format!("left to do: {}", remaining.join(", ")));
        }
        outcome
    }

    /// Of a revert that failed for good. Without time for another attempt it has expired.
    pub(super) fn of_failure(failure: Option<&Failure>, retry_state: RetryState) -> Self {
        let status = if retry_state == RetryState::Timeout {
            RevertStatus::Expired
        } else {
            RevertStatus::Failed
        };
        Self::new(status, failure_text(failure))
    }

    /// Of a revert that timed out for good.
    pub(super) fn of_timeout(failure: Option<&Failure>) -> Self {
        let status = match timeout_type(failure) {
            TimeoutType::ScheduleToClose | TimeoutType::ScheduleToStart => RevertStatus::Expired,
            TimeoutType::StartToClose | TimeoutType::Heartbeat | TimeoutType::Unspecified => {
                RevertStatus::Unknown
            }
        };
        Self::new(status, failure_text(failure))
    }
}

/// How far the undoing of a run is, for callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CompensationSummary {
    /// Whether some of it is still to be done.
    pub active: bool,
    /// Tasks that are to be undone.
    pub total: usize,
    /// Of those, the undone ones, wholly or in part.
    pub completed: usize,
    /// Of those, the ones that need a person.
    pub failed: usize,
}

/// What is said of a failure, to people.
pub(super) fn failure_text(failure: Option<&Failure>) -> String {
    failure.map_or_else(|| "no reason was given".to_owned(), |f| f.message.clone())
}

/// The payload of an abort, if the failure is one.
pub(super) fn abort_payload(failure: Option<&Failure>) -> Option<Value> {
    match &failure?.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) if info.r#type == ABORT_FAILURE_TYPE => {
            Some(json_or_null(
                info.details.as_ref().and_then(|d| d.payloads.first()),
            ))
        }
        _ => None,
    }
}

pub(super) fn timeout_type(failure: Option<&Failure>) -> TimeoutType {
    match failure.and_then(|f| f.failure_info.as_ref()) {
        Some(FailureInfo::TimeoutFailureInfo(info)) => info.timeout_type(),
        _ => TimeoutType::Unspecified,
    }
}

/// Whether a task that timed out for good may have been done all the same.
pub(super) fn ends_unknown(started: bool, failure: Option<&Failure>) -> bool {
    started
        || !matches!(
            timeout_type(failure),
            TimeoutType::ScheduleToStart | TimeoutType::ScheduleToClose
        )
}

/// What a value says when it stands in a sentence: a string as it is, the rest as JSON.
pub(super) fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestration::submission::{json_payloads, raw_json_payload};

    #[test]
    fn compensation_data_is_kept_byte_for_byte() {
        let text =
            br#"{"task":{"ok":true},"compensation":{"data":{"b" : 1.0,  "a":1e3},"ttl":5000}}"#;
        let payloads = Payloads {
            payloads: vec![raw_json_payload(text.to_vec())],
        };
        let result = task_result(Some(&payloads), 1).unwrap();
        let compensation = result.compensation.unwrap();
        assert_eq!(compensation.data, br#"{"b" : 1.0,  "a":1e3}"#);
        assert_eq!(compensation.ttl_ms, 5_000);
    }

    #[test]
    fn a_result_without_a_task_is_none() {
        for text in ["{}", "[]", "7", r#"{"result":1}"#] {
            let payloads = Payloads {
                payloads: vec![raw_json_payload(text.as_bytes().to_vec())],
            };
            assert!(task_result(Some(&payloads), 1).is_err(), "{text}");
        }
        assert!(task_result(None, 1).is_err());
        assert!(late_result(None, 1).is_none());
    }

    #[test]
    fn a_partial_undoing_is_shown_with_what_is_left() {
        let shown = |value: Value| RevertOutcome::shown(Some(&json_payloads(&value))).error;
        let partial = serde_json::json!({"completed": ["refund"], "remaining": ["letter", "call"]});
        let mut answer = serde_json::json!({"status": "partial", "partial": partial});
        assert_eq!(
            shown(answer.clone()).as_deref(),
            Some("left to do: letter, call")
        );
        answer["error"] = "no stamps".into();
        assert_eq!(shown(answer).as_deref(), Some("no stamps"));
        assert_eq!(shown(serde_json::json!({"status": "partial"})), None);
        assert_eq!(shown(Value::Null), None);
    }

    #[test]
    fn what_a_worker_returns_is_the_output_unless_it_says_more() {
        let of = |text: &str| {
            let payloads = Payloads {
                payloads: vec![raw_json_payload(text.as_bytes().to_vec())],
            };
            task_result_of(Some(payloads)).map(|result| {
                String::from_utf8(json_text(Some(&result)).unwrap().to_vec()).unwrap()
            })
        };
        let wrapped = |text: &str| Ok(format!(r#"{{"task":{text},"compensation":null}}"#));
        for output in [r#"{"n":1}"#, r#"["a"]"#, "[1]", "7", "null"] {
            assert_eq!(of(output), wrapped(output));
        }
        let whole = r#" {"task":1,"compensation":{"data":[2]}}"#;
        assert_eq!(of(whole), Ok(whole.to_owned()));
        assert!(of("{").is_err());
        let nothing = task_result_of(None).unwrap();
        assert_eq!(task_result(Some(&nothing), 1).unwrap().output, Value::Null);
        let mut bytes = json_payloads(&1);
        let encoding = ("encoding".to_owned(), b"binary/plain".to_vec());
        bytes.payloads[0].metadata.extend([encoding]);
        let refused = task_result_of(Some(bytes)).unwrap_err().to_string();
        assert!(refused.contains("binary/plain"), "{refused}");
    }

    #[test]
    fn a_revert_that_says_failed_has_failed() {
        let status = |value: Value| RevertOutcome::of_result(Some(&json_payloads(&value))).status;
        assert_eq!(
            status(serde_json::json!({"status":"failed"})),
            RevertStatus::Failed
        );
        assert_eq!(
            status(serde_json::json!({"status":"expired"})),
            RevertStatus::Expired
        );
        assert_eq!(
            status(serde_json::json!({"status":"partial","partial":{}})),
            RevertStatus::Partial
        );
        assert_eq!(
            status(serde_json::json!({"status":"done?"})),
            RevertStatus::Failed
        );
        assert_eq!(status(Value::Null), RevertStatus::Completed);
        assert_eq!(
            RevertOutcome::of_result(None).status,
            RevertStatus::Completed
        );
    }
}
