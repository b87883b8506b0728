//! The run itself.
//!
//! ```text
//!  Void --Started--> Running --Completed | Failed | Canceled--> closed      commands of a workflow task
//!                    Running --Terminated--> closed                         a request
//!                    Running --TimedOut--> closed                           its deadline
//! ```
//!
//! Closing drops everything pending: late answers find nothing.

use orchestrion_proto::temporal::api::common::v1::WorkflowType;
use orchestrion_proto::temporal::api::enums::v1::{EventType, RetryState};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    WorkflowExecutionStartedEventAttributes, WorkflowExecutionTerminatedEventAttributes,
    WorkflowExecutionTimedOutEventAttributes,
};
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::v1::{RunCreated, note};

use super::Context;
use crate::draft::Draft;
use crate::ids::Timestamp;
use crate::request::{Rejection, Reply, StartWorkflow, TerminateWorkflow, Transition};
use crate::state::{MutableState, Status, WorkflowTask};
use crate::{state, wire};

pub(super) fn start(
    state: &MutableState,
    context: &Context<'_>,
    start: &StartWorkflow,
) -> Result<Transition, Rejection> {
    if state.status != Status::Void {
        if !start.request_id.is_empty() && start.request_id == state.create_request_id {
            return Ok(Transition {
                records: Vec::new(),
                reply: Reply::Repeated,
            });
        }
        return Err(Rejection::AlreadyStarted {
            workflow_id: state.workflow_id.clone(),
            run_id: state.run_id.clone(),
            request_id: state.create_request_id.clone(),
        });
    }
    check(context, start)?;

    let task_timeout = match start.task_timeout {
        0 => context.limits.task_timeout_default,
        given => given.min(context.limits.task_timeout_max),
    };
    let mut draft = Draft::new(state, context);
    draft.event(
        EventType::WorkflowExecutionStarted,
        Attributes::WorkflowExecutionStartedEventAttributes(
            WorkflowExecutionStartedEventAttributes {
                workflow_type: Some(WorkflowType {
                    name: start.workflow_type.clone(),
                }),
                task_queue: Some(TaskQueue {
                    name: start.task_queue.clone(),
                    ..Default::default()
                }),
                input: start.input.clone(),
                workflow_execution_timeout: Some(wire::duration(start.execution_timeout)),
                workflow_run_timeout: Some(wire::duration(run_timeout(start))),
                workflow_task_timeout: Some(wire::duration(task_timeout)),
                original_execution_run_id: start.run_id.clone(),
                first_execution_run_id: start.run_id.clone(),
                identity: start.identity.clone(),
                retry_policy: start.retry_policy.clone(),
                attempt: 1,
                first_workflow_task_backoff: Some(wire::duration(start.first_task_backoff)),
                memo: start.memo.clone(),
                search_attributes: start.search_attributes.clone(),
                header: start.header.clone(),
                workflow_id: start.workflow_id.clone(),
                ..Default::default()
            },
        ),
    );
    draft.note(note::Kind::RunCreated(RunCreated {
        request_id: start.request_id.clone(),
    }));
    if start.first_task_backoff == 0 {
        draft.schedule_workflow_task(&start.task_queue, task_timeout);
    }
    Ok(draft.finish(Reply::Done))
}

fn check(context: &Context<'_>, start: &StartWorkflow) -> Result<(), Rejection> {
    let named = [
        ("workflow id", &start.workflow_id),
        ("workflow type", &start.workflow_type),
        ("task queue", &start.task_queue),
        ("run id", &start.run_id),
    ];
    for (what, value) in named {
        if value.is_empty() {
            return Err(Rejection::Invalid(format!(
                "{what} is empty: give it a value"
            )));
        }
    }
    for (what, value) in named.into_iter().chain([("request id", &start.request_id)]) {
        if value.len() > context.limits.id_bytes_max {
            return Err(Rejection::Limit {
                what,
                max: context.limits.id_bytes_max as u64,
                unit: "bytes",
            });
        }
    }
    let durations = [
        ("execution timeout", start.execution_timeout),
        ("run timeout", start.run_timeout),
        ("task timeout", start.task_timeout),
        ("first task backoff", start.first_task_backoff),
    ];
    match durations.iter().find(|(_, nanos)| *nanos < 0) {
        Some((what, _)) => Err(Rejection::Invalid(format!(
            "{what} is negative: give zero or more"
        ))),
        None => Ok(()),
    }
}

