//! The run itself.
//!
//! ```text
//!  Void --Started--> Running --Completed | Failed | Canceled | ContinuedAsNew--> closed      commands of a workflow task
//!                    Running --Terminated--> closed                                          a request
//!                    Running --TimedOut--> closed                                            its deadline
//!                    Running --OptionsUpdated--> Running                                     a start that attached to it
//! ```
//!
//! Closing drops everything pending: late answers find nothing. Only what the close asks of other runs stays (`outward`).

use orchestrion_proto::temporal::api::command::v1::{
    CancelWorkflowExecutionCommandAttributes, CompleteWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::{WorkflowExecution, WorkflowType};
use orchestrion_proto::temporal::api::enums::v1::{
    EventType, RetryState, TimeoutType, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{Failure, TimeoutFailureInfo};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    HistoryEvent, WorkflowExecutionCanceledEventAttributes,
    WorkflowExecutionCompletedEventAttributes, WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionOptionsUpdatedEventAttributes, WorkflowExecutionStartedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes, WorkflowExecutionTimedOutEventAttributes,
};
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::v1::{RunCreated, note};

use super::workflow_task::BadCommand;
use super::{Context, child, continue_as_new, retry, signal};
use crate::draft::Draft;
use crate::ids::Timestamp;
use crate::request::{
    AttachStart, ExecutionRef, Rejection, Reply, StartWorkflow, TerminateWorkflow, Transition,
};
use crate::state::{
    CarriedEvent, CarriedPriority, CarriedStart, MutableState, Parent, Retry, Status, WorkflowTask,
};
use crate::{state, wire};

pub(super) fn start(
    state: &MutableState,
    context: &Context<'_>,
    start: &StartWorkflow,
) -> Result<Transition, Rejection> {
    if state.status != Status::Void {
        if state.was_asked_by(&start.request_id) {
            return Ok(Transition::nothing(Reply::Repeated));
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
    let backoff = continue_as_new::first_backoff(start, context.now.0);
    let execution_deadline = match start.execution_deadline {
        0 => state::after(
            context.now.0.saturating_add(backoff),
            start.execution_timeout,
        )
        .unwrap_or_default(),
        given => given,
    };
    let retry_policy = start
        .retry_policy
        .as_ref()
        .and_then(|policy| retry::normalise(Some(policy)).ok());
    let continued = start.continued.as_deref();
    let parent = start.parent.as_deref();
    let execution = |of: &ExecutionRef| WorkflowExecution {
        workflow_id: of.workflow_id.clone(),
        run_id: of.run_id.clone(),
    };
    let mut draft = Draft::new(state, context);
    draft.event(
        EventType::WorkflowExecutionStarted,
        Attributes::WorkflowExecutionStartedEventAttributes(
            WorkflowExecutionStartedEventAttributes {
                workflow_type: Some(WorkflowType {
                    name: start.workflow_type.clone(),
                }),
                parent_workflow_namespace: parent
                    .map(|parent| parent.namespace.clone())
                    .unwrap_or_default(),
                parent_workflow_namespace_id: parent
                    .map(|parent| parent.namespace.clone())
                    .unwrap_or_default(),
                parent_workflow_execution: parent.map(|parent| execution(&parent.execution)),
                parent_initiated_event_id: parent.map_or(0, |parent| parent.initiated_event_id),
                task_queue: Some(TaskQueue {
                    name: start.task_queue.clone(),
                    ..Default::default()
                }),
                input: start.input.clone(),
                workflow_execution_timeout: Some(wire::duration(start.execution_timeout)),
                workflow_run_timeout: Some(wire::duration(run_timeout(start))),
                workflow_task_timeout: Some(wire::duration(task_timeout)),
                continued_execution_run_id: continued
                    .map(|continued| continued.run_id.clone())
                    .unwrap_or_default(),
                initiator: continued.map_or(0, |continued| continued.initiator.into()),
                continued_failure: start.continued_failure.clone(),
                last_completion_result: start.last_completion_result.clone(),
                original_execution_run_id: start.run_id.clone(),
                first_execution_run_id: continued
                    .map_or(&start.run_id, |continued| &continued.first_run_id)
                    .clone(),
                identity: start.identity.clone(),
                retry_policy,
                attempt: continued.map_or(1, |continued| continued.attempt.max(1)),
                workflow_execution_expiration_time: (execution_deadline > 0)
                    .then(|| wire::timestamp(execution_deadline)),
                cron_schedule: start.cron_schedule.clone(),
                first_workflow_task_backoff: Some(wire::duration(backoff)),
                memo: start.memo.clone(),
                search_attributes: start.search_attributes.clone(),
                header: start.header.clone(),
                workflow_id: start.workflow_id.clone(),
                completion_callbacks: start.completion_callbacks.clone(),
                // Absent, a run is its own root.
                root_workflow_execution: start.root.as_ref().map(execution),
                versioning_override: start.versioning_override.clone(),
                priority: start.priority.clone(),
                eager_execution_accepted: start.eager,
                ..Default::default()
            },
        ),
    );
    draft.annotate(0, |event| {
        event.user_metadata = start.user_metadata.clone();
        event.links = start.links.clone();
    });
    draft.note(note::Kind::RunCreated(RunCreated {
        request_id: start.request_id.clone(),
        ..Default::default()
    }));
    if let Some(signal) = &start.signal {
        draft.event(
            EventType::WorkflowExecutionSignaled,
            signal::signaled(signal),
        );
    }
    if backoff == 0 {
        draft.schedule_workflow_task(&start.task_queue, task_timeout);
    }
    Ok(draft.finish(Reply::Done))
}

pub(super) fn check(context: &Context<'_>, start: &StartWorkflow) -> Result<(), Rejection> {
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
    if let Some((what, _)) = durations.iter().find(|(_, nanos)| *nanos < 0) {
        return Err(Rejection::Invalid(format!(
            "{what} is negative: give zero or more"
        )));
    }
    if let Some(signal) = &start.signal {
        signal::check(context, signal)?;
    }
    if let Some(check) = context.search_attributes
        && let Some(given) = &start.search_attributes
    {
        check.check(given).map_err(Rejection::Invalid)?;
    }
    continue_as_new::check(start)
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
    let failure = Failure {
        message: "workflow timeout".to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: TimeoutType::StartToClose.into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    // Nothing follows the deadline of the whole chain; there is then no retry either.
    let chain = draft.state.execution_deadline;
    let (retry_state, new_execution_run_id) = if chain > 0 && chain <= draft.now {
        (RetryState::Timeout, String::new())
    } else {
        match continue_as_new::after_failure(draft, &failure) {
            (RetryState::RetryPolicyNotSet, next) => (RetryState::Timeout, next),
            other => other,
        }
    };
    draft.event(
        EventType::WorkflowExecutionTimedOut,
        Attributes::WorkflowExecutionTimedOutEventAttributes(
            WorkflowExecutionTimedOutEventAttributes {
                retry_state: retry_state.into(),
                new_execution_run_id,
            },
        ),
    );
}

pub(super) fn complete(
    draft: &mut Draft<'_>,
    command: &CompleteWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) {
    let new_execution_run_id = continue_as_new::after_completion(draft, command.result.as_ref());
    draft.event(
        EventType::WorkflowExecutionCompleted,
        Attributes::WorkflowExecutionCompletedEventAttributes(
            WorkflowExecutionCompletedEventAttributes {
                result: command.result.clone(),
                workflow_task_completed_event_id: completed_event_id,
                new_execution_run_id,
            },
        ),
    );
}

pub(super) fn fail(
    draft: &mut Draft<'_>,
    command: &FailWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let Some(failure) = &command.failure else {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::BadFailWorkflowExecutionAttributes,
            message: "the failure of the workflow is missing".to_owned(),
        });
    };
    let (retry_state, new_execution_run_id) = continue_as_new::after_failure(draft, failure);
    draft.event(
        EventType::WorkflowExecutionFailed,
        Attributes::WorkflowExecutionFailedEventAttributes(
            WorkflowExecutionFailedEventAttributes {
                failure: command.failure.clone(),
                retry_state: retry_state.into(),
                workflow_task_completed_event_id: completed_event_id,
                new_execution_run_id,
            },
        ),
    );
    Ok(())
}

pub(super) fn cancel(
    draft: &mut Draft<'_>,
    command: &CancelWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) {
    draft.event(
        EventType::WorkflowExecutionCanceled,
        Attributes::WorkflowExecutionCanceledEventAttributes(
            WorkflowExecutionCanceledEventAttributes {
                workflow_task_completed_event_id: completed_event_id,
                details: command.details.clone(),
            },
        ),
    );
}

/// A start met this open run: what it asked to leave is left.
pub(super) fn attach(
    state: &MutableState,
    context: &Context<'_>,
    request: &AttachStart,
) -> Result<Transition, Rejection> {
    let nothing = request.request_id.is_empty()
        && request.completion_callbacks.is_empty()
        && request.links.is_empty();
    if nothing || state.was_asked_by(&request.request_id) {
        return Ok(Transition::nothing(Reply::Existing));
    }
    let mut draft = Draft::new(state, context);
    let updated = Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(
        WorkflowExecutionOptionsUpdatedEventAttributes {
            attached_request_id: request.request_id.clone(),
            attached_completion_callbacks: request.completion_callbacks.clone(),
            identity: request.identity.clone(),
            ..Default::default()
        },
    );
    let event_type = EventType::WorkflowExecutionOptionsUpdated;
    draft.unseen_outside(context, event_type, updated, &request.links);
    Ok(draft.finish(Reply::Existing))
}

pub(super) fn apply(
    state: &mut MutableState,
    at: i64,
    event: &HistoryEvent,
    attributes: &Attributes,
) -> Result<(), String> {
    match (state.status, attributes) {
        (Status::Void, Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
            begin(state, at, started);
            Ok(())
        }
        (Status::Running, Attributes::WorkflowExecutionCompletedEventAttributes(a)) => {
            close(state, at, Status::Completed, event, &a.new_execution_run_id)
        }
        (Status::Running, Attributes::WorkflowExecutionFailedEventAttributes(a)) => {
            close(state, at, Status::Failed, event, &a.new_execution_run_id)
        }
        (Status::Running, Attributes::WorkflowExecutionCanceledEventAttributes(_)) => {
            close(state, at, Status::Canceled, event, "")
        }
        (Status::Running, Attributes::WorkflowExecutionTerminatedEventAttributes(_)) => {
            close(state, at, Status::Terminated, event, "")
        }
        (Status::Running, Attributes::WorkflowExecutionTimedOutEventAttributes(a)) => {
            close(state, at, Status::TimedOut, event, &a.new_execution_run_id)
        }
        (Status::Running, Attributes::WorkflowExecutionContinuedAsNewEventAttributes(a)) => close(
            state,
            at,
            Status::ContinuedAsNew,
            event,
            &a.new_execution_run_id,
        ),
        (Status::Running, Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(updated)) => {
            apply_attached(state, updated);
            Ok(())
        }
        (status, _) => Err(format!("the run is {status:?}")),
    }
}

pub(super) fn apply_attached(
    state: &mut MutableState,
    updated: &WorkflowExecutionOptionsUpdatedEventAttributes,
) {
    if !updated.attached_request_id.is_empty() {
        state
            .attached_request_ids
            .insert(updated.attached_request_id.clone());
    }
}

impl MutableState {
    /// Whether a start with this request id made this run, or attached to it.
    pub fn was_asked_by(&self, request_id: &str) -> bool {
        !request_id.is_empty()
            && (self.create_request_id == request_id
                || self.attached_request_ids.contains(request_id))
    }
}

pub(super) fn apply_created(
    state: &mut MutableState,
    at: i64,
    created: &RunCreated,
) -> Result<(), String> {
    if state.records != 1 {
        return Err("it belongs right behind WorkflowExecutionStarted".to_owned());
    }
    state.create_request_id.clone_from(&created.request_id);
    if !created.run_id.is_empty() {
        state.run_id.clone_from(&created.run_id);
        // A reset gives its run the time that its base had.
        let begun = state.begun.get().unwrap_or_default();
        state.started_at = at;
        state.execution_deadline =
            state::after(at, wire::nanos(begun.workflow_execution_timeout.as_ref()))
                .unwrap_or_default();
        let run = state::after(at, wire::nanos(begun.workflow_run_timeout.as_ref()));
        state.run_deadline = run.unwrap_or(state.execution_deadline);
    }
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
    let backoff = wire::nanos(started.first_workflow_task_backoff.as_ref());
    state.executable_at = at.saturating_add(backoff);
    state.first_task_at = state::after(at, backoff).unwrap_or_default();
    state.execution_deadline = started
        .workflow_execution_expiration_time
        .as_ref()
        .map_or(0, wire::instant);
    let run_timeout = wire::nanos(started.workflow_run_timeout.as_ref());
    state.run_deadline = match state::after(state.executable_at, run_timeout) {
        Some(run) if state.execution_deadline > 0 => run.min(state.execution_deadline),
        Some(run) => run,
        None => state.execution_deadline,
    };
    state.attempt = started.attempt.max(1);
    state.retry = started.retry_policy.as_ref().map(Retry::of);
    state.cron_schedule.clone_from(&started.cron_schedule);
    state
        .first_run_id
        .clone_from(&started.first_execution_run_id);
    state
        .original_run_id
        .clone_from(&started.original_execution_run_id);
    state.parent = started
        .parent_workflow_execution
        .as_ref()
        .map(|parent| Parent {
            namespace: started.parent_workflow_namespace.clone(),
            workflow_id: parent.workflow_id.clone(),
            run_id: parent.run_id.clone(),
            initiated_event_id: started.parent_initiated_event_id,
        });
    let mut begun = started.clone();
    if started.retry_policy.is_none() && started.cron_schedule.is_empty() {
        (begun.input, begun.header) = (None, None);
    }
    // Kept apart, and changed by what follows.
    (begun.memo, begun.search_attributes) = (None, None);
    state.begun = CarriedStart::new(Some(&begun));
    if let Some(memo) = &started.memo {
        super::property::upsert(&mut state.memo, &memo.fields);
    }
    state.priority = CarriedPriority::new(started.priority.as_ref());
    if let Some(attributes) = &started.search_attributes {
        super::property::upsert(&mut state.search_attributes, &attributes.indexed_fields);
    }
}

fn close(
    state: &mut MutableState,
    at: i64,
    status: Status,
    event: &HistoryEvent,
    next_run_id: &str,
) -> Result<(), String> {
    state.status = status;
    state.closed_at = at;
    state.workflow_task = WorkflowTask::None;
    state.first_task_at = 0;
    state.activities.clear();
    state.activity_ids.clear();
    state.timers.clear();
    state.buffered.clear();
    state.deliveries.clear();
    state.next_run_id = next_run_id.to_owned();
    let reset = !state.reset_run_id.is_empty();
    if state.parent.is_some() && next_run_id.is_empty() && !reset {
        state.untold_close = CarriedEvent::new(Some(event));
    }
    child::apply_parent_closed(state);
    Ok(())
}
