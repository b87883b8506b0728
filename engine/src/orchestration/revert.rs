//! A revert that is run again, by itself: what its execution is given, and what came of it.
//!
//! ```text
//!  execution r_…, type orchestrion.revert, input [RevertAgain, data, context]
//!    --> one activity <service>.revert, as an orchestration's undoing has it
//!    --> completed with {"status","error"?}, or failed with the same as details
//! ```
//!
//! It is an execution of its own because the orchestration has closed: history takes no event behind its end.
//!
//! Invariant: data and context are payloads of their own, byte for byte what they were.

use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::common::v1::{Payload, Payloads};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::outcome::{RevertOutcome, RevertStatus, failure_text};
use super::submission::{
    BadPayload, Options, json_payload, payload_text, raw_json_payload, read_json,
};
use super::{REVERT_ID_PREFIX, REVERT_TYPE_SUFFIX};

/// What is to be reverted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevertAgain {
    /// The record that it is about.
    pub compensation_id: String,
    /// The orchestration that left it undone.
    pub orchestration_id: String,
    /// The task.
    pub task_id: String,
    /// The service's id: its queue.
    pub service: String,
    /// The service's name.
    pub service_name: String,
    /// How long the revert may be tried for, in milliseconds.
    pub time_ms: u64,
    /// The key the service is to know it by, when it may have done the one before; empty for a new one.
    #[serde(default)]
    pub idempotency_key: String,
    /// How patient to be.
    #[serde(default)]
    pub options: Options,
}

impl RevertAgain {
    /// The input of the execution.
    pub fn input(&self, data_json: &str, context_json: &str) -> Payloads {
        let raw = |text: &str| raw_json_payload(text.as_bytes().to_vec());
        Payloads {
            payloads: vec![json_payload(self), raw(data_json), raw(context_json)],
        }
    }

    /// Reads an input: what is to be reverted, its data, its context.
    pub(super) fn read(input: Option<&Payloads>) -> Result<(Self, Payload, Payload), BadPayload> {
        let again: Self = read_json(input)?;
        match input.map(|input| &input.payloads[..]) {
            Some([_, data, context]) => {
                payload_text(data)?;
                payload_text(context)?;
                Ok((again, data.clone(), context.clone()))
            }
            _ => Err(BadPayload::Missing),
        }
    }

    pub(super) fn activity_id(&self) -> String {
        format!("{REVERT_ID_PREFIX}{}", self.task_id)
    }

    pub(super) fn activity_type(&self) -> String {
        format!("{}{REVERT_TYPE_SUFFIX}", self.service_name)
    }
}

/// How a revert's execution says it ended.
pub(super) fn told(outcome: &RevertOutcome) -> Value {
    json!({ "status": outcome.status.as_str(), "error": outcome.error })
}

/// Whether a revert that ended so has undone what it was to undo.
pub fn is_undone(status: &str) -> bool {
    matches!(status, "completed" | "partial")
}

/// What came of a revert's execution; `None` while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// completed, partial, failed, expired or unknown.
    pub status: String,
    /// Why it is not undone, if it is not.
    pub failure: String,
}

impl Ended {
    /// Whether what was done is undone.
    pub fn is_undone(&self) -> bool {
        is_undone(&self.status)
    }

    /// Of the journal of its execution.
    pub fn of(journal: &[Record]) -> Option<Self> {
        let last = journal.iter().rev().find_map(Record::event)?;
        let failed = |failure: String| Self {
            status: RevertStatus::Failed.to_string(),
            failure,
        };
        Some(match last.attributes.as_ref()? {
            Attributes::WorkflowExecutionCompletedEventAttributes(a) => {
                let results: Vec<Value> = read_json(a.result.as_ref()).ok()?;
                Self::read(results.first()?)?
            }
            Attributes::WorkflowExecutionFailedEventAttributes(a) => {
                let failure = a.failure.as_ref();
                let details = match failure.and_then(|f| f.failure_info.as_ref()) {
                    Some(FailureInfo::ApplicationFailureInfo(info)) => info.details.as_ref(),
                    _ => None,
                };
                let told = read_json::<Value>(details).ok();
                told.as_ref()
                    .and_then(Self::read)
                    .unwrap_or_else(|| failed(failure_text(failure)))
            }
            Attributes::WorkflowExecutionTerminatedEventAttributes(a) => {
                failed(format!("its execution was terminated: {}", a.reason))
            }
            Attributes::WorkflowExecutionTimedOutEventAttributes(_) => {
                failed("its execution timed out".to_owned())
            }
            Attributes::WorkflowExecutionCanceledEventAttributes(_) => {
                failed("its execution was cancelled".to_owned())
            }
            _ => return None,
        })
    }

    fn read(told: &Value) -> Option<Self> {
        let text = |member: &str| told.get(member).and_then(Value::as_str);
        Some(Self {
            status: text("status")?.to_owned(),
            failure: text("error").unwrap_or_default().to_owned(),
        })
    }
}

/// How the revert of a task was tried in a journal: the event that scheduled it, the idempotency key it was given by its header, and
/// whether the service answered it for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The scheduling event.
    pub scheduled_event_id: i64,
    /// The key its header named; empty when it had its own.
    pub idempotency_key: String,
    /// Whether its service answered: a repeat under the same key would be answered the same without anything being done.
    pub answered: bool,
}

impl Tried {
    /// The newest revert of a task in a journal.
    pub fn of(journal: &[Record], task_id: &str) -> Option<Self> {
        let activity_id = format!("{REVERT_ID_PREFIX}{task_id}");
        let events = || journal.iter().filter_map(Record::event);
        let mut tried = events().rev().find_map(|event| match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(a))
                if a.activity_id == activity_id =>
            {
                let header = a.header.as_ref().map(|header| &header.fields);
                let key = header.and_then(|fields| fields.get(super::IDEMPOTENCY_HEADER));
                Some(Self {
                    scheduled_event_id: event.event_id,
                    idempotency_key: key.map(key_text).unwrap_or_default(),
                    answered: false,
                })
            }
            _ => None,
        })?;
        tried.answered = events().any(|event| {
            matches!(
                &event.attributes,
                Some(Attributes::ActivityTaskCompletedEventAttributes(a))
                    if a.scheduled_event_id == tried.scheduled_event_id
            )
        });
        Some(tried)
    }
}

/// The text of an idempotency key's payload; empty when it is none.
pub fn key_text(payload: &Payload) -> String {
    payload_text(payload)
        .ok()
        .and_then(|text| serde_json::from_slice(text).ok())
        .unwrap_or_default()
}
