//! What a turn asked for, remembered until the journal says the same: the comparison that makes a replay strict.
//!
//! ```text
//!  Command --Shape::of_command--> Shape == Shape <--Shape::of_event-- command event
//! ```
//!
//! Time-outs and retry policies of activities are left out: the core normalises them. Everything else counts.
//!
//! Invariant: a shape holds hashes, not payloads; it lives in memory only and is never persisted.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as Asked;
use orchestrion_proto::temporal::api::common::v1::{Header, Memo, Payload, Payloads};
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as Written;

/// One command, reduced to what its event must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// The type of the event.
    kind: &'static str,
    /// The id the workflow gave, where there is one.
    id: String,
    /// Named parts by hash.
    parts: Vec<(&'static str, u64)>,
}

impl Shape {
    /// What the event of a command must show; `None` for a command no orchestration gives.
    pub(super) fn of_command(command: &Command) -> Option<Self> {
        Some(match command.attributes.as_ref()? {
            Asked::ScheduleActivityTaskCommandAttributes(a) => {
                Self::new("ActivityTaskScheduled", &a.activity_id)
                    .with("type", text(a.activity_type.as_ref().map(|t| &t.name)))
                    .with("queue", text(a.task_queue.as_ref().map(|q| &q.name)))
                    .with("input", payloads(a.input.as_ref()))
                    .with(
                        "header",
                        fields(a.header.as_ref().map(|h: &Header| &h.fields)),
                    )
            }
            Asked::RequestCancelActivityTaskCommandAttributes(a) => Self::new(
                "ActivityTaskCancelRequested",
                &a.scheduled_event_id.to_string(),
            ),
            Asked::StartTimerCommandAttributes(a) => Self::new("TimerStarted", &a.timer_id)
                .with("duration", encoded(a.start_to_fire_timeout.as_ref())),
            Asked::CancelTimerCommandAttributes(a) => Self::new("TimerCanceled", &a.timer_id),
            Asked::ModifyWorkflowPropertiesCommandAttributes(a) => {
                Self::of_memo(a.upserted_memo.as_ref())
            }
            Asked::CompleteWorkflowExecutionCommandAttributes(a) => {
                Self::new("WorkflowExecutionCompleted", "")
                    .with("result", payloads(a.result.as_ref()))
            }
            Asked::FailWorkflowExecutionCommandAttributes(a) => {
                Self::new("WorkflowExecutionFailed", "")
                    .with("failure", encoded(a.failure.as_ref()))
            }
            Asked::CancelWorkflowExecutionCommandAttributes(a) => {
                Self::new("WorkflowExecutionCanceled", "")
                    .with("details", payloads(a.details.as_ref()))
            }
            _ => return None,
        })
    }

    /// What a command event shows; `None` for an event that no command writes.
    pub(super) fn of_event(event: &HistoryEvent) -> Option<Self> {
        Some(match event.attributes.as_ref()? {
            Written::ActivityTaskScheduledEventAttributes(a) => {
                Self::new("ActivityTaskScheduled", &a.activity_id)
                    .with("type", text(a.activity_type.as_ref().map(|t| &t.name)))
                    .with("queue", text(a.task_queue.as_ref().map(|q| &q.name)))
                    .with("input", payloads(a.input.as_ref()))
                    .with(
                        "header",
                        fields(a.header.as_ref().map(|h: &Header| &h.fields)),
                    )
            }
            Written::ActivityTaskCancelRequestedEventAttributes(a) => Self::new(
                "ActivityTaskCancelRequested",
                &a.scheduled_event_id.to_string(),
            ),
            Written::TimerStartedEventAttributes(a) => Self::new("TimerStarted", &a.timer_id)
                .with("duration", encoded(a.start_to_fire_timeout.as_ref())),
            Written::TimerCanceledEventAttributes(a) => Self::new("TimerCanceled", &a.timer_id),
            Written::WorkflowPropertiesModifiedEventAttributes(a) => {
                Self::of_memo(a.upserted_memo.as_ref())
            }
            Written::WorkflowExecutionCompletedEventAttributes(a) => {
                Self::new("WorkflowExecutionCompleted", "")
                    .with("result", payloads(a.result.as_ref()))
            }
            Written::WorkflowExecutionFailedEventAttributes(a) => {
                Self::new("WorkflowExecutionFailed", "")
                    .with("failure", encoded(a.failure.as_ref()))
            }
            Written::WorkflowExecutionCanceledEventAttributes(a) => {
                Self::new("WorkflowExecutionCanceled", "")
                    .with("details", payloads(a.details.as_ref()))
            }
            // Commands no orchestration gives: seen in its history, they are somebody else's.
            Written::MarkerRecordedEventAttributes(a) => {
                Self::new("MarkerRecorded", &a.marker_name)
            }
            Written::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                Self::new("StartChildWorkflowExecutionInitiated", &a.workflow_id)
            }
            Written::SignalExternalWorkflowExecutionInitiatedEventAttributes(_) => {
                Self::new("SignalExternalWorkflowExecutionInitiated", "")
            }
            Written::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_) => {
                Self::new("RequestCancelExternalWorkflowExecutionInitiated", "")
            }
            Written::UpsertWorkflowSearchAttributesEventAttributes(_) => {
                Self::new("UpsertWorkflowSearchAttributes", "")
            }
            Written::WorkflowExecutionContinuedAsNewEventAttributes(_) => {
                Self::new("WorkflowExecutionContinuedAsNew", "")
            }
            _ => return None,
        })
    }

    fn of_memo(memo: Option<&Memo>) -> Self {
        Self::new("WorkflowPropertiesModified", "").with("memo", fields(memo.map(|m| &m.fields)))
    }

    fn new(kind: &'static str, id: &str) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            parts: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, hash: u64) -> Self {
        self.parts.push((name, hash));
        self
    }

    /// In words: with `beside`, also the parts in which the two differ.
    pub(super) fn describe(&self, beside: Option<&Self>) -> String {
        let mut words = self.kind.to_owned();
        if !self.id.is_empty() {
            words = format!("{words} {}", self.id);
        }
        if let Some(other) = beside.filter(|other| other.kind == self.kind && other.id == self.id) {
            let differing = self
                .parts
                .iter()
                .zip(&other.parts)
                .filter(|(a, b)| a != b)
                .map(|((name, _), _)| *name);
            words = format!(
                "{words} with another {}",
                differing.collect::<Vec<_>>().join(", ")
            );
        }
        words
    }
}

fn text(text: Option<&String>) -> u64 {
    hash_of(&text.map_or("", String::as_str))
}

fn encoded<M: Message>(message: Option<&M>) -> u64 {
    hash_of(&message.map(Message::encode_to_vec).unwrap_or_default())
}

fn payloads(payloads: Option<&Payloads>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for payload in payloads.into_iter().flat_map(|p| &p.payloads) {
        hash_payload(payload, &mut hasher);
    }
    hasher.finish()
}

fn fields(fields: Option<&HashMap<String, Payload>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, payload) in sorted(fields.into_iter().flatten()) {
        name.hash(&mut hasher);
        hash_payload(payload, &mut hasher);
    }
    hasher.finish()
}

fn hash_payload(payload: &Payload, hasher: &mut DefaultHasher) {
    for entry in sorted(payload.metadata.iter()) {
        entry.hash(hasher);
    }
    payload.data.hash(hasher);
}

/// The entries of a map in an order that does not depend on the map.
fn sorted<'a, V>(entries: impl Iterator<Item = (&'a String, &'a V)>) -> Vec<(&'a String, &'a V)> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

fn hash_of<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
