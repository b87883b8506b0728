//! The workflow task: one turn of workflow code. At most one is pending in a run.
//!
//! ```text
//!  None --Scheduled--> Scheduled --Started--> Started --Completed--> None       then its commands' events, then the flush
//!                                             Started --Failed | TimedOut--> None    then the flush, or a further attempt
//!                      Scheduled --TimedOut, schedule to start--> None               a sticky worker never took it
//!  None --note Retried--> Transient --note AttemptFailed--> None                     a further attempt leaves no event ...
//!                         Transient --Scheduled--> Scheduled                         ... before it succeeds, or something new happens
//! ```
//!
//! The start is volatile: a worker's token carries it, and whichever record follows writes it (Completed, Failed, TimedOut, or the
//! first event to be buffered). While a task is started, events from outside are buffered; the flush behind its end gives
//! them their ids. A further attempt (transient) writes its Scheduled and Started only with what follows them. A speculative task, which
//! carries nothing but updates, is written in the same way, or not at all.

use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::enums::v1::{
    EventType, TimeoutType, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{Failure, ServerFailureInfo};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    WorkflowTaskCompletedEventAttributes, WorkflowTaskFailedEventAttributes,
    WorkflowTaskTimedOutEventAttributes,
};
use orchestrion_proto::v1::{EventBuffered, WorkflowTaskAttemptFailed, WorkflowTaskRetried, note};

use super::{
    Context, activity, child, continue_as_new, external, property, timer, update, workflow,
};
use crate::draft::Draft;
use crate::ids::Timestamp;
use crate::request::{
    CompleteWorkflowTask, FailWorkflowTask, Rejection, Reply, Transition, WorkflowTaskStart,
};
use crate::state::{CarriedEvent, MutableState, Problem, WorkflowTask};

/// From so many attempts on that failed one after the other, the run is listed as one with a problem (`temporal-wire` section 2.1).
const ATTEMPTS_THAT_ARE_A_PROBLEM: i32 = 5;

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
    let started_event_id = running(state, context, &complete.start)?;
    if is_idle(complete) && kept_alive_too_long(state, context) {
        let mut draft = Draft::new(state, context);
        end_attempt(
            &mut draft,
            context,
            &complete.start,
            started_event_id,
            &End::TimedOut,
        );
        return Ok(draft.finish(Reply::TaskFailed {
            cause: WorkflowTaskFailedCause::Unspecified,
            message: "the workflow task was kept alive for too long".to_owned(),
        }));
    }
    let discarded = if started_event_id.is_none() {
        update::rejected_only(state, complete)
    } else {
        Ok(None)
    };
    let completion = match discarded {
        Ok(Some(reports)) => {
            return Ok(Transition::nothing(Reply::Updates {
                reports,
                discarded: true,
            }));
        }
        Ok(None) => draft_completion(state, context, complete, started_event_id),
        Err(bad) => Err(bad),
    };
    match completion {
        Ok(transition) => Ok(transition),
        // A further attempt that fails again waits for its time-out: that paces the retries.
        Err(bad)
            if complete.start.attempt > 1
                && bad.cause != WorkflowTaskFailedCause::UnhandledCommand =>
        {
            Err(Rejection::Invalid(bad.message))
        }
        Err(bad) => {
            let failure = Failure {
                message: bad.message.clone(),
                source: "Server".to_owned(),
                failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo {
                    non_retryable: true,
                })),
                ..Default::default()
            };
            let end = End::Failed {
                cause: bad.cause,
                failure: Some(&failure),
                identity: &complete.identity,
            };
            let mut draft = Draft::new(state, context);
            end_attempt(&mut draft, context, &complete.start, started_event_id, &end);
            Ok(draft.finish(Reply::TaskFailed {
                cause: bad.cause,
                message: bad.message,
            }))
        }
    }
}

/// A completion that only keeps the task alive.
fn is_idle(complete: &CompleteWorkflowTask) -> bool {
    complete.force_new_task && complete.commands.is_empty() && complete.messages.is_empty()
}

fn kept_alive_too_long(state: &MutableState, context: &Context<'_>) -> bool {
    state.task_since > 0
        && context.now.0.saturating_sub(state.task_since) > context.limits.task_heartbeat_max
}

