//! A pause of the whole run: nothing further is handed out, and what is under way may end.
//!
//! ```text
//!  running --paused--> paused --unpaused--> running, with a workflow task
//! ```
//!
//! A workflow task that nobody has taken fails (`WorkflowPauseRequestedBeforeTaskStarted`); one that runs ends first, and the pause waits in
//! the buffer. Whatever happens to a paused run is recorded as ever, and seen when it goes on. Its deadlines go on too.

use orchestrion_proto::temporal::api::enums::v1::{EventType, WorkflowTaskFailedCause};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    WorkflowExecutionPausedEventAttributes, WorkflowExecutionUnpausedEventAttributes,
    WorkflowTaskFailedEventAttributes,
};

use super::Context;
use crate::draft::Draft;
use crate::request::{PauseWorkflow, Rejection, Reply, Transition, UnpauseWorkflow};
use crate::state::{CarriedEvent, MutableState, Pause, Stage, WorkflowTask};

/// What was said last of pauses: the request that said it, and whether it was one.
fn last_said(state: &MutableState) -> (bool, String) {
    let buffered = state.buffered.iter().rev().filter_map(CarriedEvent::get);
    let waiting = buffered
        .filter_map(|event| match event.attributes? {
            Attributes::WorkflowExecutionPausedEventAttributes(a) => Some((true, a.request_id)),
            Attributes::WorkflowExecutionUnpausedEventAttributes(a) => Some((false, a.request_id)),
            _ => None,
        })
        .next();
    waiting.unwrap_or_else(|| {
        let paused = state.paused.as_ref();
        let said = paused.map_or(&state.unpause_request_id, |pause| &pause.request_id);
        (paused.is_some(), said.clone())
    })
}

pub(super) fn pause(
    state: &MutableState,
    context: &Context<'_>,
    request: &PauseWorkflow,
) -> Result<Transition, Rejection> {
    match last_said(state) {
        (true, by) if !by.is_empty() && by == request.request_id => {
            return Ok(Transition::nothing(Reply::Repeated));
        }
        (true, _) => {
            return Err(Rejection::NotReady(
                "the workflow is paused already".to_owned(),
            ));
        }
        (false, _) => {}
    }
    let mut draft = Draft::new(state, context);
    if draft.task_waits_for_a_worker() {
        if let WorkflowTask::Scheduled {
            scheduled_event_id,
            transient: false,
            ..
        } = state.workflow_task
        {
            let cause = WorkflowTaskFailedCause::WorkflowPauseRequestedBeforeTaskStarted;
            draft.event(
                EventType::WorkflowTaskFailed,
                Attributes::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
                    scheduled_event_id,
                    cause: cause.into(),
                    identity: request.identity.clone(),
                    ..Default::default()
                }),
            );
        }
        draft.workflow_task_over();
    }
    let paused = WorkflowExecutionPausedEventAttributes {
        identity: request.identity.clone(),
        reason: request.reason.clone(),
        request_id: request.request_id.clone(),
    };
    draft.unseen_outside(
        context,
        EventType::WorkflowExecutionPaused,
        Attributes::WorkflowExecutionPausedEventAttributes(paused),
        &[],
    );
    Ok(draft.finish(Reply::Done))
}

pub(super) fn unpause(
    state: &MutableState,
    context: &Context<'_>,
    request: &UnpauseWorkflow,
) -> Result<Transition, Rejection> {
    match last_said(state) {
        (false, by) if !by.is_empty() && by == request.request_id => {
            return Ok(Transition::nothing(Reply::Repeated));
        }
        (false, _) => {
            return Err(Rejection::NotReady("the workflow is not paused".to_owned()));
        }
        (true, _) => {}
    }
    let mut draft = Draft::new(state, context);
    let unpaused = WorkflowExecutionUnpausedEventAttributes {
        identity: request.identity.clone(),
        reason: request.reason.clone(),
        request_id: request.request_id.clone(),
    };
    draft.unseen_outside(
        context,
        EventType::WorkflowExecutionUnpaused,
        Attributes::WorkflowExecutionUnpausedEventAttributes(unpaused),
        &[],
    );
    draft.ensure_workflow_task();
    Ok(draft.finish(Reply::Done))
}

pub(super) fn apply(
    state: &mut MutableState,
    at: i64,
    attributes: &Attributes,
) -> Result<(), String> {
    match (&state.paused, attributes) {
        (None, Attributes::WorkflowExecutionPausedEventAttributes(paused)) => {
            if let WorkflowTask::Scheduled { transient, .. } = state.workflow_task {
                if !transient {
                    return Err("a workflow task waits for a worker".to_owned());
                }
                state.workflow_task = WorkflowTask::None;
            }
            state.paused = Some(Pause {
                at,
                identity: paused.identity.clone(),
                reason: paused.reason.clone(),
                request_id: paused.request_id.clone(),
            });
            Ok(())
        }
        (Some(_), Attributes::WorkflowExecutionUnpausedEventAttributes(unpaused)) => {
            state.paused = None;
            // Their wait in the queue begins with the end of the pause.
            for activity in state.activities.values_mut() {
                if activity.stage == Stage::Queued && activity.paused.is_none() {
                    activity.attempt_scheduled_at = at;
                }
            }
            state.unpause_request_id.clone_from(&unpaused.request_id);
            Ok(())
        }
        (pause, _) => Err(format!("the pause is {pause:?}")),
    }
}
