//! Nothing that happens to a run is left unseen: while its workflow has not seen it, a workflow task is there, unless the run is paused.

use std::collections::BTreeMap;

use orchestrion_history::state::WorkflowTask;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;

use super::super::ledger::Run;
use super::{Check, Invariant, View};

/// The first event of each run that its workflow has not seen, and that it has to see.
#[derive(Default)]
pub(super) struct Unseen(BTreeMap<Run, i64>);

fn has_to_be_seen(attributes: &A) -> bool {
    matches!(
        attributes,
        A::WorkflowExecutionStartedEventAttributes(_)
            | A::WorkflowExecutionSignaledEventAttributes(_)
            | A::WorkflowExecutionCancelRequestedEventAttributes(_)
            | A::ActivityTaskCompletedEventAttributes(_)
            | A::ActivityTaskFailedEventAttributes(_)
            | A::ActivityTaskTimedOutEventAttributes(_)
            | A::ActivityTaskCanceledEventAttributes(_)
            | A::TimerFiredEventAttributes(_)
            | A::ChildWorkflowExecutionCompletedEventAttributes(_)
            | A::ChildWorkflowExecutionFailedEventAttributes(_)
            | A::ChildWorkflowExecutionCanceledEventAttributes(_)
            | A::ChildWorkflowExecutionTerminatedEventAttributes(_)
            | A::ChildWorkflowExecutionTimedOutEventAttributes(_)
            | A::StartChildWorkflowExecutionFailedEventAttributes(_)
            | A::ExternalWorkflowExecutionSignaledEventAttributes(_)
            | A::SignalExternalWorkflowExecutionFailedEventAttributes(_)
    )
}

impl Invariant for Unseen {
    fn name(&self) -> &'static str {
        "unseen"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, record) in &view.news.records {
            let Some(event) = record.event() else {
                continue;
            };
            match &event.attributes {
                Some(A::WorkflowTaskCompletedEventAttributes(done))
                    if (self.0.get(run)).is_some_and(|id| *id < done.started_event_id) =>
                {
                    self.0.remove(run);
                }
                Some(attributes) if has_to_be_seen(attributes) => {
                    self.0.entry(run.clone()).or_insert(event.event_id);
                }
                _ => {}
            }
        }
        for run in &view.news.touched {
            let (Some(event_id), Some(shadow)) = (self.0.get(run), view.observer.runs.get(run))
            else {
                continue;
            };
            let state = &shadow.state;
            // The first one may have to wait for its time, or for an engine that notices it.
            let waits = state.paused.is_some() || state.first_task_at > 0;
            let open = state.is_running() && !shadow.damaged;
            if open && !waits && state.workflow_task == WorkflowTask::None {
                return Err(format!(
                    "{} does not see event {event_id}: no workflow task is there",
                    state.workflow_id
                ));
            }
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.0.clear();
    }
}
