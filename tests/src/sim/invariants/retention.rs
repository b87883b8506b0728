//! A run leaves when its retention is over and not before, with everything that is kept of it, and nothing is ever written of it again.

use std::time::Duration;

use orchestrion_history::ids::Timestamp;

use super::super::ledger::Run;
use super::{Check, Invariant, View};

/// How long a run whose time has come may stay while nothing goes wrong: several sweeps.
const GRACE: Duration = Duration::from_secs(900);

pub(super) struct Retention;

fn leaves_whole(run: &Run, view: &View<'_>) -> Check {
    let Some(shadow) = view.observer.runs.get(run) else {
        return Ok(());
    };
    let state = &shadow.state;
    let name = format!("run {} of {}", run.1, state.workflow_id);
    if !shadow.left {
        return match shadow.kept.is_empty() && !shadow.records.is_empty() {
            true => Err(format!("{name} has lost its journal")),
            false => Ok(()),
        };
    }
    if let Some(key) = &shadow.risen {
        return Err(format!("{name} had left, and {key} is written"));
    }
    if !state.status.is_closed() {
        return Err(format!("{name} left while it was open"));
    }
    let due = Timestamp(state.closed_at).plus(view.retention);
    if due > view.now {
        let early = due.since(view.now);
        return Err(format!("{name} left {early:?} before its time"));
    }
    if !shadow.kept.is_empty() || !shadow.index.is_empty() {
        let keys: Vec<String> = (shadow.index.values())
            .map(|(key, _)| key.to_string())
            .collect();
        return Err(format!(
            "{name} left {} entries of its journal behind, and {keys:?}",
            shadow.kept.len()
        ));
    }
    let id = (run.0.clone(), state.workflow_id.clone());
    match view.observer.current.get(&id) {
        Some(current) if current.run_id == run.1.0 => {
            Err(format!("{name} has left and is the current run"))
        }
        _ => Ok(()),
    }
}

impl Invariant for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        let mut touched = view.news.touched.iter();
        touched.try_for_each(|run| leaves_whole(run, view))
    }

    fn of_everything(&mut self, view: &View<'_>) -> Check {
        let mut runs = view.observer.runs.keys();
        runs.try_for_each(|run| leaves_whole(run, view))
    }

    fn at_the_end(&mut self, view: &View<'_>) -> Check {
        let overdue = view.observer.runs.values().find(|shadow| {
            let leaves = Timestamp(shadow.state.closed_at).plus(view.retention);
            let still = !shadow.left && !shadow.damaged && shadow.state.status.is_closed();
            still && leaves.max(view.calm_since).plus(GRACE) < view.now
        });
        match overdue {
            Some(shadow) => Err(format!("{} never leaves", shadow.state.workflow_id)),
            None => Ok(()),
        }
    }
}
