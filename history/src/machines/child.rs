//! Child workflows: runs that this one starts, and learns the end of.
//!
//! ```text
//!  none --Initiated--> Initiated --Started--> Started --Completed | Failed | Canceled | TimedOut | Terminated--> none
//!                      Initiated --StartFailed--> none
//!  the parent closes:  Initiated --> none, but with policy ABANDON it is still started
//!                      Started --> ended by its policy, then note CloseFollowed --> none          (ABANDON: --> none)
//! ```
//!
//! The command only writes Initiated: `outward` says that a child is to be started, and the engine answers with Started or StartFailed. A
//! child's chain (continue-as-new, retries, cron) is one child; its parent hears of the last run's end.

use orchestrion_proto::temporal::api::command::v1::StartChildWorkflowExecutionCommandAttributes;
use orchestrion_proto::temporal::api::common::v1::{WorkflowExecution, WorkflowType};
use orchestrion_proto::temporal::api::enums::v1::{
    EventType, ParentClosePolicy, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ChildWorkflowExecutionCanceledEventAttributes, ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes, ChildWorkflowExecutionStartedEventAttributes,
    ChildWorkflowExecutionTerminatedEventAttributes, ChildWorkflowExecutionTimedOutEventAttributes,
    HistoryEvent, StartChildWorkflowExecutionFailedEventAttributes,
    StartChildWorkflowExecutionInitiatedEventAttributes,
};
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::v1::{CloseFollowed as CloseFollowedNote, note};

use super::workflow_task::BadCommand;
use super::{Context, retry, search_attributes_fit};
use crate::cron::Schedule;
use crate::draft::{Draft, initiated_event_id_of_close};
use crate::request::{
    ChildClosed, ChildOutcome, ChildStartFailed, ChildStarted, CloseFollowed, Rejection, Reply,
    Transition,
};
use crate::state::{CarriedEvent, Child, ChildStage, ClosePolicy, MutableState};
use crate::wire;

pub(super) fn initiate(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &StartChildWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let bad = |why: String| BadCommand {
        cause: WorkflowTaskFailedCause::BadStartChildExecutionAttributes,
        message: format!("child workflow {:?}: {why}", command.workflow_id),
    };
    let workflow_type = command
        .workflow_type
        .as_ref()
        .map_or("", |t| t.name.as_str());
    let queue = command.task_queue.as_ref().map_or("", |q| q.name.as_str());
    let id_bytes_max = context.limits.id_bytes_max;
    for (what, value) in [
        ("id", command.workflow_id.as_str()),
        ("type", workflow_type),
    ] {
        if value.is_empty() || value.len() > id_bytes_max {
            return Err(bad(format!(
                "its {what} is empty or too long: give 1 to {id_bytes_max} bytes"
            )));
        }
    }
    if queue.len() > id_bytes_max {
        return Err(bad(format!(
            "its task queue has more than {id_bytes_max} bytes"
        )));
    }
    let timeouts = [
        command.workflow_execution_timeout.as_ref(),
        command.workflow_run_timeout.as_ref(),
        command.workflow_task_timeout.as_ref(),
    ];
    if timeouts.into_iter().any(|timeout| wire::nanos(timeout) < 0) {
        return Err(bad("a timeout of it is negative".to_owned()));
    }
    if command.retry_policy.is_some() {
        retry::normalise(command.retry_policy.as_ref()).map_err(bad)?;
    }
    if !command.cron_schedule.is_empty() {
        Schedule::parse(&command.cron_schedule).map_err(bad)?;
    }
    search_attributes_fit(context, command.search_attributes.as_ref())?;
    let state = draft.state;
    if state.children.len() + draft.initiated.children >= context.limits.pending_children_max {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::PendingChildWorkflowsLimitExceeded,
            message: format!(
                "{} child workflows are pending, no more are allowed",
                context.limits.pending_children_max
            ),
        });
    }
    draft.initiated.children += 1;
    #[expect(deprecated, reason = "SDKs still send it")]
    let namespace = own_or(context, &command.namespace);
    let task_queue = command
        .task_queue
        .clone()
        .filter(|queue| !queue.name.is_empty())
        .unwrap_or_else(|| TaskQueue {
            name: state.task_queue.clone(),
            ..Default::default()
        });
    let policy = match command.parent_close_policy() {
        ParentClosePolicy::Unspecified => ParentClosePolicy::Terminate,
        given => given,
    };
    draft.event(
        EventType::StartChildWorkflowExecutionInitiated,
        Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(
            StartChildWorkflowExecutionInitiatedEventAttributes {
                namespace: namespace.clone(),
                namespace_id: namespace,
                workflow_id: command.workflow_id.clone(),
                workflow_type: command.workflow_type.clone(),
                task_queue: Some(task_queue),
                input: command.input.clone(),
                workflow_execution_timeout: command.workflow_execution_timeout,
                workflow_run_timeout: command.workflow_run_timeout,
                workflow_task_timeout: command.workflow_task_timeout,
                parent_close_policy: policy.into(),
                workflow_task_completed_event_id: completed_event_id,
                workflow_id_reuse_policy: command.workflow_id_reuse_policy,
                retry_policy: command.retry_policy.clone(),
                cron_schedule: command.cron_schedule.clone(),
                header: command.header.clone(),
                memo: command.memo.clone(),
                search_attributes: command.search_attributes.clone(),
                priority: command.priority.clone(),
                versioning_override: command.versioning_override.clone(),
                ..Default::default()
            },
        ),
    );
    Ok(())
}

