//! What a run still asks of other runs, as its state alone says: children to start, signals and cancel requests to deliver, a parent to
//! tell, children to end.
//!
//! The engine does it, normally in the commit that asked for it; what it did not get to is found here again, also after a restart, because a run
//! with something to ask is due ([`due`] is part of [`MutableState::next_due`]).
//!
//! Invariant: each item disappears with the record that says it is done, and with nothing else.

use orchestrion_proto::temporal::api::enums::v1::WorkflowIdReusePolicy;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;

use crate::ids::Timestamp;
use crate::machines::child::initiated_attributes;
use crate::priority::inherited;
use crate::request::{
    ChildClosed, ChildOutcome, ExecutionRef, ParentLink, RequestCancelWorkflow, SignalWorkflow,
    StartWorkflow,
};
use crate::state::{CarriedEvent, Child, ChildStage, ClosePolicy, Delivery, MutableState, Parent};
use crate::wire;

/// Something to ask of another run.
#[derive(Debug, Clone, PartialEq)]
pub enum Outward {
    /// Start a child.
    StartChild {
        /// The event that asked for it.
        initiated_event_id: i64,
        /// Its tenant.
        namespace: String,
        /// With what.
        start: Box<StartWorkflow>,
    },
    /// Deliver a signal.
    Signal {
        /// The event that asked for it.
        initiated_event_id: i64,
        /// Where to.
        to: Destination,
        /// What.
        signal: Box<SignalWorkflow>,
    },
    /// Deliver a cancel request.
    Cancel {
        /// The event that asked for it.
        initiated_event_id: i64,
        /// Where to.
        to: Destination,
        /// What.
        cancel: Box<RequestCancelWorkflow>,
    },
    /// Tell the parent how this chain ended.
    TellParent {
        /// Which.
        parent: Parent,
        /// What.
        closed: Box<ChildClosed>,
    },
    /// This run's close ends a child.
    EndChild {
        /// The event that initiated it.
        initiated_event_id: i64,
        /// Its tenant.
        namespace: String,
        /// Its workflow id and its first run: the chain may be at a later one.
        child: ExecutionRef,
        /// Terminated, or asked to cancel itself.
        terminate: bool,
    },
}

/// Where a signal or cancel request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its tenant.
    pub namespace: String,
    /// Which run.
    pub execution: ExecutionRef,
    /// Only if it is a child of the sender.
    pub child_only: bool,
}

/// Since when something is to be asked; `None` if nothing is.
pub fn due(state: &MutableState) -> Option<Timestamp> {
    let children = state
        .children
        .values()
        .filter(|child| asks(state, child))
        .map(|child| child.initiated_at);
    let deliveries = state
        .deliveries
        .values()
        .filter(|delivery| !delivery.settled)
        .map(|delivery| delivery.initiated_at);
    let parent = (!state.untold_close.is_empty()).then_some(state.closed_at);
    children
        .chain(deliveries)
        .chain(parent)
        .min()
        .map(Timestamp)
}

fn asks(state: &MutableState, child: &Child) -> bool {
    match child.stage {
        ChildStage::Initiated => true,
        ChildStage::Started => state.status.is_closed(),
        ChildStage::Settled => false,
    }
}

/// The events behind what is to be asked, in their order; 0, the last, is the parent.
pub fn ids(state: &MutableState) -> Vec<i64> {
    let children = state
        .children
        .iter()
        .filter(|(_, child)| asks(state, child))
        .map(|(id, _)| *id);
    let deliveries = state
        .deliveries
        .iter()
        .filter(|(_, delivery)| !delivery.settled)
        .map(|(id, _)| *id);
    let mut ids: Vec<i64> = children.chain(deliveries).collect();
    ids.sort_unstable();
    ids.extend((!state.untold_close.is_empty()).then_some(0));
    ids
}

/// What an event asks for, if it still does.
pub fn get(state: &MutableState, id: i64) -> Option<Outward> {
    if id == 0 {
        parent(state)
    } else {
        of_event(state, id)
    }
}

fn of_event(state: &MutableState, id: i64) -> Option<Outward> {
    if let Some(delivery) = state.deliveries.get(&id) {
        return (!delivery.settled)
            .then(|| of_delivery(state, id, delivery))
            .flatten();
    }
    let child = state.children.get(&id).filter(|child| asks(state, child))?;
    match child.stage {
        ChildStage::Initiated => Some(Outward::StartChild {
            initiated_event_id: id,
            namespace: child.namespace.clone(),
            start: Box::new(child_start(state, id, &child.namespace, &child.initiated)?),
        }),
        ChildStage::Started => Some(Outward::EndChild {
            initiated_event_id: id,
            namespace: child.namespace.clone(),
            child: ExecutionRef {
                workflow_id: child.workflow_id.clone(),
                run_id: child.run_id.clone(),
            },
            terminate: child.policy == ClosePolicy::Terminate,
        }),
        ChildStage::Settled => None,
    }
}