/// The id of the committed start, or `None` while it is volatile. A token of another task is not found.
fn running(
    state: &MutableState,
    context: &Context<'_>,
    token: &WorkflowTaskStart,
) -> Result<Option<i64>, Rejection> {
    // After a restart nobody remembers a volatile start: a token that still fits the run is then as good as any. It does not fit when
    // something happened since, which could not be buffered: its worker never saw that, and no other task would show it.
    let saw_all = token.last_event_id == state.next_event_id - 1;
    let handed_out = context
        .volatile_start
        .is_none_or(|start| start.request_id == token.request_id && start.at == token.at);
    match &state.workflow_task {
        WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            ..
        } if *scheduled_event_id == token.scheduled_event_id
            && *attempt == token.attempt
            && !token.speculative
            && saw_all
            && handed_out =>
        {
            Ok(None)
        }
        WorkflowTask::None
            if token.speculative
                && token.scheduled_event_id == state.next_event_id
                && context.volatile_start.is_some()
                && handed_out =>
        {
            Ok(None)
        }
        WorkflowTask::Started {
            scheduled_event_id,
            started_event_id,
            attempt,
            at,
            request_id,
        } if *scheduled_event_id == token.scheduled_event_id
            && *attempt == token.attempt
            && *at == token.at.0
            && *request_id == token.request_id =>
        {
            Ok(Some(*started_event_id))
        }
        _ => Err(Rejection::NotFound {
            what: "workflow task",
            why: format!(
                "the run waits for no answer to event {}",
                token.scheduled_event_id
            ),
        }),
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
    let by = complete.worker.as_deref().cloned().unwrap_or_default();
    #[expect(deprecated, reason = "older SDKs read the checksum and the stamp")]
    let completed_event_id = draft.event(
        EventType::WorkflowTaskCompleted,
        Attributes::WorkflowTaskCompletedEventAttributes(WorkflowTaskCompletedEventAttributes {
            scheduled_event_id: complete.start.scheduled_event_id,
            started_event_id,
            identity: complete.identity.clone(),
            sdk_metadata: complete.sdk_metadata.clone(),
            worker_deployment_name: by
                .deployment_version
                .as_ref()
                .map(|version| version.deployment_name.clone())
                .unwrap_or_default(),
            worker_version: by.stamp,
            deployment_version: by.deployment_version,
            binary_checksum: by.binary_checksum,
            metering_metadata: by.metering,
            ..Default::default()
        }),
    );
    draft.workflow_task_over();
    let mut messages = update::Messages::of(complete);
    for command in &complete.commands {
        if draft.is_closed() {
            break; // Only the first closing command counts, and nothing may follow it.
        }
        check_size(context, command)?;
        let first = draft.len();
        if let Some(C::ProtocolMessageCommandAttributes(c)) = &command.attributes {
            messages.carry_out(&mut draft, context, &c.message_id)?;
            continue;
        }
        carry_out(&mut draft, context, command, completed_event_id)?;
        draft.annotate(first, |event| {
            event.user_metadata = command.user_metadata.clone();
            event.event_group_markers = command.event_group_markers.clone();
        });
    }
    let reports = messages.finish(&mut draft, context)?;
    if !draft.is_closed() {
        let flushed = draft.flush_buffered();
        let canceled = !draft.closed_activities.is_empty();
        if flushed || canceled || complete.force_new_task {
            draft.ensure_workflow_task();
        }
    }
    Ok(draft.finish(if reports.is_empty() {
        Reply::Done
    } else {
        Reply::Updates {
            reports,
            discarded: false,
        }
    }))
}

