//! Replay equals state: what the engine holds of a run, in memory and in snapshots, is the fold of its journal.

use orchestrion_history::replay::{difference, fold};
use orchestrion_history::snapshot;
use orchestrion_history::store::Key;

use super::{Check, Invariant, View};

pub(super) struct Replay;

impl Invariant for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, held) in view.held {
            let Some(shadow) = view.observer.runs.get(run) else {
                return Err(format!("the engine holds run {}, which is nowhere", run.1));
            };
            if let Some(difference) = difference(&shadow.state, held) {
                let id = &shadow.state.workflow_id;
                return Err(format!("{id} in memory is not its journal: {difference}"));
            }
        }
        let whole = |id: &&String| !view.observer.is_torn(id);
        if let Some(id) = view.ledger.quarantined.iter().find(whole) {
            return Err(format!(
                "{id} is out of service, and its journals are whole"
            ));
        }
        for run in &view.news.touched {
            let Some(shadow) = view.observer.runs.get(run) else {
                continue;
            };
            for (key, value) in shadow.index.values() {
                let Key::Snapshot { .. } = key else { continue };
                let Some(kept) = snapshot::decode(value) else {
                    return Err(format!("{key} does not decode"));
                };
                let behind = usize::try_from(kept.records).unwrap_or(usize::MAX);
                let Some(records) = shadow.records.get(..behind) else {
                    return Err(format!("{key} is ahead of its journal"));
                };
                let folded = fold(records).map_err(|e| e.to_string())?;
                if let Some(difference) = difference(&folded, &kept) {
                    return Err(format!("{key} is not the journal's: {difference}"));
                }
            }
        }
        Ok(())
    }
}