/// Names what an event of a run asks for, the same in every run that has the event: a reset asks again, and must not be heard twice.
fn request_id(state: &MutableState, event_id: i64) -> String {
    format!("{}:{event_id}", state.original_run_id)
}

fn child_start(
    state: &MutableState,
    id: i64,
    namespace: &str,
    carried: &CarriedEvent,
) -> Option<StartWorkflow> {
    let initiated = initiated_attributes(carried)?;
    let own = || ExecutionRef {
        workflow_id: state.workflow_id.clone(),
        run_id: state.run_id.clone(),
    };
    let root = state
        .begun
        .get()
        .and_then(|begun| begun.root_workflow_execution)
        .map_or_else(own, |root| ExecutionRef {
            workflow_id: root.workflow_id,
            run_id: root.run_id,
        });
    Some(StartWorkflow {
        workflow_id: initiated.workflow_id.clone(),
        reuse: match initiated.workflow_id_reuse_policy() {
            WorkflowIdReusePolicy::Unspecified => WorkflowIdReusePolicy::AllowDuplicate,
            given => given,
        },
        workflow_type: initiated.workflow_type.map(|t| t.name).unwrap_or_default(),
        task_queue: initiated.task_queue.map(|q| q.name).unwrap_or_default(),
        input: initiated.input,
        header: initiated.header,
        memo: initiated.memo,
        search_attributes: initiated.search_attributes,
        execution_timeout: wire::nanos(initiated.workflow_execution_timeout.as_ref()),
        run_timeout: wire::nanos(initiated.workflow_run_timeout.as_ref()),
        task_timeout: wire::nanos(initiated.workflow_task_timeout.as_ref()),
        retry_policy: initiated.retry_policy,
        cron_schedule: initiated.cron_schedule,
        request_id: request_id(state, id),
        parent: Some(Box::new(ParentLink {
            namespace: namespace.to_owned(),
            execution: own(),
            initiated_event_id: id,
        })),
        root: Some(root),
        priority: inherited(state.priority.get(), initiated.priority),
        versioning_override: initiated.versioning_override,
        // What the parent says of its child is shown of the child too.
        user_metadata: carried.get().and_then(|event| event.user_metadata),
        ..StartWorkflow::default()
    })
}

fn of_delivery(state: &MutableState, id: i64, delivery: &Delivery) -> Option<Outward> {
    let sender = ExecutionRef {
        workflow_id: state.workflow_id.clone(),
        run_id: state.run_id.clone(),
    };
    match delivery.initiated.get()?.attributes? {
        Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(signal) => {
            Some(Outward::Signal {
                initiated_event_id: id,
                to: Destination {
                    namespace: signal.namespace,
                    execution: signal
                        .workflow_execution
                        .map_or_else(Default::default, execution),
                    child_only: signal.child_workflow_only,
                },
                signal: Box::new(SignalWorkflow {
                    name: signal.signal_name,
                    input: signal.input,
                    header: signal.header,
                    request_id: request_id(state, id),
                    sender: Some(sender),
                    ..SignalWorkflow::default()
                }),
            })
        }
        Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(cancel) => {
            Some(Outward::Cancel {
                initiated_event_id: id,
                to: Destination {
                    namespace: cancel.namespace,
                    execution: cancel
                        .workflow_execution
                        .map_or_else(Default::default, execution),
                    child_only: cancel.child_workflow_only,
                },
                cancel: Box::new(RequestCancelWorkflow {
                    reason: cancel.reason,
                    request_id: request_id(state, id),
                    sender: Some((sender, id)),
                    ..RequestCancelWorkflow::default()
                }),
            })
        }
        _ => None,
    }
}

fn execution(
    wire: orchestrion_proto::temporal::api::common::v1::WorkflowExecution,
) -> ExecutionRef {
    ExecutionRef {
        workflow_id: wire.workflow_id,
        run_id: wire.run_id,
    }
}

fn parent(state: &MutableState) -> Option<Outward> {
    let parent = state.parent.clone()?;
    let outcome = outcome_of(state.untold_close.get()?.attributes?);
    Some(Outward::TellParent {
        closed: Box::new(ChildClosed {
            initiated_event_id: parent.initiated_event_id,
            execution: ExecutionRef {
                workflow_id: state.workflow_id.clone(),
                run_id: state.run_id.clone(),
            },
            outcome,
        }),
        parent,
    })
}

/// What a close event means to the parent.
pub fn outcome_of(close: Attributes) -> ChildOutcome {
    match close {
        Attributes::WorkflowExecutionCompletedEventAttributes(a) => {
            ChildOutcome::Completed(a.result)
        }
        Attributes::WorkflowExecutionFailedEventAttributes(a) => {
            let retry_state = a.retry_state();
            ChildOutcome::Failed(a.failure.map(Box::new), retry_state)
        }
        Attributes::WorkflowExecutionCanceledEventAttributes(a) => {
            ChildOutcome::Canceled(a.details)
        }
        Attributes::WorkflowExecutionTimedOutEventAttributes(a) => {
            ChildOutcome::TimedOut(a.retry_state())
        }
        _ => ChildOutcome::Terminated,
    }
}
