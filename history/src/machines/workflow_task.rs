//! The workflow task: one turn of workflow code. At most one is pending in a run.
//!
//! ```text
//!  None --Scheduled--> Scheduled --Started--> Started --Completed--> None       then its commands' events, then the flush
//!                                             Started --Failed | TimedOut--> None    then the flush, then Scheduled again
//! ```
//!
//! The start is volatile: a worker's token carries it, and whichever record follows writes it (Completed, Failed, TimedOut, or the
//! first event to be buffered). While a task is started, events from outside are buffered; the flush behind its end gives
//! them their ids.

use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::enums::v1::{
    EventType, RetryState, TimeoutType, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    WorkflowExecutionCanceledEventAttributes, WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionFailedEventAttributes, WorkflowTaskCompletedEventAttributes,
    WorkflowTaskFailedEventAttributes, WorkflowTaskTimedOutEventAttributes,
};
use orchestrion_proto::v1::{EventBuffered, WorkflowTaskAttemptFailed};

use super::{Context, activity, property, timer};
use crate::draft::Draft;
use crate::request::{
    CompleteWorkflowTask, FailWorkflowTask, Rejection, Reply, Transition, WorkflowTaskStart,
};
use crate::state::{CarriedEvent, MutableState, WorkflowTask};

/// A command that cannot be carried out: the whole completion becomes a failed workflow task.
pub(super) struct BadCommand {
    pub(super) cause: WorkflowTaskFailedCause,
    pub(super) message: String,
}

pub(super) fn complete(
    state: &MutableState,
    context: &Context<'_>,
    complete: &CompleteWorkflowTask,
) -> Result<Transition, Rejection> {
    let started_event_id = running(state, &complete.start)?;
    match draft_completion(state, context, complete, started_event_id) {
        Ok(transition) => Ok(transition),
        Err(bad) => {
            let failure = Failure {
                message: bad.message,
                source: "Server".to_owned(),
                ..Default::default()
            };
            Ok(draft_failure(
                state,
                context,
                &complete.start,
                started_event_id,
                bad.cause,
                Some(failure),
                &complete.identity,
            ))
        }
    }
}

/// The id of the committed start, or `None` while it is volatile. A token of another task is not found.
fn running(state: &MutableState, start: &WorkflowTaskStart) -> Result<Option<i64>, Rejection> {
    let stale = || Rejection::NotFound {
        what: "workflow task",
        why: format!(
            "the run waits for no answer to event {}",
            start.scheduled_event_id
        ),
    };
    match &state.workflow_task {
        WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            ..
        } if *scheduled_event_id == start.scheduled_event_id && *attempt == start.attempt => {
            Ok(None)
        }
        WorkflowTask::Started {
            scheduled_event_id,
            started_event_id,
            attempt,
            at,
            request_id,
        } if *scheduled_event_id == start.scheduled_event_id
            && *attempt == start.attempt
            && *at == start.at.0
            && *request_id == start.request_id =>
        {
            Ok(Some(*started_event_id))
        }
        _ => Err(stale()),
    }
}

fn draft_completion(
    state: &MutableState,
    context: &Context<'_>,
    complete: &CompleteWorkflowTask,
    started_event_id: Option<i64>,
) -> Result<Transition, BadCommand> {
    let mut draft = Draft::new(state, context);
    let started_event_id =
        started_event_id.unwrap_or_else(|| draft.start_workflow_task(&complete.start));
    let completed_event_id = draft.event(
        EventType::WorkflowTaskCompleted,
        Attributes::WorkflowTaskCompletedEventAttributes(WorkflowTaskCompletedEventAttributes {
            scheduled_event_id: complete.start.scheduled_event_id,
            started_event_id,
            identity: complete.identity.clone(),
            sdk_metadata: complete.sdk_metadata.clone(),
            ..Default::default()
        }),
    );
    draft.workflow_task_over();
    for command in &complete.commands {
        if draft.is_closed() {
            break; // Only the first closing command counts, and nothing may follow it.
        }
        carry_out(&mut draft, context, command, completed_event_id)?;
    }
    if !draft.is_closed() {
        let flushed = draft.flush_buffered();
        let canceled = !draft.closed_activities.is_empty();
        if flushed || canceled || complete.force_new_task {
            draft.ensure_workflow_task();
        }
    }
    Ok(draft.finish(Reply::Done))
}

