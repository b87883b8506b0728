//! What an execution and a queue look like now.

use orchestrion_history::ids::Timestamp;
use orchestrion_history::state::{
    Activity, ChildStage, ClosePolicy, MutableState, Stage, WorkflowTask,
};
use orchestrion_history::store::QueueKind;
use orchestrion_history::wire::{duration, timestamp};
use orchestrion_proto::temporal::api::common::v1::{
    ActivityType, Memo, SearchAttributes, WorkflowExecution, WorkflowType,
};
use orchestrion_proto::temporal::api::enums::v1::{
    ParentClosePolicy, PendingActivityState, PendingWorkflowTaskState, TaskQueueKind, TaskQueueType,
};
use orchestrion_proto::temporal::api::history::v1::History;
use orchestrion_proto::temporal::api::taskqueue::v1::{
    PollerInfo, TaskQueue, TaskQueueStats, TaskQueueStatus,
};
use orchestrion_proto::temporal::api::workflow::v1::{
    PendingActivityInfo, PendingChildExecutionInfo, PendingWorkflowTaskInfo,
    WorkflowExecutionConfig, WorkflowExecutionExtendedInfo, WorkflowExecutionInfo,
    WorkflowExecutionPauseInfo,
    pending_activity_info::{
        PauseInfo,
        pause_info::{Manual, PausedBy},
    },
};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    DescribeTaskQueueRequest, DescribeTaskQueueResponse, DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::engine::polling::WorkflowTaskDispatch;
use crate::visibility::Derived;