fn check_size(context: &Context<'_>, command: &Command) -> Result<(), BadCommand> {
    let said = context
        .limits
        .check_metadata(command.user_metadata.as_ref());
    if let Err(why) = said {
        return Err(BadCommand {
            cause: match &command.attributes {
                Some(C::ScheduleActivityTaskCommandAttributes(_)) => {
                    WorkflowTaskFailedCause::BadScheduleActivityAttributes
                }
                Some(C::StartTimerCommandAttributes(_)) => {
                    WorkflowTaskFailedCause::BadStartTimerAttributes
                }
                Some(C::StartChildWorkflowExecutionCommandAttributes(_)) => {
                    WorkflowTaskFailedCause::BadStartChildExecutionAttributes
                }
                Some(C::RecordMarkerCommandAttributes(_)) => {
                    WorkflowTaskFailedCause::BadRecordMarkerAttributes
                }
                _ => WorkflowTaskFailedCause::PayloadsTooLarge,
            },
            message: format!("{:?}: {why}", command.command_type()),
        });
    }
    let (bytes, max) = (command.encoded_len(), context.limits.blob_bytes_max);
    if context.built_in || bytes <= max {
        return Ok(());
    }
    Err(BadCommand {
        cause: WorkflowTaskFailedCause::PayloadsTooLarge,
        message: format!(
            "{:?} has {bytes} bytes, at most {max} are allowed: pass a reference to the data instead",
            command.command_type()
        ),
    })
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
        C::ScheduleActivityTaskCommandAttributes(c) => {
            activity::schedule(draft, context, c, completed_event_id)
        }
        C::RequestCancelActivityTaskCommandAttributes(c) => {
            activity::request_cancel(draft, c.scheduled_event_id, completed_event_id)
        }
        C::StartTimerCommandAttributes(c) => timer::start(draft, context, c, completed_event_id),
        C::CancelTimerCommandAttributes(c) => timer::cancel(draft, c, completed_event_id),
        C::ModifyWorkflowPropertiesCommandAttributes(c) => {
            property::modify(draft, c, completed_event_id)
        }
        C::UpsertWorkflowSearchAttributesCommandAttributes(c) => {
            property::upsert_search_attributes(draft, context, c, completed_event_id)
        }
        C::RecordMarkerCommandAttributes(c) => {
            property::record_marker(draft, c, completed_event_id)
        }
        C::StartChildWorkflowExecutionCommandAttributes(c) => {
            child::initiate(draft, context, c, completed_event_id)
        }
        C::SignalExternalWorkflowExecutionCommandAttributes(c) => {
            external::signal(draft, context, c, completed_event_id)
        }
        C::RequestCancelExternalWorkflowExecutionCommandAttributes(c) => {
            external::request_cancel(draft, context, c, completed_event_id)
        }
        C::CompleteWorkflowExecutionCommandAttributes(c) => {
            may_close(draft)?;
            workflow::complete(draft, c, completed_event_id);
            Ok(())
        }
        C::FailWorkflowExecutionCommandAttributes(c) => {
            may_close(draft)?;
            workflow::fail(draft, c, completed_event_id)
        }
        C::CancelWorkflowExecutionCommandAttributes(c) => {
            may_close(draft)?;
            workflow::cancel(draft, c, completed_event_id);
            Ok(())
        }
        C::ContinueAsNewWorkflowExecutionCommandAttributes(c) => {
            may_close(draft)?;
            continue_as_new::command(draft, context, c, completed_event_id)
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
fn may_close(draft: &Draft<'_>) -> Result<(), BadCommand> {
    if draft.has_buffered() {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::UnhandledCommand,
            message: "events arrived that the workflow has not seen".to_owned(),
        });
    }
    Ok(())
}

pub(super) fn fail(
    state: &MutableState,
    context: &Context<'_>,
    fail: &FailWorkflowTask,
) -> Result<Transition, Rejection> {
    let started = running(state, context, &fail.start)?;
    let end = End::Failed {
        cause: fail.cause,
        failure: fail.failure.as_ref(),
        identity: &fail.identity,
    };
    let mut draft = Draft::new(state, context);
    end_attempt(&mut draft, context, &fail.start, started, &end);
    Ok(draft.finish(Reply::Done))
}

/// How an attempt ends that does not complete.
enum End<'a> {
    Failed {
        cause: WorkflowTaskFailedCause,
        failure: Option<&'a Failure>,
        identity: &'a str,
    },
    TimedOut,
}

