//! Signals and cancel requests from this run to another.
//!
//! ```text
//!  none --SignalInitiated--> pending --ExternalSignaled | SignalFailed--> none
//!  none --CancelInitiated--> pending --ExternalCancelRequested | RequestCancelFailed--> none
//! ```
//!
//! The command only writes Initiated: `outward` says what is to be delivered where, and the engine answers whether it arrived.

use orchestrion_proto::temporal::api::command::v1::{
    RequestCancelExternalWorkflowExecutionCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::WorkflowExecution;
use orchestrion_proto::temporal::api::enums::v1::{
    CancelExternalWorkflowExecutionFailedCause as CancelCause, EventType,
    SignalExternalWorkflowExecutionFailedCause as SignalCause, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ExternalWorkflowExecutionCancelRequestedEventAttributes,
    ExternalWorkflowExecutionSignaledEventAttributes, HistoryEvent,
    RequestCancelExternalWorkflowExecutionFailedEventAttributes,
    RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    SignalExternalWorkflowExecutionFailedEventAttributes,
    SignalExternalWorkflowExecutionInitiatedEventAttributes,
};

use super::Context;
use super::child::own_or;
use super::workflow_task::BadCommand;
use crate::draft::Draft;
use crate::ids::RunId;
use crate::request::{Delivered, Rejection, Reply, Transition, Undeliverable};
use crate::state::{CarriedEvent, Delivery, MutableState};

pub(super) fn signal(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &SignalExternalWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let execution = command.execution.clone().unwrap_or_default();
    let cause = WorkflowTaskFailedCause::BadSignalWorkflowExecutionAttributes;
    check(context, cause, &execution.workflow_id, &execution.run_id)?;
    if command.signal_name.is_empty() || command.signal_name.len() > context.limits.id_bytes_max {
        let message = format!(
            "the signal to workflow {:?} has an empty or too long name",
            execution.workflow_id
        );
        return Err(BadCommand { cause, message });
    }
    let pending = pending(draft.state, is_signal) + draft.initiated.signals;
    if pending >= context.limits.pending_signals_max {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::PendingSignalsLimitExceeded,
            message: format!(
                "{pending} signals to other workflows are pending, no more are allowed"
            ),
        });
    }
    draft.initiated.signals += 1;
    #[expect(deprecated, reason = "SDKs still send it")]
    let namespace = own_or(context, &command.namespace);
    draft.event(
        EventType::SignalExternalWorkflowExecutionInitiated,
        Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(
            SignalExternalWorkflowExecutionInitiatedEventAttributes {
                workflow_task_completed_event_id: completed_event_id,
                namespace: namespace.clone(),
                namespace_id: namespace,
                workflow_execution: Some(execution),
                signal_name: command.signal_name.clone(),
                input: command.input.clone(),
                child_workflow_only: command.child_workflow_only,
                header: command.header.clone(),
                ..Default::default()
            },
        ),
    );
    Ok(())
}

pub(super) fn request_cancel(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &RequestCancelExternalWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let cause = WorkflowTaskFailedCause::BadRequestCancelExternalWorkflowExecutionAttributes;
    check(context, cause, &command.workflow_id, &command.run_id)?;
    let pending = pending(draft.state, |delivery| !is_signal(delivery)) + draft.initiated.cancels;
    if pending >= context.limits.pending_cancels_max {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::PendingRequestCancelLimitExceeded,
            message: format!(
                "{pending} cancel requests to other workflows are pending, no more are allowed"
            ),
        });
    }
    draft.initiated.cancels += 1;
    #[expect(deprecated, reason = "SDKs still send it")]
    let namespace = own_or(context, &command.namespace);
    draft.event(
        EventType::RequestCancelExternalWorkflowExecutionInitiated,
        Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(
            RequestCancelExternalWorkflowExecutionInitiatedEventAttributes {
                workflow_task_completed_event_id: completed_event_id,
                namespace: namespace.clone(),
                namespace_id: namespace,
                workflow_execution: Some(WorkflowExecution {
                    workflow_id: command.workflow_id.clone(),
                    run_id: command.run_id.clone(),
                }),
                child_workflow_only: command.child_workflow_only,
                reason: command.reason.clone(),
                ..Default::default()
            },
        ),
    );
    Ok(())
}

fn check(
    context: &Context<'_>,
    cause: WorkflowTaskFailedCause,
    workflow_id: &str,
    run_id: &str,
) -> Result<(), BadCommand> {
    let why = if workflow_id.is_empty() || workflow_id.len() > context.limits.id_bytes_max {
        "its workflow id is empty or too long"
    } else if !run_id.is_empty() && RunId::parse(run_id).is_none() {
        "its run id is no UUID"
    } else {
        return Ok(());
    };
    Err(BadCommand {
        cause,
        message: format!("external workflow {workflow_id:?}: {why}"),
    })
}

fn is_signal(delivery: &Delivery) -> bool {
    matches!(
        delivery.initiated.get().and_then(|event| event.attributes),
        Some(Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(_))
    )
}

fn pending(state: &MutableState, of: impl Fn(&Delivery) -> bool) -> usize {
    state
        .deliveries
        .values()
        .filter(|delivery| of(delivery))
        .count()
}