impl Temporal {
    pub(super) async fn describe_execution(
        &self,
        request: Request<DescribeWorkflowExecutionRequest>,
    ) -> Result<Response<DescribeWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let mut target = edge::target(&namespace, request.get_ref().execution.as_ref())?;
        let run_id = self.run_of(&target)?;
        target.run_id = Some(run_id);
        let state = self.api.handle.state(target.clone()).await;
        let state = state.map_err(errors::of_call)?;
        let at_work = self.api.handle.task_at_work(target.clone()).await;
        let at_work = at_work.map_err(errors::of_call)?;
        let open = state.is_running();
        // What its starter said of it is in its first event only.
        let place = (&namespace, &target.workflow_id, run_id);
        let first = self.history_page(place, Some(1), 1, 1)?;
        let first = History::decode(&first.bytes[..]).unwrap_or_default();
        let said = first.events.into_iter().next();
        Ok(Response::new(DescribeWorkflowExecutionResponse {
            execution_config: Some(WorkflowExecutionConfig {
                user_metadata: said.and_then(|event| event.user_metadata),
                ..config(&state)
            }),
            pending_activities: if open {
                let pending = state.activities.values();
                pending
                    .map(|activity| pending_activity(activity, state.holds_back(activity)))
                    .collect()
            } else {
                Vec::new()
            },
            pending_children: if open {
                pending_children(&state)
            } else {
                Vec::new()
            },
            pending_workflow_task: pending_task(&state, at_work.as_ref()),
            workflow_extended_info: Some(WorkflowExecutionExtendedInfo {
                execution_expiration_time: (state.execution_deadline > 0)
                    .then(|| timestamp(state.execution_deadline)),
                run_expiration_time: (state.run_deadline > 0)
                    .then(|| timestamp(state.run_deadline)),
                cancel_requested: state.cancel_requested.is_some(),
                original_start_time: Some(timestamp(state.started_at)),
                pause_info: state
                    .paused
                    .as_ref()
                    .map(|pause| WorkflowExecutionPauseInfo {
                        identity: pause.identity.clone(),
                        paused_time: Some(timestamp(pause.at)),
                        reason: pause.reason.clone(),
                    }),
                ..Default::default()
            }),
            workflow_execution_info: Some(info(&state)),
            ..Default::default()
        }))
    }

    pub(super) async fn describe_queue(
        &self,
        request: Request<DescribeTaskQueueRequest>,
    ) -> Result<Response<DescribeTaskQueueResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let queue = edge::queue(r.task_queue.as_ref())?;
        let kind = match r.task_queue_type() {
            TaskQueueType::Activity => QueueKind::Activity,
            _ => QueueKind::Workflow,
        };
        let described = self.api.handle.describe_queue(namespace, kind, queue).await;
        let described = described.map_err(errors::of_call)?;
        let now = self.api.clock.now();
        let backlog = i64::try_from(described.backlog).unwrap_or(i64::MAX);
        let age = described
            .oldest
            .map_or(0, |at| now.0.saturating_sub(at.0).max(0));
        let pollers = described
            .pollers
            .into_iter()
            .map(|(identity, at)| PollerInfo {
                last_access_time: Some(timestamp(at.unwrap_or(now).0)),
                identity,
                ..Default::default()
            });
        #[allow(deprecated, reason = "older clients read it")]
        Ok(Response::new(DescribeTaskQueueResponse {
            pollers: pollers.collect(),
            stats: r.report_stats.then(|| TaskQueueStats {
                approximate_backlog_count: backlog,
                approximate_backlog_age: Some(duration(age)),
                ..Default::default()
            }),
            task_queue_status: r.include_task_queue_status.then(|| TaskQueueStatus {
                backlog_count_hint: backlog,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

fn config(state: &MutableState) -> WorkflowExecutionConfig {
    let begun = state.begun.get().unwrap_or_default();
    WorkflowExecutionConfig {
        task_queue: Some(TaskQueue {
            name: state.task_queue.clone(),
            kind: TaskQueueKind::Normal.into(),
            ..Default::default()
        }),
        workflow_execution_timeout: begun.workflow_execution_timeout,
        workflow_run_timeout: begun.workflow_run_timeout,
        default_workflow_task_timeout: Some(duration(state.task_timeout)),
        ..Default::default()
    }
}

fn info(state: &MutableState) -> WorkflowExecutionInfo {
    let execution = |workflow_id: &str, run_id: &str| WorkflowExecution {
        workflow_id: workflow_id.to_owned(),
        run_id: run_id.to_owned(),
    };
    let begun = state.begun.get().unwrap_or_default();
    let memo = state.memo.iter();
    let attributes = state.search_attributes.iter();
    let closed = state.closed_at > 0;
    WorkflowExecutionInfo {
        execution: Some(execution(&state.workflow_id, &state.run_id)),
        r#type: Some(WorkflowType {
            name: state.workflow_type.clone(),
        }),
        start_time: Some(timestamp(state.started_at)),
        execution_time: Some(timestamp(state.executable_at.max(state.started_at))),
        close_time: closed.then(|| timestamp(state.closed_at)),
        execution_duration: closed.then(|| duration(state.closed_at - state.started_at)),
        status: state.listed_status().into(),
        priority: state.priority.get(),
        history_length: state.next_event_id - 1,
        history_size_bytes: i64::try_from(state.history_bytes).unwrap_or(i64::MAX),
        state_transition_count: i64::try_from(state.records).unwrap_or(i64::MAX),
        parent_execution: begun.parent_workflow_execution.clone(),
        root_execution: Some(
            begun
                .root_workflow_execution
                .clone()
                .unwrap_or_else(|| execution(&state.workflow_id, &state.run_id)),
        ),
        first_run_id: state.first_run_id.clone(),
        task_queue: state.task_queue.clone(),
        memo: Some(Memo {
            fields: memo
                .filter_map(|(name, payload)| Some((name.clone(), payload.get()?)))
                .collect(),
        }),
        search_attributes: Some(SearchAttributes {
            indexed_fields: attributes
                .filter_map(|(name, payload)| Some((name.clone(), payload.get()?)))
                .chain(Derived::of(state).attributes())
                .collect(),
        }),
        ..Default::default()
    }
}

fn pending_activity(activity: &Activity, held_back: bool) -> PendingActivityInfo {
    let canceled = activity.cancel_requested_event_id != 0;
    let mut info = PendingActivityInfo {
        activity_id: activity.activity_id.clone(),
        activity_type: Some(ActivityType {
            name: activity.activity_type.clone(),
        }),
        heartbeat_details: activity.heartbeat_details.get(),
        attempt: activity.number(),
        priority: activity.priority.get(),
        maximum_attempts: activity.retry.attempts,
        scheduled_time: Some(timestamp(activity.attempt_scheduled_at)),
        expiration_time: (activity.schedule_to_close > 0).then(|| {
            timestamp(
                activity
                    .scheduled_at
                    .saturating_add(activity.schedule_to_close),
            )
        }),
        last_failure: activity.last_failure.get(),
        last_attempt_complete_time: (activity.attempt_ended_at > 0)
            .then(|| timestamp(activity.attempt_ended_at)),
        paused: activity.paused.is_some(),
        pause_info: activity.paused.as_ref().map(|pause| PauseInfo {
            pause_time: Some(timestamp(pause.at)),
            paused_by: Some(PausedBy::Manual(Manual {
                identity: pause.identity.clone(),
                reason: pause.reason.clone(),
            })),
        }),
        activity_options: Some(activity.options()),
        ..Default::default()
    };
    let state = match &activity.stage {
        Stage::Started {
            at,
            heartbeat_at,
            identity,
            ..
        } => {
            info.last_started_time = Some(timestamp(*at));
            info.last_heartbeat_time = (heartbeat_at > at).then(|| timestamp(*heartbeat_at));
            info.last_worker_identity.clone_from(identity);
            PendingActivityState::Started
        }
        Stage::Backoff { until } => {
            info.next_attempt_schedule_time = Some(timestamp(*until));
            // A first attempt waits as long as an operator said.
            info.current_retry_interval = (activity.number() > 1)
                .then(|| duration(activity.retry.wait(activity.number() - 1)));
            PendingActivityState::Scheduled
        }
        Stage::Queued | Stage::Settled => PendingActivityState::Scheduled,
    };
    let state = match (state, canceled, held_back) {
        (_, true, _) => PendingActivityState::CancelRequested,
        (PendingActivityState::Started, _, true) => PendingActivityState::PauseRequested,
        (_, _, true) => PendingActivityState::Paused,
        (state, _, _) => state,
    };
    info.state = state.into();
    info
}

fn pending_children(state: &MutableState) -> Vec<PendingChildExecutionInfo> {
    let children = state.children.iter();
    let open = children.filter(|(_, child)| !matches!(child.stage, ChildStage::Settled));
    open.map(|(initiated_id, child)| PendingChildExecutionInfo {
        workflow_id: child.workflow_id.clone(),
        run_id: child.run_id.clone(),
        workflow_type_name: child.workflow_type.clone(),
        initiated_id: *initiated_id,
        parent_close_policy: policy(child.policy).into(),
    })
    .collect()
}

fn policy(policy: ClosePolicy) -> ParentClosePolicy {
    match policy {
        ClosePolicy::Terminate => ParentClosePolicy::Terminate,
        ClosePolicy::Abandon => ParentClosePolicy::Abandon,
        ClosePolicy::RequestCancel => ParentClosePolicy::RequestCancel,
    }
}

fn pending_task(
    state: &MutableState,
    at_work: Option<&WorkflowTaskDispatch>,
) -> Option<PendingWorkflowTaskInfo> {
    let since = Timestamp(state.task_since);
    match &state.workflow_task {
        WorkflowTask::None => None,
        WorkflowTask::Scheduled { at, attempt, .. } => Some(PendingWorkflowTaskInfo {
            state: match at_work {
                Some(_) => PendingWorkflowTaskState::Started.into(),
                None => PendingWorkflowTaskState::Scheduled.into(),
            },
            scheduled_time: Some(timestamp(*at)),
            original_scheduled_time: Some(timestamp(since.0)),
            started_time: at_work.map(|task| timestamp(task.start.at.0)),
            attempt: *attempt,
        }),
        WorkflowTask::Started { at, attempt, .. } => Some(PendingWorkflowTaskInfo {
            state: PendingWorkflowTaskState::Started.into(),
            original_scheduled_time: Some(timestamp(since.0)),
            started_time: Some(timestamp(*at)),
            attempt: *attempt,
            ..Default::default()
        }),
    }
}
