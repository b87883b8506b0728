//! Chains: the run that begins with another's end.
//!
//! ```text
//!  Running --ContinuedAsNew--> closed, next run (WORKFLOW)                                  a command
//!  Running --Failed | TimedOut--> closed, next run (RETRY)                                  its retry policy says so ...
//!  Running --Completed | Failed | TimedOut--> closed, next run (CRON_SCHEDULE)              ... else its cron schedule
//! ```
//!
//! The close event names the next run, and the decision carries its start: both are in one commit. A cancelled or terminated run has none. The
//! execution's deadline holds for the whole chain; so do the first run's id, the parent and the root.

use orchestrion_proto::temporal::api::command::v1::ContinueAsNewWorkflowExecutionCommandAttributes;
use orchestrion_proto::temporal::api::common::v1::{Memo, Payload, Payloads, SearchAttributes};
use orchestrion_proto::temporal::api::enums::v1::{
    ContinueAsNewInitiator, EventType, RetryState, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::WorkflowExecutionContinuedAsNewEventAttributes;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use sha2::{Digest as _, Sha256};

use super::workflow_task::BadCommand;
use super::{Context, retry, search_attributes_fit, workflow};
use crate::cron::Schedule;
use crate::draft::Draft;
use crate::ids::{RunId, Timestamp};
use crate::request::{Continued, ExecutionRef, ParentLink, Rejection, StartWorkflow};
use crate::state::{CarriedPayload, MutableState};
use crate::wire;

/// The run id of the run that an event of another begins: a function of both, time first like any run id.
pub(crate) fn next_run_id(state: &MutableState, event_id: i64, now: i64) -> RunId {
    let mut hash = Sha256::new();
    hash.update(state.run_id.as_bytes());
    hash.update(event_id.to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    let millis = u64::try_from(now / 1_000_000).unwrap_or_default();
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = (bytes[6] & 0x0f) | 0x70;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    RunId(bytes)
}

/// What every next run has from the one before.
fn successor(draft: &Draft<'_>, initiator: ContinueAsNewInitiator) -> StartWorkflow {
    let state = draft.state;
    let begun = state.begun.get().unwrap_or_default();
    let run_id = next_run_id(state, draft.next_event_id(), draft.now).to_string();
    let payloads = |fields: &std::collections::BTreeMap<String, CarriedPayload>| {
        fields
            .iter()
            .filter_map(|(name, payload)| Some((name.clone(), payload.get()?)))
            .collect::<std::collections::HashMap<String, Payload>>()
    };
    let (memo, search_attributes) = (payloads(&state.memo), payloads(&state.search_attributes));
    StartWorkflow {
        request_id: run_id.clone(),
        run_id,
        workflow_id: state.workflow_id.clone(),
        workflow_type: state.workflow_type.clone(),
        task_queue: state.task_queue.clone(),
        input: begun.input,
        header: begun.header,
        memo: (!memo.is_empty()).then_some(Memo { fields: memo }),
        search_attributes: (!search_attributes.is_empty()).then_some(SearchAttributes {
            indexed_fields: search_attributes,
        }),
        execution_timeout: wire::nanos(begun.workflow_execution_timeout.as_ref()),
        execution_deadline: state.execution_deadline,
        run_timeout: wire::nanos(begun.workflow_run_timeout.as_ref()),
        task_timeout: state.task_timeout,
        retry_policy: begun.retry_policy,
        cron_schedule: state.cron_schedule.clone(),
        identity: begun.identity,
        last_completion_result: begun.last_completion_result,
        continued: Some(Box::new(Continued {
            run_id: state.run_id.clone(),
            first_run_id: state.first_run_id.clone(),
            initiator,
            attempt: 1,
        })),
        parent: state.parent.as_ref().map(|parent| {
            Box::new(ParentLink {
                namespace: parent.namespace.clone(),
                execution: ExecutionRef {
                    workflow_id: parent.workflow_id.clone(),
                    run_id: parent.run_id.clone(),
                },
                initiated_event_id: parent.initiated_event_id,
            })
        }),
        root: begun.root_workflow_execution.map(|root| ExecutionRef {
            workflow_id: root.workflow_id,
            run_id: root.run_id,
        }),
        priority: begun.priority,
        versioning_override: begun.versioning_override,
        completion_callbacks: begun.completion_callbacks,
        ..StartWorkflow::default()
    }
}

pub(super) fn command(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &ContinueAsNewWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let bad = |message: String| BadCommand {
        cause: WorkflowTaskFailedCause::BadContinueAsNewAttributes,
        message: format!("continue as new: {message}"),
    };
    search_attributes_fit(context, command.search_attributes.as_ref())?;
    let given = |timeout: Option<&_>, otherwise: i64| match wire::nanos(timeout) {
        0 => otherwise,
        nanos => nanos,
    };
    let mut start = successor(draft, ContinueAsNewInitiator::Workflow);
    let named = |name: Option<&str>, otherwise: String| match name {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => otherwise,
    };
    start.workflow_type = named(
        command.workflow_type.as_ref().map(|t| t.name.as_str()),
        start.workflow_type,
    );
    start.task_queue = named(
        command.task_queue.as_ref().map(|q| q.name.as_str()),
        start.task_queue,
    );
    start.input = command.input.clone();
    start.header = command.header.clone();
    start.run_timeout = given(command.workflow_run_timeout.as_ref(), start.run_timeout);
    start.task_timeout = given(command.workflow_task_timeout.as_ref(), start.task_timeout);
    // Code that continues for ever without waiting would otherwise keep everybody busy.
    let earliest = draft
        .state
        .started_at
        .saturating_add(context.limits.continue_as_new_interval_min);
    start.first_task_backoff = wire::nanos(command.backoff_start_interval.as_ref())
        .max(earliest.saturating_sub(draft.now));
    start.retry_policy = command.retry_policy.clone().or(start.retry_policy);
    start.cron_schedule = named(Some(&command.cron_schedule), start.cron_schedule);
    start.memo = command.memo.clone().or(start.memo);
    start.search_attributes = command
        .search_attributes
        .clone()
        .or(start.search_attributes);
    start.last_completion_result = command
        .last_completion_result
        .clone()
        .or(start.last_completion_result);
    start.continued_failure = command.failure.clone();
    workflow::check(context, &start).map_err(|rejection| bad(rejection.to_string()))?;
    draft.event(
        EventType::WorkflowExecutionContinuedAsNew,
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(
            WorkflowExecutionContinuedAsNewEventAttributes {
                new_execution_run_id: start.run_id.clone(),
                workflow_type: Some(orchestrion_proto::temporal::api::common::v1::WorkflowType {
                    name: start.workflow_type.clone(),
                }),
                task_queue: Some(orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue {
                    name: start.task_queue.clone(),
                    ..Default::default()
                }),
                input: start.input.clone(),
                workflow_run_timeout: Some(wire::duration(start.run_timeout)),
                workflow_task_timeout: Some(wire::duration(start.task_timeout)),
                workflow_task_completed_event_id: completed_event_id,
                backoff_start_interval: Some(wire::duration(start.first_task_backoff)),
                initiator: ContinueAsNewInitiator::Workflow.into(),
                last_completion_result: start.last_completion_result.clone(),
                header: start.header.clone(),
                memo: start.memo.clone(),
                search_attributes: start.search_attributes.clone(),
                ..Default::default()
            },
        ),
    );
    draft.next_run = Some(Box::new(start));
    Ok(())
}

/// What follows a failure of the run: its retry state, and the id of the next run or nothing.
pub(super) fn after_failure(draft: &mut Draft<'_>, failure: &Failure) -> (RetryState, String) {
    let state = draft.state;
    let retry_state = match &state.retry {
        None => RetryState::RetryPolicyNotSet,
        Some(retry) => match retry.next(state.attempt, failure) {
            Err(why) => why,
            Ok(wait) => {
                let wait = wait.max(0);
                if is_within_deadline(state, draft.now.saturating_add(wait)) {
                    let mut start = successor(draft, ContinueAsNewInitiator::Retry);
                    start.first_task_backoff = wait;
                    start.continued_failure = Some(failure.clone());
                    if let Some(continued) = &mut start.continued {
                        continued.attempt = state.attempt.saturating_add(1);
                    }
                    return (RetryState::InProgress, follow(draft, start));
                }
                RetryState::Timeout
            }
        },
    };
    let mut next = cron(draft);
    if let Some(start) = &mut next {
        start.continued_failure = Some(failure.clone());
    }
    let run_id = next.map(|start| follow(draft, start)).unwrap_or_default();
    (retry_state, run_id)
}

/// The id of the run that follows a completion by its cron schedule, or nothing.
pub(super) fn after_completion(draft: &mut Draft<'_>, result: Option<&Payloads>) -> String {
    let next = cron(draft).map(|mut start| {
        start.last_completion_result = result.cloned().or(start.last_completion_result);
        start
    });
    next.map(|start| follow(draft, start)).unwrap_or_default()
}

fn cron(draft: &Draft<'_>) -> Option<StartWorkflow> {
    let state = draft.state;
    if state.cron_schedule.is_empty() {
        return None;
    }
    let schedule = Schedule::parse(&state.cron_schedule).ok()?;
    let next = schedule.next(Timestamp(state.executable_at), Timestamp(draft.now))?;
    if !is_within_deadline(state, next.0) {
        return None;
    }
    let mut start = successor(draft, ContinueAsNewInitiator::CronSchedule);
    start.first_task_backoff = next.0 - draft.now;
    Some(start)
}

fn follow(draft: &mut Draft<'_>, start: StartWorkflow) -> String {
    let run_id = start.run_id.clone();
    draft.next_run = Some(Box::new(start));
    run_id
}

fn is_within_deadline(state: &MutableState, at: i64) -> bool {
    state.execution_deadline == 0 || at < state.execution_deadline
}

/// What is wrong with a start's schedule and retry policy, if anything is.
pub(super) fn check(start: &StartWorkflow) -> Result<(), Rejection> {
    if start.retry_policy.is_some() {
        retry::normalise(start.retry_policy.as_ref()).map_err(|why| {
            Rejection::Invalid(format!("workflow {:?}: {why}", start.workflow_id))
        })?;
    }
    if !start.cron_schedule.is_empty() {
        Schedule::parse(&start.cron_schedule).map_err(Rejection::Invalid)?;
        if start.first_task_backoff > 0 && start.continued.is_none() {
            return Err(Rejection::Invalid(
                "a start delay and a cron schedule exclude each other: give one of them".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Nanoseconds before the first workflow task: a run that begins a cron chain waits for the schedule's first time.
pub(super) fn first_backoff(start: &StartWorkflow, now: i64) -> i64 {
    if start.cron_schedule.is_empty() || start.continued.is_some() {
        return start.first_task_backoff;
    }
    let next = Schedule::parse(&start.cron_schedule)
        .ok()
        .and_then(|schedule| schedule.next(Timestamp(now), Timestamp(now)));
    next.map_or(0, |next| next.0 - now)
}
