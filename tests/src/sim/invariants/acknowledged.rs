//! Nothing acknowledged is lost: whatever somebody was told yes about stands in the journal of the run he was told of.

use super::super::ledger::Asked;
use super::{Check, Invariant, View};

pub(super) struct Acknowledged;

fn is_kept(view: &View<'_>, mark: &str, asked: &Asked) -> Check {
    let Some(run) = &asked.accepted else {
        return Ok(());
    };
    match view.observer.runs.get(run) {
        Some(shadow) if shadow.damaged || shadow.marks.contains(mark) => Ok(()),
        Some(shadow) => Err(format!(
            "{} {mark} was acknowledged, and run {} of {} knows nothing of it",
            asked.what, run.1, shadow.state.workflow_id
        )),
        None => Err(format!(
            "{} {mark} was acknowledged, and there is no run {}",
            asked.what, run.1
        )),
    }
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for mark in view.told {
            is_kept(view, mark, &view.ledger.asked[mark])?;
        }
        Ok(())
    }

    fn of_everything(&mut self, view: &View<'_>) -> Check {
        for (mark, asked) in &view.ledger.asked {
            is_kept(view, mark, asked)?;
        }
        for (id, wanted) in &view.ledger.executions {
            let Some(run_id) = wanted.run else { continue };
            let run = (wanted.namespace.clone(), run_id);
            if !view.observer.runs.contains_key(&run) {
                return Err(format!("{id} was acknowledged as run {run_id} and is lost"));
            }
        }
        Ok(())
    }
}
