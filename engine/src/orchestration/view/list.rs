//! Listings: one line per orchestration, from its visibility record alone.
//!
//! Invariant: no journal is read for a listing.

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::v1::Visibility;
use serde::Serialize;
use serde_json::Value;

use super::MemoView;
use crate::orchestration::WORKFLOW_TYPE;
use crate::orchestration::effect::rfc3339;
use crate::orchestration::outcome::CompensationSummary;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListItem {
    /// The orchestration.
    pub id: String,
    /// The action's text.
    pub action: String,
    /// Where it stands.
    pub status: String,
    /// Why it failed: a string of a planning, `{id,producer,error}` of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// When it was submitted, RFC 3339.
    pub timestamp: String,
    /// How far its undoing is, when there is something to undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CompensationSummary>,
}

/// All of a project, by status; a status without any is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// Being planned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<ListItem>,
    /// Running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processing: Vec<ListItem>,
    /// Done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub completed: Vec<ListItem>,
    /// Failed, in planning or in a task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<ListItem>,
    /// Not possible with the services there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_actionable: Vec<ListItem>,
    /// Ended on a service's wish.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aborted: Vec<ListItem>,
    /// Ended on somebody else's wish.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cancelled: Vec<ListItem>,
}

impl Listing {
    /// Of visibility records, newest first as they come. Executions that are no orchestrations are left out.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Visibility>) -> Self {
        let mut listing = Self::default();
        for item in records.into_iter().filter_map(ListItem::of) {
            match item.status.as_str() {
                "pending" => listing.pending.push(item),
                "processing" => listing.processing.push(item),
                "completed" => listing.completed.push(item),
                "not_actionable" => listing.not_actionable.push(item),
                "aborted" => listing.aborted.push(item),
                "cancelled" => listing.cancelled.push(item),
                _ => listing.failed.push(item),
            }
        }
        listing
    }
}

impl ListItem {
    /// Of a visibility record; `None` when it is of no orchestration.
    pub fn of(record: &Visibility) -> Option<Self> {
        if record.workflow_type != WORKFLOW_TYPE {
            return None;
        }
        let memo = MemoView::of(record.memo.as_ref());
        let said = memo.status.unwrap_or_else(|| "pending".to_owned());
        let ended_badly = matches!(
            said.as_str(),
            "failed" | "aborted" | "cancelled" | "not_actionable"
        );
        let cut_short = |why: &str| ("failed".to_owned(), Some(Value::from(why)));
        let (status, error) = match WorkflowExecutionStatus::try_from(record.status) {
            Ok(WorkflowExecutionStatus::Completed) => ("completed".to_owned(), None),
            // The end for callers stands in the memo at once; the run goes on undoing.
            _ if ended_badly => (said, memo.error),
            Ok(WorkflowExecutionStatus::Running | WorkflowExecutionStatus::Paused) => (said, None),
            Ok(WorkflowExecutionStatus::Terminated) => cut_short("the run was terminated"),
            Ok(WorkflowExecutionStatus::TimedOut) => cut_short("the run timed out"),
            _ => ("failed".to_owned(), memo.error),
        };
        let undoing = matches!(status.as_str(), "failed" | "aborted" | "cancelled");
        Some(Self {
            id: record.workflow_id.clone(),
            action: memo.action.unwrap_or_default(),
            status,
            error,
            timestamp: rfc3339(Timestamp(record.started_at)),
            compensation: memo
                .compensation
                .filter(|summary| undoing && summary.total > 0),
        })
    }
}