fn carry_out(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &Command,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let Some(attributes) = &command.attributes else {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::Unspecified,
            message: format!("command {} has no attributes", command.command_type),
        });
    };
    match attributes {
        C::ScheduleActivityTaskCommandAttributes(c) => activity::schedule(
            draft,
            context,
            c,
            command.user_metadata.as_ref(),
            completed_event_id,
        ),
        C::RequestCancelActivityTaskCommandAttributes(c) => {
            activity::request_cancel(draft, c.scheduled_event_id, completed_event_id)
        }
        C::StartTimerCommandAttributes(c) => timer::start(draft, context, c, completed_event_id),
        C::CancelTimerCommandAttributes(c) => timer::cancel(draft, c, completed_event_id),
        C::ModifyWorkflowPropertiesCommandAttributes(c) => {
            property::modify(draft, c, completed_event_id);
            Ok(())
        }
        C::UpsertWorkflowSearchAttributesCommandAttributes(c) => {
            property::upsert_search_attributes(draft, c, completed_event_id);
            Ok(())
        }
        C::RecordMarkerCommandAttributes(c) => {
            property::record_marker(draft, c, completed_event_id);
            Ok(())
        }
        C::CompleteWorkflowExecutionCommandAttributes(c) => {
            close(draft, EventType::WorkflowExecutionCompleted, || {
                Attributes::WorkflowExecutionCompletedEventAttributes(
                    WorkflowExecutionCompletedEventAttributes {
                        result: c.result.clone(),
                        workflow_task_completed_event_id: completed_event_id,
                        ..Default::default()
                    },
                )
            })
        }
        C::FailWorkflowExecutionCommandAttributes(c) => {
            close(draft, EventType::WorkflowExecutionFailed, || {
                Attributes::WorkflowExecutionFailedEventAttributes(
                    WorkflowExecutionFailedEventAttributes {
                        failure: c.failure.clone(),
                        retry_state: RetryState::RetryPolicyNotSet.into(),
                        workflow_task_completed_event_id: completed_event_id,
                        ..Default::default()
                    },
                )
            })
        }
        C::CancelWorkflowExecutionCommandAttributes(c) => {
            close(draft, EventType::WorkflowExecutionCanceled, || {
                Attributes::WorkflowExecutionCanceledEventAttributes(
                    WorkflowExecutionCanceledEventAttributes {
                        workflow_task_completed_event_id: completed_event_id,
                        details: c.details.clone(),
                    },
                )
            })
        }
        _ => Err(BadCommand {
            cause: WorkflowTaskFailedCause::Unspecified,
            message: format!(
                "command {} is not supported by this version",
                command.command_type
            ),
        }),
    }
}

/// A closing command while something is buffered would hide it from the workflow: the task fails, and the worker tries again having seen it.
fn close(
    draft: &mut Draft<'_>,
    event_type: EventType,
    attributes: impl FnOnce() -> Attributes,
) -> Result<(), BadCommand> {
    if draft.has_buffered() {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::UnhandledCommand,
            message: "events arrived that the workflow has not seen".to_owned(),
        });
    }
    draft.event(event_type, attributes());
    Ok(())
}

pub(super) fn fail(
    state: &MutableState,
    context: &Context<'_>,
    fail: &FailWorkflowTask,
) -> Result<Transition, Rejection> {
    let started = running(state, &fail.start)?;
    Ok(draft_failure(
        state,
        context,
        &fail.start,
        started,
        fail.cause,
        fail.failure.clone(),
        &fail.identity,
    ))
}

fn draft_failure(
    state: &MutableState,
    context: &Context<'_>,
    start: &WorkflowTaskStart,
    started_event_id: Option<i64>,
    cause: WorkflowTaskFailedCause,
    failure: Option<Failure>,
    identity: &str,
) -> Transition {
    let mut draft = Draft::new(state, context);
    let started_event_id = started_event_id.unwrap_or_else(|| draft.start_workflow_task(start));
    draft.event(
        EventType::WorkflowTaskFailed,
        Attributes::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
            scheduled_event_id: start.scheduled_event_id,
            started_event_id,
            cause: cause.into(),
            failure,
            identity: identity.to_owned(),
            ..Default::default()
        }),
    );
    again(draft)
}

fn again(mut draft: Draft<'_>) -> Transition {
    draft.workflow_task_over();
    draft.flush_buffered();
    draft.ensure_workflow_task();
    draft.finish(Reply::Done)
}

