//! A closed execution stays closed: nothing follows the event that closes it, and nothing that is kept of it says that it is open again.

use std::collections::BTreeMap;

use orchestrion_history::record::{Record, closes_run};
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;

use super::super::ledger::Run;
use super::{Check, Invariant, View};

/// The runs that were seen closed, and how.
#[derive(Default)]
pub(super) struct Closed(BTreeMap<Run, i32>);

impl Invariant for Closed {
    fn name(&self) -> &'static str {
        "closed"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, record) in &view.news.records {
            let Record::Event(event) = record else {
                continue;
            };
            if self.0.contains_key(run) {
                return Err(format!(
                    "{:?} stands behind the end of {}",
                    event.event_type(),
                    run.1
                ));
            }
            if closes_run(event.event_type()) {
                let shadow = &view.observer.runs[run];
                self.0
                    .insert(run.clone(), shadow.state.status.wire().into());
            }
        }
        for run in &view.news.touched {
            let Some(shadow) = view.observer.runs.get(run) else {
                continue;
            };
            let id = &shadow.state.workflow_id;
            if shadow.closes > 1 {
                return Err(format!("{id} was closed {} times", shadow.closes));
            }
            let Some(status) = self.0.get(run) else {
                continue;
            };
            if shadow.head.status != *status || shadow.head.closed_at == 0 {
                let says = WorkflowExecutionStatus::try_from(shadow.head.status);
                return Err(format!("{id} is closed and its head says {says:?}"));
            }
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.0.clear();
    }
}
