//! Signals from outside.
//!
//! ```text
//!  --Signaled-->      each request id once per run
//! ```

use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::WorkflowExecutionSignaledEventAttributes;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;

use super::Context;
use crate::draft::Draft;
use crate::request::{Rejection, Reply, SignalWorkflow, Transition};
use crate::state::MutableState;

pub(super) fn receive(
    state: &MutableState,
    context: &Context<'_>,
    signal: &SignalWorkflow,
) -> Result<Transition, Rejection> {
    if !signal.request_id.is_empty() && state.signal_request_ids.contains(&signal.request_id) {
        return Ok(Transition {
            records: Vec::new(),
            reply: Reply::Repeated,
        });
    }
    if signal.name.is_empty() || signal.name.len() > context.limits.id_bytes_max {
        return Err(Rejection::Invalid(
            "signal name is empty or too long: give 1 to 1000 bytes".to_owned(),
        ));
    }
    if state.signals + state.buffered.len() as u64 >= context.limits.signals_max {
        return Err(Rejection::Limit {
            what: "signals",
            max: context.limits.signals_max,
            unit: "signals in a run",
        });
    }
    let mut draft = Draft::new(state, context);
    let signaled = Attributes::WorkflowExecutionSignaledEventAttributes(
        WorkflowExecutionSignaledEventAttributes {
            signal_name: signal.name.clone(),
            input: signal.input.clone(),
            identity: signal.identity.clone(),
            header: signal.header.clone(),
            request_id: signal.request_id.clone(),
            ..Default::default()
        },
    );
    draft.happened_outside(
        context,
        vec![(
            context.now.0,
            EventType::WorkflowExecutionSignaled,
            signaled,
        )],
    );
    Ok(draft.finish(Reply::Done))
}

pub(super) fn apply(state: &mut MutableState, signaled: &WorkflowExecutionSignaledEventAttributes) {
    state.signals += 1;
    if !signaled.request_id.is_empty() {
        state.signal_request_ids.insert(signaled.request_id.clone());
    }
}
