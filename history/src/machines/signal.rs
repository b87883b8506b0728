//! Signals from outside.
//!
//! ```text
//!  --Signaled-->                     each request id once per run
//!  --Signaled, CancelRequested-->    one that asks for the run's end; the second only if there is none yet
//! ```

use orchestrion_proto::temporal::api::common::v1::WorkflowExecution;
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    WorkflowExecutionCancelRequestedEventAttributes, WorkflowExecutionSignaledEventAttributes,
};

use super::{Context, cancel};
use crate::draft::Draft;
use crate::request::{Rejection, Reply, SignalWorkflow, Transition};
use crate::state::MutableState;

pub(super) fn receive(
    state: &MutableState,
    context: &Context<'_>,
    signal: &SignalWorkflow,
) -> Result<Transition, Rejection> {
    if !signal.request_id.is_empty() && state.signal_request_ids.contains(&signal.request_id) {
        return Ok(Transition::nothing(Reply::Repeated));
    }
    check(context, signal)?;
    if state.signals + state.buffered.len() as u64 >= context.limits.signals_max {
        return Err(Rejection::Limit {
            what: "signals",
            max: context.limits.signals_max,
            unit: "signals in a run",
        });
    }
    let mut draft = Draft::new(state, context);
    let mut events = vec![(
        context.now.0,
        EventType::WorkflowExecutionSignaled,
        signaled(signal),
    )];
    if signal.cancels && !cancel::is_requested(state) {
        let requested = WorkflowExecutionCancelRequestedEventAttributes {
            cause: signal.name.clone(),
            identity: signal.identity.clone(),
            ..Default::default()
        };
        events.push((
            context.now.0,
            EventType::WorkflowExecutionCancelRequested,
            Attributes::WorkflowExecutionCancelRequestedEventAttributes(requested),
        ));
    }
    draft.happened_outside(context, events);
    if signal.cancels || signal.ends_start_delay {
        draft.end_start_delay();
    }
    Ok(draft.finish(Reply::Done))
}

/// What is wrong with a signal, if anything is.
pub(super) fn check(context: &Context<'_>, signal: &SignalWorkflow) -> Result<(), Rejection> {
    if signal.name.is_empty() || signal.name.len() > context.limits.id_bytes_max {
        return Err(Rejection::Invalid(
            "signal name is empty or too long: give 1 to 1000 bytes".to_owned(),
        ));
    }
    Ok(())
}

/// The event's attributes.
pub(super) fn signaled(signal: &SignalWorkflow) -> Attributes {
    Attributes::WorkflowExecutionSignaledEventAttributes(WorkflowExecutionSignaledEventAttributes {
        signal_name: signal.name.clone(),
        input: signal.input.clone(),
        identity: signal.identity.clone(),
        header: signal.header.clone(),
        request_id: signal.request_id.clone(),
        external_workflow_execution: signal.sender.as_ref().map(|sender| WorkflowExecution {
            workflow_id: sender.workflow_id.clone(),
            run_id: sender.run_id.clone(),
        }),
        ..Default::default()
    })
}

pub(super) fn apply(state: &mut MutableState, signaled: &WorkflowExecutionSignaledEventAttributes) {
    state.signals += 1;
    if !signaled.request_id.is_empty() {
        state.signal_request_ids.insert(signaled.request_id.clone());
    }
}
