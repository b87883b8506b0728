//! Tokens: what a worker or a client sends back so that we know where it was.
//!
//! A workflow task's token carries its whole start, which no record holds yet. A page's token carries the place in the journal where the next
//! page begins, and what is to stand behind the last one.
//!
//! Invariant: a token is a claim. What it says is checked against the run, and its namespace against the caller.

use orchestrion_history::ids::{Namespace, RunId, Timestamp, WorkflowId};
use orchestrion_history::request::WorkflowTaskStart;
use prost::Message;
use prost::bytes::Bytes;
use tonic::Status;

use crate::api::work::undoes;
use crate::engine::Dispatch;
use crate::engine::Target;
use crate::engine::polling::{QueryTask, WorkflowTaskDispatch};

const WORKFLOW: u32 = 1;
const ACTIVITY: u32 = 2;
const QUERY: u32 = 3;
const PAGE: u32 = 4;

/// A task, as its worker names it.
#[derive(Clone, PartialEq, Message)]
pub struct TaskToken {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    workflow_id: String,
    #[prost(bytes = "vec", tag = "4")]
    run_id: Vec<u8>,
    #[prost(int64, tag = "5")]
    pub scheduled_event_id: i64,
    #[prost(int32, tag = "6")]
    pub attempt: i32,
    #[prost(sfixed64, tag = "7")]
    started_at: i64,
    #[prost(sfixed64, tag = "8")]
    scheduled_at: i64,
    #[prost(string, tag = "9")]
    request_id: String,
    #[prost(string, tag = "10")]
    identity: String,
    #[prost(int64, tag = "11")]
    history_bytes: i64,
    #[prost(bool, tag = "12")]
    suggest_continue_as_new: bool,
    #[prost(bool, tag = "13")]
    speculative: bool,
    #[prost(uint64, tag = "14")]
    pub query_id: u64,
    #[prost(string, tag = "15")]
    pub workflow_type: String,
    #[prost(int64, tag = "16")]
    last_event_id: i64,
    /// Whether the activity undoes what another did.
    #[prost(bool, tag = "17")]
    pub revert: bool,
}

impl TaskToken {
    pub fn of_workflow_task(task: &WorkflowTaskDispatch) -> Bytes {
        let start = &task.start;
        Self {
            kind: WORKFLOW,
            namespace: task.namespace.to_string(),
            workflow_id: task.workflow_id.to_string(),
            run_id: task.run_id.0.to_vec(),
            scheduled_event_id: start.scheduled_event_id,
            attempt: start.attempt,
            started_at: start.at.0,
            scheduled_at: start.scheduled_at.0,
            request_id: start.request_id.clone(),
            identity: start.identity.clone(),
            last_event_id: start.last_event_id,
            history_bytes: start.history_bytes,
            suggest_continue_as_new: start.suggest_continue_as_new,
            speculative: start.speculative,
            ..Self::default()
        }
        .encode_to_vec()
        .into()
    }

    pub fn of_activity(dispatch: &Dispatch) -> Vec<u8> {
        Self {
            kind: ACTIVITY,
            namespace: dispatch.namespace.to_string(),
            workflow_id: dispatch.workflow_id.to_string(),
            run_id: dispatch.run_id.0.to_vec(),
            scheduled_event_id: dispatch.scheduled_event_id,
            attempt: dispatch.attempt,
            started_at: dispatch.started_at.0,
            workflow_type: dispatch.workflow_type.clone(),
            revert: undoes(dispatch),
            ..Self::default()
        }
        .encode_to_vec()
    }

    pub fn of_query(query: &QueryTask) -> Bytes {
        Self {
            kind: QUERY,
            namespace: query.namespace.to_string(),
            workflow_id: query.workflow_id.to_string(),
            run_id: query.run_id.0.to_vec(),
            query_id: query.id,
            ..Self::default()
        }
        .encode_to_vec()
        .into()
    }

    pub fn workflow_task(bytes: &[u8]) -> Result<Self, Status> {
        Self::read(bytes, WORKFLOW, "a workflow task")
    }

