//! What the indexes hold of a run: the value of a queue entry, the line of a listing.

use bytes::Bytes;
use orchestrion_history::ids::{ShardId, Timestamp, WorkflowId};
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{Key, LineOf};
use orchestrion_history::tasks::QueueEntry;
use orchestrion_proto::temporal::api::common::v1::{Memo, SearchAttributes};
use orchestrion_proto::v1::Visibility;

use crate::engine::round::RunKey;
use crate::visibility::Derived;

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
    let begun = state.begun.get().unwrap_or_default();
    let parent = begun.parent_workflow_execution.unwrap_or_default();
    let root = begun.root_workflow_execution.unwrap_or_default();
    // Sizes grow with every commit and are listed once they are final: a row is a function of what its last writing event left.
    let closed = |size: i64| if state.status.is_closed() { size } else { 0 };
    let number = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    Visibility {
        workflow_id: workflow_id.to_string(),
        run_id: run.1.0.to_vec(),
        workflow_type: state.workflow_type.clone(),
        task_queue: state.task_queue.clone(),
        status: state.listed_status().into(),
        started_at: state.started_at,
        closed_at: state.closed_at,
        history_length: closed(state.next_event_id - 1),
        history_bytes: closed(number(state.history_bytes)),
        state_transitions: closed(state.next_event_id - 1),
        execution_at: state.executable_at,
        parent_workflow_id: parent.workflow_id,
        parent_run_id: parent.run_id,
        root_workflow_id: root.workflow_id,
        root_run_id: root.run_id,
        first_run_id: state.first_run_id.clone(),
        memo: Some(Memo {
            fields: memo.collect(),
        }),
        search_attributes: Some(SearchAttributes {
            indexed_fields: attributes.chain(Derived::of(state).attributes()).collect(),
        }),
    }
}

/// The lines a run stands in for good: by its workflow id and by its type.
pub(in crate::engine) fn lasting_lines(
    shard: ShardId,
    run: &RunKey,
    workflow_id: &WorkflowId,
    workflow_type: &str,
    started: Timestamp,
) -> [Key; 2] {
    [
        LineOf::Workflow(workflow_id.clone()),
        LineOf::Type(workflow_type.to_owned()),
    ]
    .map(|of| line(shard, run, of, started))
}

/// The line a run stands in as long as it has this status.
pub(in crate::engine) fn status_line(
    shard: ShardId,
    run: &RunKey,
    status: i32,
    started: Timestamp,
) -> Key {
    // Statuses are numbered from 1 to 8.
    let number = u8::try_from(status).unwrap_or_default();
    line(shard, run, LineOf::Status(number), started)
}

fn line(shard: ShardId, run: &RunKey, of: LineOf, started: Timestamp) -> Key {
    Key::Line {
        shard,
        namespace: run.0.clone(),
        of,
        started,
        run_id: run.1,
    }
}
