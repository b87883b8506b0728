//! What the indexes hold of a run: the value of a queue entry, the line of a listing.

use bytes::Bytes;
use orchestrion_history::ids::WorkflowId;
use orchestrion_history::state::MutableState;
use orchestrion_history::tasks::QueueEntry;
use orchestrion_proto::temporal::api::common::v1::{Memo, SearchAttributes};
use orchestrion_proto::v1::Visibility;

use crate::engine::round::RunKey;

/// `attempt: i32 | waiting: u8 | workflow id`, big endian.
pub(in crate::engine) fn queue_value(workflow_id: &WorkflowId, entry: &QueueEntry) -> Bytes {
    let mut value = Vec::with_capacity(5 + workflow_id.as_str().len());
    value.extend_from_slice(&entry.attempt.to_be_bytes());
    value.push(u8::from(entry.waiting));
    value.extend_from_slice(workflow_id.as_str().as_bytes());
    value.into()
}

/// Reads [`queue_value`].
pub(in crate::engine) fn read_queue_value(value: &[u8]) -> Option<(WorkflowId, i32, bool)> {
    let (attempt, rest) = value.split_first_chunk::<4>()?;
    let (waiting, id) = rest.split_first()?;
    let workflow_id = WorkflowId::parse(std::str::from_utf8(id).ok()?).ok()?;
    Some((workflow_id, i32::from_be_bytes(*attempt), *waiting != 0))
}

pub(in crate::engine) fn visibility(
    run: &RunKey,
    workflow_id: &WorkflowId,
    state: &MutableState,
) -> Visibility {
    let memo = state
        .memo
        .iter()
        .filter_map(|(name, payload)| Some((name.clone(), payload.get()?)));
    let attributes = state
        .search_attributes
        .iter()
        .filter_map(|(name, payload)| Some((name.clone(), payload.get()?)));
    Visibility {
        workflow_id: workflow_id.to_string(),
        run_id: run.1.0.to_vec(),
        workflow_type: state.workflow_type.clone(),
        task_queue: state.task_queue.clone(),
        status: state.status.wire().into(),
        started_at: state.started_at,
        closed_at: state.closed_at,
        history_length: state.next_event_id - 1,
        history_bytes: i64::try_from(state.history_bytes).unwrap_or(i64::MAX),
        memo: Some(Memo {
            fields: memo.collect(),
        }),
        search_attributes: Some(SearchAttributes {
            indexed_fields: attributes.collect(),
        }),
    }
}
