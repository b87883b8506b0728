//! Reset: a run begins anew from a point of another's history.
//!
//! ```text
//!  base:  open or closed --note RunReset--> same, and terminated if it was open
//!  new:   the base's records before the boundary, under a run id of its own
//!         --WorkflowTaskFailed(RESET_WORKFLOW)--> attempts under way go back --later signals and updates again--> a workflow task
//! ```
//!
//! The boundary is the end of a workflow task. `original_execution_run_id` stays what it was: workflow code draws its random numbers from it.
//! Children from before the boundary are the new run's; those from behind it end as the base's close says.

use orchestrion_proto::temporal::api::enums::v1::{
    EventType, UpdateAdmittedEventOrigin, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{Failure, ResetWorkflowFailureInfo};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskCanceledEventAttributes, HistoryEvent, WorkflowExecutionTerminatedEventAttributes,
    WorkflowExecutionUpdateAdmittedEventAttributes, WorkflowTaskFailedEventAttributes,
};
use orchestrion_proto::v1::{ActivityAttemptReturned, RunReset, note};

use super::Context;
use crate::draft::Draft;
use crate::ids::Timestamp;
use crate::record::Record;
use crate::replay;
use crate::request::{Rejection, Reply, ResetWorkflow, Transition, WorkflowTaskStart};
use crate::state::{CarriedEvent, MutableState, Stage, WorkflowTask};

/// The base notes that it was reset, and ends if it is open.
pub(super) fn leave(
    state: &MutableState,
    context: &Context<'_>,
    request: &ResetWorkflow,
) -> Transition {
    if !request.request_id.is_empty() && state.reset_request_id == request.request_id {
        return Transition::nothing(Reply::Repeated);
    }
    let mut draft = Draft::new(state, context);
    draft.note(note::Kind::RunReset(RunReset {
        new_run_id: request.new_run_id.clone(),
        request_id: request.request_id.clone(),
        finish_event_id: request.finish_event_id,
    }));
    if state.is_running() {
        draft.event(
            EventType::WorkflowExecutionTerminated,
            Attributes::WorkflowExecutionTerminatedEventAttributes(
                WorkflowExecutionTerminatedEventAttributes {
                    reason: format!("reset to run {}: {}", request.new_run_id, request.reason),
                    details: None,
                    identity: request.identity.clone(),
                },
            ),
        );
    }
    draft.finish(Reply::Done)
}

pub(super) fn apply_left(state: &mut MutableState, reset: &RunReset) {
    state.reset_run_id.clone_from(&reset.new_run_id);
    state.reset_request_id.clone_from(&reset.request_id);
    state.reset_at_event_id = reset.finish_event_id;
}

/// All records of the run that a reset makes of a base's journal.
pub fn fork(
    base: &[Record],
    context: &Context<'_>,
    request: &ResetWorkflow,
) -> Result<Vec<Record>, Rejection> {
    let invalid = |why: String| Rejection::Invalid(format!("reset: {why}"));
    let finish = request.finish_event_id;
    let boundary = base
        .iter()
        .position(|record| record.event().is_some_and(|event| event.event_id == finish))
        .filter(|_| finish > 1)
        .ok_or_else(|| invalid(format!("the history has no event {finish} to go back to")))?;
    let mut records = begin_anew(&base[..boundary], context, request);
    let state = replay::fold(&records).map_err(|illegal| {
        invalid(format!(
            "the history up to event {finish} does not fold: {illegal}"
        ))
    })?;
    let mut draft = Draft::new(&state, context);
    let (scheduled_event_id, started_event_id) = match &state.workflow_task {
        WorkflowTask::Started {
            scheduled_event_id,
            started_event_id,
            ..
        } => (*scheduled_event_id, *started_event_id),
        WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            transient: false,
            ..
        } => {
            let start = WorkflowTaskStart {
                scheduled_event_id: *scheduled_event_id,
                attempt: *attempt,
                at: Timestamp(draft.now),
                identity: request.identity.clone(),
                ..WorkflowTaskStart::default()
            };
            (*scheduled_event_id, draft.start_workflow_task(&start))
        }
        WorkflowTask::Scheduled { .. } | WorkflowTask::None => {
            return Err(invalid(format!(
                "event {finish} ends no workflow task: give the id of a WorkflowTaskCompleted, WorkflowTaskFailed or WorkflowTaskTimedOut"
            )));
        }
    };
    draft.event(
        EventType::WorkflowTaskFailed,
        Attributes::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
            scheduled_event_id,
            started_event_id,
            cause: WorkflowTaskFailedCause::ResetWorkflow.into(),
            failure: Some(Failure {
                message: request.reason.clone(),
                source: "Server".to_owned(),
                failure_info: Some(FailureInfo::ResetWorkflowFailureInfo(
                    ResetWorkflowFailureInfo::default(),
                )),
                ..Default::default()
            }),
            identity: request.identity.clone(),
            base_run_id: request.base_run_id.clone(),
            new_run_id: request.new_run_id.clone(),
            ..Default::default()
        }),
    );
    draft.workflow_task_over();
    give_back_attempts(&mut draft);
    let behind = base[boundary..].iter().filter_map(Record::event).cloned();
    let waiting: Vec<HistoryEvent> = replay::fold(base)
        .map(|state| {
            state
                .buffered
                .iter()
                .filter_map(CarriedEvent::get)
                .collect()
        })
        .unwrap_or_default();
    reapply(&mut draft, request, behind.chain(waiting));
    draft.ensure_workflow_task();
    records.extend(draft.finish(Reply::Done).records);
    Ok(records)
}

