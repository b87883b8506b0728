//! Histories: forwards as stored bytes, backwards, and waiting for what comes.

use std::time::Duration;

use orchestrion_history::ids::{Namespace, RunId, WorkflowId};
use orchestrion_history::wire::{duration, timestamp};
use orchestrion_proto::temporal::api::enums::v1::{
    EventType, HistoryEventFilterType, WorkflowExecutionStatus,
};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    History, HistoryEvent, WorkflowTaskScheduledEventAttributes, WorkflowTaskStartedEventAttributes,
};
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryReverseRequest,
    GetWorkflowExecutionHistoryReverseResponse,
};
use orchestrion_proto::wire::GetWorkflowExecutionHistoryResponse;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::token::PageToken;
use super::{Temporal, edge, errors};
use crate::engine::history::{HistoryPage, Place};
use crate::engine::polling::WorkflowTaskDispatch;
use crate::engine::{Progress, Target};
use crate::seams;

/// Commits on a page when the caller names no number.
const PAGE_COMMITS: usize = 256;
/// How long a request for what comes waits before it is answered with nothing.
const WAIT: Duration = Duration::from_secs(20);

/// The events that only the token of a task holds, encoded as a fragment of a history.
pub fn unwritten_start(task: &WorkflowTaskDispatch) -> Vec<u8> {
    let start = &task.start;
    let mut events = Vec::with_capacity(2);
    if task.unwritten {
        events.push(HistoryEvent {
            event_id: task.started_event_id - 1,
            event_time: Some(timestamp(start.scheduled_at.0)),
            event_type: EventType::WorkflowTaskScheduled.into(),
            task_id: task.started_event_id - 1,
            attributes: Some(Attributes::WorkflowTaskScheduledEventAttributes(
                WorkflowTaskScheduledEventAttributes {
                    task_queue: Some(TaskQueue {
                        name: task.task_queue.clone(),
                        ..Default::default()
                    }),
                    start_to_close_timeout: Some(duration(task.timeout)),
                    attempt: start.attempt,
                },
            )),
            ..Default::default()
        });
    }
    events.push(HistoryEvent {
        event_id: task.started_event_id,
        event_time: Some(timestamp(start.at.0)),
        event_type: EventType::WorkflowTaskStarted.into(),
        task_id: task.started_event_id,
        attributes: Some(Attributes::WorkflowTaskStartedEventAttributes(
            WorkflowTaskStartedEventAttributes {
                scheduled_event_id: start.scheduled_event_id,
                identity: start.identity.clone(),
                request_id: start.request_id.clone(),
                history_size_bytes: start.history_bytes,
                suggest_continue_as_new: start.suggest_continue_as_new,
                ..Default::default()
            },
        )),
        ..Default::default()
    });
    History { events }.encode_to_vec()
}

impl Temporal {
    /// The first page of a task's history.
    pub(super) fn history_page(
        &self,
        place: Place<'_>,
        seq: Option<u64>,
        from: i64,
        until: i64,
    ) -> Result<HistoryPage, Status> {
        let page = self
            .api
            .handle
            .history_page(place, seq, from, until, PAGE_COMMITS);
        page.map_err(errors::of_call)
    }

    /// The run that a request means.
    pub(super) fn run_of(&self, target: &Target) -> Result<RunId, Status> {
        let run_id = match target.run_id {
            Some(run_id) => Some(run_id),
            None => self
                .api
                .handle
                .current_run(&target.namespace, &target.workflow_id)
                .map_err(errors::of_call)?,
        };
        run_id.ok_or_else(|| no_such_run(&target.workflow_id))
    }

    fn is_open(&self, place: Place<'_>) -> Result<bool, Status> {
        let head = self.api.handle.run_head(place).map_err(errors::of_call)?;
        let head = head.ok_or_else(|| no_such_run(place.1))?;
        Ok(head.status == WorkflowExecutionStatus::Running as i32)
    }

