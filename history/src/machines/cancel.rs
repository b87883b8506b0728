//! The wish that a run cancel itself. The workflow decides what it makes of it.
//!
//! ```text
//!  not requested --CancelRequested--> requested        once; a second wish is a repeat
//! ```
//!
//! It does not wait for a delayed start: the workflow is told at once.

use orchestrion_proto::temporal::api::common::v1::WorkflowExecution;
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::WorkflowExecutionCancelRequestedEventAttributes;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;

use super::Context;
use crate::draft::Draft;
use crate::request::{Rejection, Reply, RequestCancelWorkflow, Transition};
use crate::state::{CarriedEvent, MutableState};

pub(super) fn request(
    state: &MutableState,
    context: &Context<'_>,
    request: &RequestCancelWorkflow,
) -> Result<Transition, Rejection> {
    if is_requested(state) {
        return Ok(Transition::nothing(Reply::Repeated));
    }
    let mut draft = Draft::new(state, context);
    let requested = Attributes::WorkflowExecutionCancelRequestedEventAttributes(
        WorkflowExecutionCancelRequestedEventAttributes {
            cause: request.reason.clone(),
            external_initiated_event_id: request.sender.as_ref().map_or(0, |(_, event)| *event),
            external_workflow_execution: request.sender.as_ref().map(|(sender, _)| {
                WorkflowExecution {
                    workflow_id: sender.workflow_id.clone(),
                    run_id: sender.run_id.clone(),
                }
            }),
            identity: request.identity.clone(),
        },
    );
    draft.happened_outside(
        context,
        vec![(
            context.now.0,
            EventType::WorkflowExecutionCancelRequested,
            requested,
        )],
    );
    draft.end_start_delay();
    Ok(draft.finish(Reply::Done))
}

/// Whether history holds the wish already, or will when what is buffered gets there.
pub(super) fn is_requested(state: &MutableState) -> bool {
    let mut buffered = state.buffered.iter().filter_map(CarriedEvent::get);
    state.cancel_requested.is_some()
        || buffered.any(|event| event.event_type() == EventType::WorkflowExecutionCancelRequested)
}

pub(super) fn apply(state: &mut MutableState) -> Result<(), String> {
    match state.cancel_requested {
        None => {
            state.cancel_requested = Some(String::new());
            Ok(())
        }
        Some(_) => Err("cancellation was requested before".to_owned()),
    }
}