/// The namespace a command names, or the run's own.
pub(super) fn own_or(context: &Context<'_>, named: &str) -> String {
    if named.is_empty() {
        context.namespace.to_owned()
    } else {
        named.to_owned()
    }
}

fn pending(state: &MutableState, initiated_event_id: i64) -> Result<&Child, Rejection> {
    state
        .children
        .get(&initiated_event_id)
        .filter(|child| child.stage != ChildStage::Settled)
        .ok_or_else(|| Rejection::NotFound {
            what: "child workflow",
            why: format!("the one of event {initiated_event_id} is not pending"),
        })
}

pub(super) fn started(
    state: &MutableState,
    context: &Context<'_>,
    request: &ChildStarted,
) -> Result<Transition, Rejection> {
    let id = request.initiated_event_id;
    let child = pending(state, id)?;
    if child.stage == ChildStage::Started {
        return Ok(Transition::nothing(Reply::Repeated));
    }
    let mut draft = Draft::new(state, context);
    let header = initiated_attributes(&child.initiated).and_then(|initiated| initiated.header);
    let started = Attributes::ChildWorkflowExecutionStartedEventAttributes(
        ChildWorkflowExecutionStartedEventAttributes {
            namespace: child.namespace.clone(),
            namespace_id: child.namespace.clone(),
            initiated_event_id: id,
            workflow_execution: execution(&child.workflow_id, &request.run_id),
            workflow_type: workflow_type(child),
            header,
        },
    );
    draft.happened_outside(
        context,
        vec![(draft.now, EventType::ChildWorkflowExecutionStarted, started)],
    );
    Ok(draft.finish(Reply::Done))
}

pub(super) fn start_failed(
    state: &MutableState,
    context: &Context<'_>,
    request: &ChildStartFailed,
) -> Result<Transition, Rejection> {
    let id = request.initiated_event_id;
    let child = pending(state, id)?;
    if child.stage != ChildStage::Initiated {
        return Err(Rejection::Invalid(format!(
            "the child workflow of event {id} was started"
        )));
    }
    let completed = initiated_attributes(&child.initiated)
        .map_or(0, |initiated| initiated.workflow_task_completed_event_id);
    let mut draft = Draft::new(state, context);
    let failed = Attributes::StartChildWorkflowExecutionFailedEventAttributes(
        StartChildWorkflowExecutionFailedEventAttributes {
            namespace: child.namespace.clone(),
            namespace_id: child.namespace.clone(),
            workflow_id: child.workflow_id.clone(),
            workflow_type: workflow_type(child),
            cause: request.cause.into(),
            initiated_event_id: id,
            workflow_task_completed_event_id: completed,
            ..Default::default()
        },
    );
    draft.happened_outside(
        context,
        vec![(
            draft.now,
            EventType::StartChildWorkflowExecutionFailed,
            failed,
        )],
    );
    Ok(draft.finish(Reply::Done))
}