    pub(super) async fn read_history(
        &self,
        request: Request<GetWorkflowExecutionHistoryRequest>,
    ) -> Result<Response<GetWorkflowExecutionHistoryResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let for_sdk = wants_unwritten(request.metadata());
        let get = request.into_inner();
        let mut target = edge::target(&namespace, get.execution.as_ref())?;
        let token = match get.next_page_token.is_empty() {
            true => None,
            false => {
                let (token, run_id) = PageToken::read(&get.next_page_token, &target.workflow_id)?;
                target.run_id = Some(run_id);
                Some(token)
            }
        };
        let run_id = self.run_of(&target)?;
        target.run_id = Some(run_id);
        let commits = match usize::try_from(get.maximum_page_size) {
            Ok(0) | Err(_) => PAGE_COMMITS,
            Ok(commits) => commits,
        };
        if get.history_event_filter_type() == HistoryEventFilterType::CloseEvent {
            return self.close_event(&target, run_id, get.wait_new_event).await;
        }
        let place = (&namespace, &target.workflow_id, run_id);
        if let Some(token) = token.as_ref().filter(|token| token.until > 0) {
            return self.task_history(place, token, commits);
        }
        let seq = token.as_ref().map_or(1, |token| token.seq);
        let until = i64::MAX;
        // Whether it is open is asked before its events are read: what closes it afterwards is on a page to come.
        let mut open = self.is_open(place)?;
        let read = || {
            let page = self
                .api
                .handle
                .history_page(place, Some(seq), 1, until, commits);
            page.map_err(errors::of_call)
        };
        let mut page = read()?;
        if get.wait_new_event && open && page.events == 0 && page.next.is_none() {
            self.wait_for_records(&target, page.end.saturating_sub(1))
                .await?;
            open = self.is_open(place)?;
            page = read()?;
        }
        let more = match page.next {
            Some(seq) => Some(seq),
            None if get.wait_new_event && open => Some(page.end),
            None => None,
        };
        if more.is_none() && open && for_sdk {
            self.append_unwritten(&target, &mut page).await?;
        }
        let next_page_token = more.map_or_else(Vec::new, |seq| {
            PageToken::new(&target.workflow_id, run_id, seq).encode_to_vec()
        });
        Ok(Response::new(GetWorkflowExecutionHistoryResponse {
            history: Some(page.bytes.into()),
            next_page_token: next_page_token.into(),
            ..Default::default()
        }))
    }

    /// A worker that reads a run's history while it has its task finds the start that no record holds yet.
    async fn append_unwritten(
        &self,
        target: &Target,
        page: &mut HistoryPage,
    ) -> Result<(), Status> {
        let task = self.api.handle.task_at_work(target.clone()).await;
        if let Some(task) = task.map_err(errors::of_call)?
            && task.last_event_id == page.last_event_id
        {
            page.bytes.extend_from_slice(&unwritten_start(&task));
        }
        Ok(())
    }

    /// The rest of the history that came with a task.
    fn task_history(
        &self,
        place: Place<'_>,
        token: &PageToken,
        commits: usize,
    ) -> Result<Response<GetWorkflowExecutionHistoryResponse>, Status> {
        let page = self
            .api
            .handle
            .history_page(place, Some(token.seq), 1, token.until, commits)
            .map_err(errors::of_call)?;
        let mut bytes = page.bytes;
        let next_page_token = match page.next {
            Some(seq) => PageToken {
                seq,
                ..token.clone()
            }
            .encode_to_vec(),
            None => {
                bytes.extend_from_slice(&token.suffix);
                Vec::new()
            }
        };
        Ok(Response::new(GetWorkflowExecutionHistoryResponse {
            history: Some(bytes.into()),
            next_page_token: next_page_token.into(),
            ..Default::default()
        }))
    }

    /// The last event of a closed run; of an open one nothing, after a wait if the caller asks for it.
    async fn close_event(
        &self,
        target: &Target,
        run_id: RunId,
        wait: bool,
    ) -> Result<Response<GetWorkflowExecutionHistoryResponse>, Status> {
        let place = (&target.namespace, &target.workflow_id, run_id);
        let mut open = self.is_open(place)?;
        if open && wait {
            let progress = self.wait_for_records(target, u64::MAX).await?;
            let tail = progress.and_then(|progress| progress.tail);
            if let Some(last) = tail.and_then(|tail| tail.last_event()) {
                return Ok(Response::new(GetWorkflowExecutionHistoryResponse {
                    history: Some(last),
                    ..Default::default()
                }));
            }
            open = self.is_open(place)?;
        }
        if open {
            let token = PageToken::new(&target.workflow_id, run_id, 1).encode_to_vec();
            return Ok(Response::new(GetWorkflowExecutionHistoryResponse {
                history: Some(Default::default()),
                next_page_token: if wait {
                    token.into()
                } else {
                    Default::default()
                },
                ..Default::default()
            }));
        }
        let last = self.last_event(place)?;
        Ok(Response::new(GetWorkflowExecutionHistoryResponse {
            history: Some(last.into()),
            ..Default::default()
        }))
    }

    fn last_event(&self, place: Place<'_>) -> Result<Vec<u8>, Status> {
        let mut before = None;
        loop {
            let (commits, more) = self
                .api
                .handle
                .history_backwards(place, before, 4)
                .map_err(errors::of_call)?;
            for (seq, entry) in &commits {
                let fragments = orchestrion_history::record::event_fragments(entry);
                if let Some(Ok(last)) = fragments.last() {
                    return Ok(last.to_vec());
                }
                before = Some(*seq);
            }
            if !more {
                return Err(no_such_run(place.1));
            }
        }
    }

    /// How far the run has come, unless the time to wait is over.
    async fn wait_for_records(
        &self,
        target: &Target,
        seen: u64,
    ) -> Result<Option<Progress>, Status> {
        let mut stop = self.api.stop.clone();
        tokio::select! {
            progress = self.api.handle.watch(target.clone(), seen) => {
                progress.map(Some).map_err(errors::of_call)
            }
            () = seams::sleep(WAIT) => Ok(None),
            _ = stop.wait_for(|stopped| *stopped) => Ok(None),
        }
    }

    pub(super) async fn read_history_reverse(
        &self,
        request: Request<GetWorkflowExecutionHistoryReverseRequest>,
    ) -> Result<Response<GetWorkflowExecutionHistoryReverseResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let get = request.into_inner();
        let mut target = edge::target(&namespace, get.execution.as_ref())?;
        let mut before = None;
        if !get.next_page_token.is_empty() {
            let (token, run_id) = PageToken::read(&get.next_page_token, &target.workflow_id)?;
            target.run_id = Some(run_id);
            before = Some(token.seq);
        }
        let run_id = self.run_of(&target)?;
        let place: (&Namespace, &WorkflowId, RunId) = (&namespace, &target.workflow_id, run_id);
        self.is_open(place)?;
        let commits = match usize::try_from(get.maximum_page_size) {
            Ok(0) | Err(_) => PAGE_COMMITS,
            Ok(commits) => commits,
        };
        let (commits, more) = self
            .api
            .handle
            .history_backwards(place, before, commits)
            .map_err(errors::of_call)?;
        let mut events = Vec::new();
        for (_, entry) in &commits {
            let mut bytes = Vec::with_capacity(entry.len());
            for fragment in orchestrion_history::record::event_fragments(entry) {
                bytes.extend_from_slice(fragment.map_err(|e| Status::data_loss(e.to_string()))?);
            }
            let history =
                History::decode(&bytes[..]).map_err(|e| Status::data_loss(e.to_string()))?;
            events.extend(history.events.into_iter().rev());
        }
        let token = commits
            .last()
            .filter(|_| more)
            .map(|(seq, _)| PageToken::new(&target.workflow_id, run_id, *seq).encode_to_vec());
        Ok(Response::new(GetWorkflowExecutionHistoryReverseResponse {
            history: Some(History { events }),
            next_page_token: token.unwrap_or_default(),
        }))
    }
}

/// People's tools show what is written; workers replay, and need the start of the task they work on.
fn wants_unwritten(metadata: &MetadataMap) -> bool {
    let client = metadata
        .get("client-name")
        .and_then(|name| name.to_str().ok())
        .unwrap_or_default();
    !matches!(
        client,
        "" | "temporal-cli" | "temporal-ui" | "temporal-ui-server"
    )
}

pub fn no_such_run(workflow_id: &WorkflowId) -> Status {
    errors::not_found(format!(
        "workflow execution {workflow_id} is not found: it has no such run in this namespace"
    ))
}
