//! Tenants never mix: a run, and everything kept of it, is of the one tenant whose caller asked for it.

use std::collections::BTreeMap;

use orchestrion::orchestration::REVERT_WORKFLOW_TYPE;
use orchestrion_history::ids::{Namespace, RunId};

use super::super::observer::root;
use super::{Check, Invariant, View};

/// Whose each run is.
#[derive(Default)]
pub(super) struct Namespaces(BTreeMap<RunId, Namespace>);

impl Invariant for Namespaces {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for run in &view.news.touched {
            let owner = self.0.entry(run.1).or_insert_with(|| run.0.clone());
            if *owner != run.0 {
                return Err(format!("run {} is {owner}'s and {}'s", run.1, run.0));
            }
            let Some(shadow) = view.observer.runs.get(run) else {
                continue;
            };
            let id = &shadow.state.workflow_id;
            if shadow.state.workflow_type == REVERT_WORKFLOW_TYPE {
                continue; // `retries.rs` looks whose it is.
            }
            let wanted = view.ledger.executions.get(root(id));
            if !id.is_empty() && wanted.is_none_or(|wanted| wanted.namespace != run.0) {
                return Err(format!("{id} runs for {}, who did not ask for it", run.0));
            }
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.0.clear();
    }
}