pub(super) fn closed(
    state: &MutableState,
    context: &Context<'_>,
    request: &ChildClosed,
) -> Result<Transition, Rejection> {
    let id = request.initiated_event_id;
    let child = pending(state, id)?;
    if child.stage == ChildStage::Initiated {
        return Err(Rejection::Invalid(format!(
            "the child workflow of event {id} is not known to have started"
        )));
    }
    let mut draft = Draft::new(state, context);
    let (event_type, close) = close_event(child, request);
    draft.happened_outside(context, vec![(draft.now, event_type, close)]);
    Ok(draft.finish(Reply::Done))
}

fn close_event(child: &Child, request: &ChildClosed) -> (EventType, Attributes) {
    let namespace = child.namespace.clone();
    let namespace_id = child.namespace.clone();
    let workflow_execution = execution(&request.execution.workflow_id, &request.execution.run_id);
    let workflow_type = workflow_type(child);
    let initiated_event_id = request.initiated_event_id;
    let started_event_id = child.started_event_id;
    match &request.outcome {
        ChildOutcome::Completed(result) => (
            EventType::ChildWorkflowExecutionCompleted,
            Attributes::ChildWorkflowExecutionCompletedEventAttributes(
                ChildWorkflowExecutionCompletedEventAttributes {
                    result: result.clone(),
                    namespace,
                    namespace_id,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    started_event_id,
                },
            ),
        ),
        ChildOutcome::Failed(failure, retry_state) => (
            EventType::ChildWorkflowExecutionFailed,
            Attributes::ChildWorkflowExecutionFailedEventAttributes(
                ChildWorkflowExecutionFailedEventAttributes {
                    failure: failure.as_deref().cloned(),
                    namespace,
                    namespace_id,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    started_event_id,
                    retry_state: (*retry_state).into(),
                },
            ),
        ),
        ChildOutcome::Canceled(details) => (
            EventType::ChildWorkflowExecutionCanceled,
            Attributes::ChildWorkflowExecutionCanceledEventAttributes(
                ChildWorkflowExecutionCanceledEventAttributes {
                    details: details.clone(),
                    namespace,
                    namespace_id,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    started_event_id,
                },
            ),
        ),
        ChildOutcome::Terminated => (
            EventType::ChildWorkflowExecutionTerminated,
            Attributes::ChildWorkflowExecutionTerminatedEventAttributes(
                ChildWorkflowExecutionTerminatedEventAttributes {
                    namespace,
                    namespace_id,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    started_event_id,
                },
            ),
        ),
        ChildOutcome::TimedOut(retry_state) => (
            EventType::ChildWorkflowExecutionTimedOut,
            Attributes::ChildWorkflowExecutionTimedOutEventAttributes(
                ChildWorkflowExecutionTimedOutEventAttributes {
                    namespace,
                    namespace_id,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    started_event_id,
                    retry_state: (*retry_state).into(),
                },
            ),
        ),
    }
}

/// What a close asked of another run is done.
pub(super) fn close_followed(
    state: &MutableState,
    context: &Context<'_>,
    request: CloseFollowed,
) -> Transition {
    let id = request.initiated_event_id;
    let open = if id == 0 {
        !state.untold_close.is_empty()
    } else {
        state.children.contains_key(&id)
    };
    if !open {
        return Transition::nothing(Reply::Repeated);
    }
    let mut draft = Draft::new(state, context);
    draft.note(note::Kind::CloseFollowed(CloseFollowedNote {
        initiated_event_id: id,
    }));
    draft.finish(Reply::Done)
}

fn execution(workflow_id: &str, run_id: &str) -> Option<WorkflowExecution> {
    Some(WorkflowExecution {
        workflow_id: workflow_id.to_owned(),
        run_id: run_id.to_owned(),
    })
}

fn workflow_type(child: &Child) -> Option<WorkflowType> {
    Some(WorkflowType {
        name: child.workflow_type.clone(),
    })
}

/// What a child is to be started with.
pub(crate) fn initiated_attributes(
    carried: &CarriedEvent,
) -> Option<StartChildWorkflowExecutionInitiatedEventAttributes> {
    match carried.get()?.attributes? {
        Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(initiated) => {
            Some(initiated)
        }
        _ => None,
    }
}