    pub fn activity(bytes: &[u8]) -> Result<Self, Status> {
        Self::read(bytes, ACTIVITY, "an activity task")
    }

    pub fn query(bytes: &[u8]) -> Result<Self, Status> {
        Self::read(bytes, QUERY, "a query task")
    }

    fn read(bytes: &[u8], kind: u32, what: &str) -> Result<Self, Status> {
        let token = Self::decode(bytes).ok().filter(|token| token.kind == kind);
        let token = token.filter(|token| token.run().is_some() && token.workflow_id().is_some());
        token.ok_or_else(|| {
            Status::invalid_argument(format!(
                "task token is not that of {what}: send the one that came with the task"
            ))
        })
    }

    fn run(&self) -> Option<RunId> {
        <[u8; 16]>::try_from(&self.run_id[..]).ok().map(RunId)
    }

    fn workflow_id(&self) -> Option<WorkflowId> {
        WorkflowId::parse(&self.workflow_id).ok()
    }

    /// The run it names, in the namespace that its bearer may use.
    pub fn target(&self, namespace: Namespace) -> Target {
        let parts = self.workflow_id().zip(self.run());
        let (workflow_id, run_id) = parts.expect("checked when it was read");
        Target {
            namespace,
            workflow_id,
            run_id: Some(run_id),
        }
    }

    /// The start it carries.
    pub fn start(&self) -> WorkflowTaskStart {
        WorkflowTaskStart {
            scheduled_event_id: self.scheduled_event_id,
            attempt: self.attempt,
            scheduled_at: Timestamp(self.scheduled_at),
            at: Timestamp(self.started_at),
            request_id: self.request_id.clone(),
            identity: self.identity.clone(),
            last_event_id: self.last_event_id,
            history_bytes: self.history_bytes,
            suggest_continue_as_new: self.suggest_continue_as_new,
            speculative: self.speculative,
        }
    }
}

/// Where the next page of a history begins.
#[derive(Clone, PartialEq, Message)]
pub struct PageToken {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub run_id: Vec<u8>,
    /// The number of the next record.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// The last event wanted; 0 is all there are.
    #[prost(int64, tag = "4")]
    pub until: i64,
    /// Encoded events that stand behind the last one.
    #[prost(bytes = "vec", tag = "5")]
    pub suffix: Vec<u8>,
    #[prost(string, tag = "6")]
    pub workflow_id: String,
}

impl PageToken {
    pub fn new(workflow_id: &WorkflowId, run_id: RunId, seq: u64) -> Self {
        Self {
            kind: PAGE,
            run_id: run_id.0.to_vec(),
            workflow_id: workflow_id.to_string(),
            seq,
            ..Self::default()
        }
    }

    /// The token of a page of this execution.
    pub fn read(bytes: &[u8], workflow_id: &WorkflowId) -> Result<(Self, RunId), Status> {
        let token = Self::decode(bytes)
            .ok()
            .filter(|token| token.kind == PAGE && token.workflow_id == workflow_id.as_str());
        let run = |token: Self| {
            let run_id = RunId(<[u8; 16]>::try_from(&token.run_id[..]).ok()?);
            Some((token, run_id))
        };
        token.and_then(run).ok_or_else(|| {
            Status::invalid_argument(
                "page token is not one of this execution: send the one that came with the last page",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_another_kind_or_none_is_refused() {
        let token = TaskToken {
            kind: ACTIVITY,
            workflow_id: "w".to_owned(),
            run_id: vec![7; 16],
            ..Default::default()
        };
        let bytes = token.encode_to_vec();
        assert!(TaskToken::activity(&bytes).is_ok());
        assert!(TaskToken::workflow_task(&bytes).is_err());
        assert!(TaskToken::activity(&bytes[..bytes.len() - 1]).is_err());
        assert!(TaskToken::activity(b"").is_err());
        assert!(TaskToken::activity(&[0xff; 40]).is_err());
    }
}
