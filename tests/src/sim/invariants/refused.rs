//! Nothing refused leaves a trace: what everybody who asked was told no about stands in no journal.

use super::super::ledger::Asked;
use super::{Check, Invariant, View};

pub(super) struct Refused;

fn left_nothing(view: &View<'_>, mark: &str, asked: &Asked) -> Check {
    let known = !asked.under_way && !asked.lost;
    let refused = asked.refused && known && asked.accepted.is_none();
    match view.observer.marks.get(mark) {
        Some(runs) if refused => {
            let ids = runs.iter().filter_map(|run| view.observer.runs.get(run));
            let ids: Vec<&str> = ids.map(|run| run.state.workflow_id.as_str()).collect();
            Err(format!(
                "{} {mark} was refused and stands in {ids:?}",
                asked.what
            ))
        }
        _ => Ok(()),
    }
}

impl Invariant for Refused {
    fn name(&self) -> &'static str {
        "refused"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for mark in view.told.iter().chain(&view.news.marks) {
            if let Some(asked) = view.ledger.asked.get(mark) {
                left_nothing(view, mark, asked)?;
            }
        }
        Ok(())
    }

    fn of_everything(&mut self, view: &View<'_>) -> Check {
        for (mark, asked) in &view.ledger.asked {
            left_nothing(view, mark, asked)?;
        }
        Ok(())
    }
}