pub(super) fn apply(state: &mut MutableState, at: i64, event: &HistoryEvent) -> Result<(), String> {
    match &event.attributes {
        Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(initiated)) => {
            let child = Child {
                namespace: initiated.namespace.clone(),
                workflow_id: initiated.workflow_id.clone(),
                run_id: String::new(),
                workflow_type: initiated
                    .workflow_type
                    .as_ref()
                    .map(|t| t.name.clone())
                    .unwrap_or_default(),
                policy: match initiated.parent_close_policy() {
                    ParentClosePolicy::Abandon => ClosePolicy::Abandon,
                    ParentClosePolicy::RequestCancel => ClosePolicy::RequestCancel,
                    ParentClosePolicy::Terminate | ParentClosePolicy::Unspecified => {
                        ClosePolicy::Terminate
                    }
                },
                initiated_at: at,
                initiated: CarriedEvent::new(Some(event)),
                started_event_id: 0,
                stage: ChildStage::Initiated,
            };
            state.children.insert(event.event_id, child);
            Ok(())
        }
        Some(Attributes::ChildWorkflowExecutionStartedEventAttributes(started)) => {
            let child = open(state, started.initiated_event_id)?;
            if child.started_event_id != 0 {
                return Err("the child was started before".to_owned());
            }
            child.started_event_id = event.event_id;
            begin(child, started);
            Ok(())
        }
        Some(Attributes::StartChildWorkflowExecutionFailedEventAttributes(failed)) => {
            let child = open(state, failed.initiated_event_id)?;
            if child.started_event_id != 0 {
                return Err("the child was started".to_owned());
            }
            state.children.remove(&failed.initiated_event_id);
            Ok(())
        }
        Some(other) => match initiated_event_id_of_close(other) {
            Some(id) => {
                if open(state, id)?.started_event_id == 0 {
                    return Err("the child was not started".to_owned());
                }
                state.children.remove(&id);
                Ok(())
            }
            None => Err("it is no record of a child".to_owned()),
        },
        None => Err("it has no attributes".to_owned()),
    }
}

fn open(state: &mut MutableState, id: i64) -> Result<&mut Child, String> {
    state
        .children
        .get_mut(&id)
        .ok_or_else(|| format!("the child of event {id} is not pending"))
}

fn begin(child: &mut Child, started: &ChildWorkflowExecutionStartedEventAttributes) {
    if child.stage == ChildStage::Initiated {
        child.stage = ChildStage::Started;
    }
    child.initiated = CarriedEvent::default();
    child.run_id = started
        .workflow_execution
        .as_ref()
        .map(|execution| execution.run_id.clone())
        .unwrap_or_default();
}

/// What waits in the buffer is known to everybody but the workflow.
pub(super) fn apply_buffered(state: &mut MutableState, attributes: &Attributes) {
    match attributes {
        Attributes::ChildWorkflowExecutionStartedEventAttributes(started) => {
            if let Some(child) = state.children.get_mut(&started.initiated_event_id) {
                begin(child, started);
            }
        }
        Attributes::StartChildWorkflowExecutionFailedEventAttributes(failed) => {
            settle(state, failed.initiated_event_id);
        }
        other => {
            if let Some(id) = initiated_event_id_of_close(other) {
                settle(state, id);
            }
        }
    }
}

fn settle(state: &mut MutableState, id: i64) {
    if let Some(child) = state.children.get_mut(&id) {
        child.stage = ChildStage::Settled;
    }
}

/// The parent closes: children stay as long as something is asked of them.
pub(super) fn apply_parent_closed(state: &mut MutableState) {
    let kept_from = state.reset_at_event_id;
    state.children.retain(|id, child| match child.stage {
        // It is the child of the run that a reset made of this one.
        _ if *id < kept_from => false,
        ChildStage::Initiated => child.policy == ClosePolicy::Abandon,
        ChildStage::Started => child.policy != ClosePolicy::Abandon,
        ChildStage::Settled => false,
    });
}

pub(super) fn apply_followed(
    state: &mut MutableState,
    followed: &CloseFollowedNote,
) -> Result<(), String> {
    if !state.status.is_closed() {
        return Err("only a close is followed".to_owned());
    }
    let id = followed.initiated_event_id;
    if id == 0 && !state.untold_close.is_empty() {
        state.untold_close = CarriedEvent::default();
        return Ok(());
    }
    match state.children.remove(&id) {
        Some(_) => Ok(()),
        None => Err(format!("nothing is asked of event {id} any more")),
    }
}