/// The first workflow task of a run whose start was delayed.
pub(super) fn fire_first(draft: &mut Draft<'_>) {
    if draft.state.first_task_at > 0 && draft.state.first_task_at <= draft.now {
        draft.ensure_workflow_task();
    }
}

/// A committed start whose worker never answered.
pub(super) fn time_out_due(draft: &mut Draft<'_>, _context: &Context<'_>) {
    let WorkflowTask::Started {
        scheduled_event_id,
        started_event_id,
        at,
        ..
    } = &draft.state.workflow_task
    else {
        return;
    };
    if at.saturating_add(draft.state.task_timeout) > draft.now {
        return;
    }
    draft.event(
        EventType::WorkflowTaskTimedOut,
        Attributes::WorkflowTaskTimedOutEventAttributes(WorkflowTaskTimedOutEventAttributes {
            scheduled_event_id: *scheduled_event_id,
            started_event_id: *started_event_id,
            timeout_type: TimeoutType::StartToClose.into(),
        }),
    );
    draft.workflow_task_over();
    draft.flush_buffered();
    draft.ensure_workflow_task();
}

pub(super) fn apply(
    state: &mut MutableState,
    event_id: i64,
    at: i64,
    attributes: &Attributes,
) -> Result<(), String> {
    state.workflow_task = match (&state.workflow_task, attributes) {
        (WorkflowTask::None, Attributes::WorkflowTaskScheduledEventAttributes(scheduled)) => {
            state.first_task_at = 0;
            WorkflowTask::Scheduled {
                scheduled_event_id: event_id,
                attempt: scheduled.attempt.max(1),
                at,
            }
        }
        (
            WorkflowTask::Scheduled {
                scheduled_event_id,
                attempt,
                ..
            },
            Attributes::WorkflowTaskStartedEventAttributes(started),
        ) if *scheduled_event_id == started.scheduled_event_id => WorkflowTask::Started {
            scheduled_event_id: *scheduled_event_id,
            started_event_id: event_id,
            attempt: *attempt,
            at,
            request_id: started.request_id.clone(),
        },
        (
            WorkflowTask::Started {
                started_event_id, ..
            },
            Attributes::WorkflowTaskCompletedEventAttributes(completed),
        ) if *started_event_id == completed.started_event_id => {
            state.previous_started_event_id = completed.started_event_id;
            over(state);
            WorkflowTask::None
        }
        (
            WorkflowTask::Started {
                started_event_id, ..
            },
            Attributes::WorkflowTaskFailedEventAttributes(failed),
        ) if *started_event_id == failed.started_event_id => {
            over(state);
            WorkflowTask::None
        }
        (
            WorkflowTask::Started {
                started_event_id, ..
            },
            Attributes::WorkflowTaskTimedOutEventAttributes(timed_out),
        ) if *started_event_id == timed_out.started_event_id => {
            over(state);
            WorkflowTask::None
        }
        (task, _) => return Err(format!("the workflow task is {task:?}")),
    };
    Ok(())
}

/// What was buffered is flushed by the records that follow in the same entry.
fn over(state: &mut MutableState) {
    state.buffered.clear();
}

pub(super) fn apply_buffered(
    state: &mut MutableState,
    buffered: &EventBuffered,
) -> Result<(), String> {
    match (&state.workflow_task, &buffered.event) {
        (WorkflowTask::Started { .. }, Some(event)) => {
            if let Some(Attributes::WorkflowExecutionSignaledEventAttributes(signaled)) =
                &event.attributes
            {
                // Deduplicated from arrival on, not from the flush.
                if !signaled.request_id.is_empty() {
                    state.signal_request_ids.insert(signaled.request_id.clone());
                }
            }
            if let Some(attributes) = &event.attributes {
                activity::apply_buffered(state, attributes);
                timer::apply_buffered(state, attributes);
            }
            state.buffered.push_back(CarriedEvent::new(Some(event)));
            Ok(())
        }
        (_, None) => Err("a buffered event is missing".to_owned()),
        (task, _) => Err(format!(
            "only a running workflow task buffers, and it is {task:?}"
        )),
    }
}

pub(super) fn apply_attempt_failed(
    _state: &mut MutableState,
    failed: &WorkflowTaskAttemptFailed,
) -> Result<(), String> {
    Err(format!(
        "attempt {} of a workflow task: transient tasks are not written by this version",
        failed.attempt
    ))
}
