//! Timers: when which run is due by itself. One entry a run: the earliest.
//!
//! In memory only what the index holds; a run's state says what fires.

use std::collections::BTreeSet;

use foldhash::HashMap;
use orchestrion_history::ids::{Namespace, RunId, Timestamp, WorkflowId};

use super::names::Names;

type Run = (Namespace, RunId);

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_due: BTreeSet<(Timestamp, RunId, Namespace)>,
    by_run: HashMap<Run, (Timestamp, WorkflowId)>,
    namespaces: Names<Namespace>,
}

impl Timers {
    /// The run's next instant; `None` removes it.
    pub(super) fn set(
        &mut self,
        namespace: &Namespace,
        run_id: RunId,
        workflow_id: &WorkflowId,
        due: Option<Timestamp>,
    ) {
        let namespace = self.namespaces.shared(namespace);
        let run = (namespace, run_id);
        if let Some((old, _)) = self.by_run.remove(&run) {
            self.by_due.remove(&(old, run_id, run.0.clone()));
        }
        if let Some(due) = due {
            self.by_due.insert((due, run_id, run.0.clone()));
            self.by_run.insert(run, (due, workflow_id.clone()));
        }
    }

    /// Whether the run is to do something yet by itself.
    pub(super) fn is_set(&self, namespace: &Namespace, run_id: RunId) -> bool {
        self.by_run.contains_key(&(namespace.clone(), run_id))
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.by_due.first().map(|(due, ..)| *due)
    }

    /// The runs due by `now`, earliest first, at most `max`. They stay until their state says otherwise.
    pub(super) fn due(&self, now: Timestamp, max: usize) -> Vec<(Namespace, WorkflowId, RunId)> {
        let due = self
            .by_due
            .iter()
            .take_while(|(due, ..)| *due <= now)
            .take(max);
        due.filter_map(|(_, run_id, namespace)| {
            let (_, workflow_id) = self.by_run.get(&(namespace.clone(), *run_id))?;
            Some((namespace.clone(), workflow_id.clone(), *run_id))
        })
        .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_due.len()
    }

    pub(super) fn clear(&mut self) {
        self.by_due.clear();
        self.by_run.clear();
    }
}
