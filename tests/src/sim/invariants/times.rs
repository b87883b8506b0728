//! No record is of a moment that is still to come.

use super::{Check, Invariant, View};

pub(super) struct Times;

impl Invariant for Times {
    fn name(&self) -> &'static str {
        "times"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, record) in &view.news.records {
            if record.at() > view.now.0 {
                let early = record.at() - view.now.0;
                let id = &view.observer.runs[run].state.workflow_id;
                let name = record.type_name();
                return Err(format!("{id}: {name} is of {early} ns after now"));
            }
        }
        Ok(())
    }
}