pub(super) fn delivered(
    state: &MutableState,
    context: &Context<'_>,
    request: &Delivered,
) -> Result<Transition, Rejection> {
    let id = request.initiated_event_id;
    let initiated = state
        .deliveries
        .get(&id)
        .filter(|delivery| !delivery.settled)
        .and_then(|delivery| delivery.initiated.get()?.attributes)
        .ok_or_else(|| Rejection::NotFound {
            what: "delivery",
            why: format!("the one of event {id} is not pending"),
        })?;
    let mut draft = Draft::new(state, context);
    let (event_type, attributes) = match initiated {
        Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(signal) => {
            signal_result(id, signal, request.result)
        }
        Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(cancel) => {
            cancel_result(id, cancel, request.result)
        }
        _ => unreachable!("only these two are put among the deliveries"),
    };
    draft.happened_outside(context, vec![(draft.now, event_type, attributes)]);
    Ok(draft.finish(Reply::Done))
}

fn signal_result(
    id: i64,
    signal: SignalExternalWorkflowExecutionInitiatedEventAttributes,
    result: Result<(), Undeliverable>,
) -> (EventType, Attributes) {
    let cause = match result {
        Ok(()) => {
            let signaled = ExternalWorkflowExecutionSignaledEventAttributes {
                initiated_event_id: id,
                namespace: signal.namespace,
                namespace_id: signal.namespace_id,
                workflow_execution: signal.workflow_execution,
                ..Default::default()
            };
            return (
                EventType::ExternalWorkflowExecutionSignaled,
                Attributes::ExternalWorkflowExecutionSignaledEventAttributes(signaled),
            );
        }
        Err(Undeliverable::ExecutionNotFound) => SignalCause::ExternalWorkflowExecutionNotFound,
        Err(Undeliverable::NamespaceNotFound) => SignalCause::NamespaceNotFound,
        Err(Undeliverable::SignalLimit) => SignalCause::SignalCountLimitExceeded,
    };
    let failed = SignalExternalWorkflowExecutionFailedEventAttributes {
        cause: cause.into(),
        workflow_task_completed_event_id: signal.workflow_task_completed_event_id,
        namespace: signal.namespace,
        namespace_id: signal.namespace_id,
        workflow_execution: signal.workflow_execution,
        initiated_event_id: id,
        ..Default::default()
    };
    (
        EventType::SignalExternalWorkflowExecutionFailed,
        Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(failed),
    )
}

fn cancel_result(
    id: i64,
    cancel: RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    result: Result<(), Undeliverable>,
) -> (EventType, Attributes) {
    let cause = match result {
        Ok(()) => {
            let requested = ExternalWorkflowExecutionCancelRequestedEventAttributes {
                initiated_event_id: id,
                namespace: cancel.namespace,
                namespace_id: cancel.namespace_id,
                workflow_execution: cancel.workflow_execution,
            };
            return (
                EventType::ExternalWorkflowExecutionCancelRequested,
                Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(requested),
            );
        }
        Err(Undeliverable::NamespaceNotFound) => CancelCause::NamespaceNotFound,
        Err(Undeliverable::ExecutionNotFound | Undeliverable::SignalLimit) => {
            CancelCause::ExternalWorkflowExecutionNotFound
        }
    };
    let failed = RequestCancelExternalWorkflowExecutionFailedEventAttributes {
        cause: cause.into(),
        workflow_task_completed_event_id: cancel.workflow_task_completed_event_id,
        namespace: cancel.namespace,
        namespace_id: cancel.namespace_id,
        workflow_execution: cancel.workflow_execution,
        initiated_event_id: id,
        ..Default::default()
    };
    (
        EventType::RequestCancelExternalWorkflowExecutionFailed,
        Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(failed),
    )
}

pub(super) fn apply(state: &mut MutableState, at: i64, event: &HistoryEvent) -> Result<(), String> {
    match &event.attributes {
        Some(
            Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(_)
            | Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_),
        ) => {
            let delivery = Delivery {
                initiated: CarriedEvent::new(Some(event)),
                initiated_at: at,
                settled: false,
            };
            state.deliveries.insert(event.event_id, delivery);
            Ok(())
        }
        Some(attributes) => match initiated_event_id(attributes) {
            Some(id) => match state.deliveries.remove(&id) {
                Some(_) => Ok(()),
                None => Err(format!("nothing of event {id} is under way")),
            },
            None => Err("it is no record of a delivery".to_owned()),
        },
        None => Err("it has no attributes".to_owned()),
    }
}

fn initiated_event_id(attributes: &Attributes) -> Option<i64> {
    match attributes {
        Attributes::ExternalWorkflowExecutionSignaledEventAttributes(a) => {
            Some(a.initiated_event_id)
        }
        Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
            Some(a.initiated_event_id)
        }
        Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => {
            Some(a.initiated_event_id)
        }
        Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => {
            Some(a.initiated_event_id)
        }
        _ => None,
    }
}

/// What waits in the buffer is known to everybody but the workflow.
pub(super) fn apply_buffered(state: &mut MutableState, attributes: &Attributes) {
    if let Some(id) = initiated_event_id(attributes)
        && let Some(delivery) = state.deliveries.get_mut(&id)
    {
        delivery.settled = true;
    }
}