/// The run's own timeout, capped by the execution's.
fn run_timeout(start: &StartWorkflow) -> i64 {
    match (start.run_timeout, start.execution_timeout) {
        (0, execution) => execution,
        (run, 0) => run,
        (run, execution) => run.min(execution),
    }
}

pub(super) fn terminate(
    state: &MutableState,
    context: &Context<'_>,
    request: &TerminateWorkflow,
) -> Transition {
    let mut draft = Draft::new(state, context);
    draft.event(
        EventType::WorkflowExecutionTerminated,
        Attributes::WorkflowExecutionTerminatedEventAttributes(
            WorkflowExecutionTerminatedEventAttributes {
                reason: request.reason.clone(),
                details: request.details.clone(),
                identity: request.identity.clone(),
            },
        ),
    );
    draft.finish(Reply::Done)
}

pub(super) fn expired(state: &MutableState, now: Timestamp) -> bool {
    state.run_deadline > 0 && state.run_deadline <= now.0
}

pub(super) fn time_out(draft: &mut Draft<'_>) {
    draft.event(
        EventType::WorkflowExecutionTimedOut,
        Attributes::WorkflowExecutionTimedOutEventAttributes(
            WorkflowExecutionTimedOutEventAttributes {
                retry_state: RetryState::Timeout.into(),
                ..Default::default()
            },
        ),
    );
}

pub(super) fn apply(
    state: &mut MutableState,
    at: i64,
    attributes: &Attributes,
) -> Result<(), String> {
    match (state.status, attributes) {
        (Status::Void, Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
            begin(state, at, started);
            Ok(())
        }
        (Status::Running, Attributes::WorkflowExecutionCompletedEventAttributes(_)) => {
            close(state, at, Status::Completed)
        }
        (Status::Running, Attributes::WorkflowExecutionFailedEventAttributes(_)) => {
            close(state, at, Status::Failed)
        }
        (Status::Running, Attributes::WorkflowExecutionCanceledEventAttributes(_)) => {
            close(state, at, Status::Canceled)
        }
        (Status::Running, Attributes::WorkflowExecutionTerminatedEventAttributes(_)) => {
            close(state, at, Status::Terminated)
        }
        (Status::Running, Attributes::WorkflowExecutionTimedOutEventAttributes(_)) => {
            close(state, at, Status::TimedOut)
        }
        (status, _) => Err(format!("the run is {status:?}")),
    }
}

pub(super) fn apply_created(state: &mut MutableState, created: &RunCreated) -> Result<(), String> {
    if state.records != 1 {
        return Err("it belongs right behind WorkflowExecutionStarted".to_owned());
    }
    state.create_request_id.clone_from(&created.request_id);
    Ok(())
}

fn begin(state: &mut MutableState, at: i64, started: &WorkflowExecutionStartedEventAttributes) {
    state.status = Status::Running;
    state.workflow_id.clone_from(&started.workflow_id);
    state.run_id.clone_from(&started.original_execution_run_id);
    state.workflow_type = started
        .workflow_type
        .as_ref()
        .map(|t| t.name.clone())
        .unwrap_or_default();
    state.task_queue = started
        .task_queue
        .as_ref()
        .map(|q| q.name.clone())
        .unwrap_or_default();
    state.started_at = at;
    state.task_timeout = wire::nanos(started.workflow_task_timeout.as_ref());
    state.run_deadline =
        state::after(at, wire::nanos(started.workflow_run_timeout.as_ref())).unwrap_or_default();
    let backoff = wire::nanos(started.first_workflow_task_backoff.as_ref());
    state.first_task_at = state::after(at, backoff).unwrap_or_default();
    if let Some(memo) = &started.memo {
        super::property::upsert(&mut state.memo, &memo.fields);
    }
    if let Some(attributes) = &started.search_attributes {
        super::property::upsert(&mut state.search_attributes, &attributes.indexed_fields);
    }
}

fn close(state: &mut MutableState, at: i64, status: Status) -> Result<(), String> {
    state.status = status;
    state.closed_at = at;
    state.workflow_task = WorkflowTask::None;
    state.first_task_at = 0;
    state.activities.clear();
    state.activity_ids.clear();
    state.timers.clear();
    state.buffered.clear();
    Ok(())
}