/// A first attempt leaves an event, a further one only a note. What was buffered is written, and seen by a task of its own; without it the
/// next attempt is transient, or, if the worker was a sticky one, a first one for any worker.
fn end_attempt(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    start: &WorkflowTaskStart,
    started_event_id: Option<i64>,
    end: &End<'_>,
) {
    if start.attempt <= 1 || started_event_id.is_some() {
        let started_event_id = started_event_id.unwrap_or_else(|| draft.start_workflow_task(start));
        let (event_type, attributes) = end.event(start.scheduled_event_id, started_event_id);
        draft.event(event_type, attributes);
    } else {
        draft.note(end.note(start));
    }
    draft.workflow_task_over();
    if draft.flush_buffered() || context.sticky || start.speculative {
        draft.ensure_workflow_task();
    } else {
        draft.retry_workflow_task(start.attempt.saturating_add(1));
    }
}

impl End<'_> {
    fn event(&self, scheduled_event_id: i64, started_event_id: i64) -> (EventType, Attributes) {
        match self {
            Self::Failed {
                cause,
                failure,
                identity,
            } => (
                EventType::WorkflowTaskFailed,
                Attributes::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
                    scheduled_event_id,
                    started_event_id,
                    cause: (*cause).into(),
                    failure: failure.cloned(),
                    identity: (*identity).to_owned(),
                    ..Default::default()
                }),
            ),
            Self::TimedOut => timed_out(
                scheduled_event_id,
                started_event_id,
                TimeoutType::StartToClose,
            ),
        }
    }

    fn note(&self, start: &WorkflowTaskStart) -> note::Kind {
        let (cause, failure, timed_out) = match self {
            Self::Failed { cause, failure, .. } => ((*cause).into(), failure.cloned(), false),
            Self::TimedOut => (0, None, true),
        };
        note::Kind::WorkflowTaskAttemptFailed(WorkflowTaskAttemptFailed {
            scheduled_event_id: start.scheduled_event_id,
            attempt: start.attempt,
            cause,
            failure,
            timed_out,
        })
    }
}

fn timed_out(
    scheduled_event_id: i64,
    started_event_id: i64,
    timeout: TimeoutType,
) -> (EventType, Attributes) {
    (
        EventType::WorkflowTaskTimedOut,
        Attributes::WorkflowTaskTimedOutEventAttributes(WorkflowTaskTimedOutEventAttributes {
            scheduled_event_id,
            started_event_id,
            timeout_type: timeout.into(),
        }),
    )
}

/// Too much waits for the running task: it fails, so that what waits is written.
pub(super) fn force_flush(draft: &mut Draft<'_>) {
    let WorkflowTask::Started {
        scheduled_event_id,
        started_event_id,
        ..
    } = draft.state.workflow_task
    else {
        return;
    };
    let end = End::Failed {
        cause: WorkflowTaskFailedCause::ForceCloseCommand,
        failure: None,
        identity: "",
    };
    let (event_type, attributes) = end.event(scheduled_event_id, started_event_id);
    draft.event(event_type, attributes);
    draft.workflow_task_over();
    draft.flush_buffered();
}

/// The first workflow task of a run whose start was delayed.
pub(super) fn fire_first(draft: &mut Draft<'_>) {
    if draft.state.first_task_at > 0 && draft.state.first_task_at <= draft.now {
        draft.ensure_workflow_task();
    }
}

/// A start whose worker never answered, or a sticky worker that never took its task.
pub(super) fn time_out_due(draft: &mut Draft<'_>, context: &Context<'_>) {
    match &draft.state.workflow_task {
        WorkflowTask::Started {
            scheduled_event_id,
            started_event_id,
            attempt,
            at,
            ..
        } => {
            let start = WorkflowTaskStart {
                scheduled_event_id: *scheduled_event_id,
                attempt: *attempt,
                at: Timestamp(*at),
                ..Default::default()
            };
            if is_overdue(draft.state, &start, draft.now) {
                end_attempt(
                    draft,
                    context,
                    &start,
                    Some(*started_event_id),
                    &End::TimedOut,
                );
            }
        }
        WorkflowTask::Scheduled {
            scheduled_event_id,
            transient,
            ..
        } => match context.volatile_start {
            Some(start)
                if start.scheduled_event_id == *scheduled_event_id
                    && is_overdue(draft.state, start, draft.now) =>
            {
                end_attempt(draft, context, start, None, &End::TimedOut);
            }
            Some(start) if start.scheduled_event_id == *scheduled_event_id => {}
            _ if context.sticky_expired && !transient => {
                let (event_type, attributes) =
                    timed_out(*scheduled_event_id, 0, TimeoutType::ScheduleToStart);
                draft.event(event_type, attributes);
                draft.workflow_task_over();
                draft.ensure_workflow_task();
            }
            _ => {}
        },
        WorkflowTask::None => match context.volatile_start {
            Some(start)
                if start.speculative
                    && start.scheduled_event_id == draft.state.next_event_id
                    && is_overdue(draft.state, start, draft.now) =>
            {
                end_attempt(draft, context, start, None, &End::TimedOut);
            }
            _ => {}
        },
    }
}

