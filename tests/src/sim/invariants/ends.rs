//! Once faults stop, every execution ends.

use super::{Check, Invariant, View};

pub(super) struct Ends;

impl Invariant for Ends {
    fn name(&self) -> &'static str {
        "ends"
    }

    fn after_step(&mut self, _view: &View<'_>) -> Check {
        Ok(())
    }

    fn at_the_end(&mut self, view: &View<'_>) -> Check {
        let open: Vec<String> = (view.observer.open())
            .map(|(run, shadow)| {
                let state = &shadow.state;
                let activities: Vec<String> = (state.activities.values())
                    .map(|a| format!("{} in {} {:?}", a.activity_id, a.task_queue, a.stage))
                    .collect();
                format!(
                    "{} ({}): {:?}, activities {activities:?}, timers {:?}, children {:?}, due {:?}",
                    state.workflow_id,
                    run.1,
                    state.workflow_task,
                    state.timers.keys(),
                    state.children.keys(),
                    state.next_due()
                )
            })
            .collect();
        match open.is_empty() {
            true => Ok(()),
            false => Err(format!("these never end: {}", open.join("; "))),
        }
    }
}