/// The records before the boundary, as the new run's. What waited for the end of the last workflow task is left: it stands behind the boundary.
fn begin_anew(kept: &[Record], context: &Context<'_>, request: &ResetWorkflow) -> Vec<Record> {
    let started = kept.iter().rposition(|record| {
        record
            .event()
            .is_some_and(|event| event.event_type() == EventType::WorkflowTaskStarted)
    });
    let mut records = Vec::with_capacity(kept.len() + 8);
    for (index, record) in kept.iter().enumerate() {
        let Record::Note(note) = record else {
            records.push(record.clone());
            continue;
        };
        match &note.kind {
            Some(note::Kind::EventBuffered(_))
                if started.is_some_and(|started| index > started) => {}
            Some(note::Kind::RunReset(_)) => {}
            Some(note::Kind::RunCreated(_)) => {
                let mut note = note.clone();
                note.at = context.now.0;
                note.kind = Some(note::Kind::RunCreated(orchestrion_proto::v1::RunCreated {
                    request_id: request.request_id.clone(),
                    run_id: request.new_run_id.clone(),
                }));
                records.push(Record::Note(note));
            }
            _ => records.push(record.clone()),
        }
    }
    records
}

/// Attempts that the base's workers have: the new run's begin again, uncounted.
fn give_back_attempts(draft: &mut Draft<'_>) {
    let state = draft.state;
    for (id, activity) in &state.activities {
        if !matches!(activity.stage, Stage::Started { .. }) {
            continue;
        }
        draft.note(note::Kind::ActivityAttemptReturned(
            ActivityAttemptReturned {
                scheduled_event_id: *id,
                attempt: activity.attempt,
                reason: "the workflow was reset".to_owned(),
            },
        ));
        if activity.cancel_requested_event_id != 0 {
            draft.event(
                EventType::ActivityTaskCanceled,
                Attributes::ActivityTaskCanceledEventAttributes(
                    ActivityTaskCanceledEventAttributes {
                        latest_cancel_requested_event_id: activity.cancel_requested_event_id,
                        scheduled_event_id: *id,
                        ..Default::default()
                    },
                ),
            );
        }
    }
}

/// Signals and accepted updates from behind the boundary come again, in their order: their senders were told that they had arrived.
fn reapply(
    draft: &mut Draft<'_>,
    request: &ResetWorkflow,
    events: impl Iterator<Item = HistoryEvent>,
) {
    let mut admitted = Vec::new();
    for event in events {
        match event.attributes {
            Some(Attributes::WorkflowExecutionSignaledEventAttributes(signaled))
                if !request.skip_signals =>
            {
                draft.event(
                    EventType::WorkflowExecutionSignaled,
                    Attributes::WorkflowExecutionSignaledEventAttributes(signaled),
                );
            }
            Some(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(accepted))
                if !request.skip_updates =>
            {
                admit(
                    draft,
                    &mut admitted,
                    accepted.protocol_instance_id,
                    accepted.accepted_request,
                );
            }
            Some(Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(again))
                if !request.skip_updates =>
            {
                let id = again
                    .request
                    .as_ref()
                    .and_then(|request| request.meta.as_ref());
                let id = id.map(|meta| meta.update_id.clone()).unwrap_or_default();
                admit(draft, &mut admitted, id, again.request);
            }
            _ => {}
        }
    }
}

fn admit(
    draft: &mut Draft<'_>,
    admitted: &mut Vec<String>,
    id: String,
    request: Option<orchestrion_proto::temporal::api::update::v1::Request>,
) {
    let Some(mut request) = request else { return };
    if draft.state.updates.contains_key(&id) || admitted.contains(&id) {
        return;
    }
    request
        .meta
        .get_or_insert_default()
        .update_id
        .clone_from(&id);
    admitted.push(id);
    draft.event(
        EventType::WorkflowExecutionUpdateAdmitted,
        Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(
            WorkflowExecutionUpdateAdmittedEventAttributes {
                request: Some(request),
                origin: UpdateAdmittedEventOrigin::Reapply.into(),
            },
        ),
    );
}