fn is_overdue(state: &MutableState, start: &WorkflowTaskStart, now: i64) -> bool {
    start
        .at
        .0
        .saturating_add(state.task_timeout_of(start.attempt))
        <= now
}

pub(super) fn apply(
    state: &mut MutableState,
    event_id: i64,
    at: i64,
    attributes: &Attributes,
) -> Result<(), String> {
    state.workflow_task = match (&state.workflow_task, attributes) {
        (
            WorkflowTask::None
            | WorkflowTask::Scheduled {
                transient: true, ..
            },
            Attributes::WorkflowTaskScheduledEventAttributes(scheduled),
        ) => {
            state.first_task_at = 0;
            // Right behind a completion nothing happened but the worker's wish to go on.
            if state.completed_event_id + 1 != event_id || state.task_since == 0 {
                state.task_since = at;
            }
            WorkflowTask::Scheduled {
                scheduled_event_id: event_id,
                attempt: scheduled.attempt.max(1),
                at,
                transient: false,
            }
        }
        (
            WorkflowTask::Scheduled {
                scheduled_event_id, ..
            },
            Attributes::WorkflowTaskTimedOutEventAttributes(timed_out),
        ) if *scheduled_event_id == timed_out.scheduled_event_id
            && timed_out.started_event_id == 0 =>
        {
            WorkflowTask::None
        }
        // Nobody had taken it when the run was paused.
        (
            WorkflowTask::Scheduled {
                scheduled_event_id,
                transient: false,
                ..
            },
            Attributes::WorkflowTaskFailedEventAttributes(failed),
        ) if *scheduled_event_id == failed.scheduled_event_id && failed.started_event_id == 0 => {
            WorkflowTask::None
        }
        (
            WorkflowTask::Scheduled {
                scheduled_event_id,
                attempt,
                transient: false,
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
            state.problem = None;
            state.completed_event_id = event_id;
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
                child::apply_buffered(state, attributes);
                external::apply_buffered(state, attributes);
                if let Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(updated) =
                    attributes
                {
                    workflow::apply_attached(state, updated);
                }
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
    state: &mut MutableState,
    failed: &WorkflowTaskAttemptFailed,
) -> Result<(), String> {
    match &state.workflow_task {
        WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            transient: true,
            ..
        } if *scheduled_event_id == failed.scheduled_event_id && *attempt == failed.attempt => {
            if failed.attempt >= ATTEMPTS_THAT_ARE_A_PROBLEM {
                state.problem = Some(match failed.timed_out {
                    true => Problem::TimedOut,
                    false => Problem::Failed(failed.cause),
                });
            }
            state.workflow_task = WorkflowTask::None;
            Ok(())
        }
        task => Err(format!("the workflow task is {task:?}")),
    }
}

pub(super) fn apply_retried(
    state: &mut MutableState,
    at: i64,
    retried: &WorkflowTaskRetried,
) -> Result<(), String> {
    match &state.workflow_task {
        WorkflowTask::None if retried.attempt > 1 => {
            state.workflow_task = WorkflowTask::Scheduled {
                scheduled_event_id: state.next_event_id,
                attempt: retried.attempt,
                at,
                transient: true,
            };
            Ok(())
        }
        task => Err(format!(
            "attempt {} of a workflow task that is {task:?}",
            retried.attempt
        )),
    }
}
