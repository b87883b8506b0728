//! A revert that was asked for again is run, once at a time, until it is undone, and what its record says of it is what its execution says.

use std::collections::BTreeMap;

use orchestrion::orchestration::REVERT_WORKFLOW_TYPE;
use orchestrion::orchestration::revert::Ended;
use orchestrion_history::ids::Namespace;
use orchestrion_proto::v1::{CompensationFailure, RevertRetry};

use super::super::observer::Shadow;
use super::{Check, Invariant, View};

/// The records as they were.
#[derive(Default)]
pub(super) struct Retries(BTreeMap<(Namespace, String), CompensationFailure>);

fn execution<'a>(view: &View<'a>, of: &Namespace, retry: &RevertRetry) -> Option<&'a Shadow> {
    let mut runs = view.observer.runs.iter();
    let own = |shadow: &Shadow| shadow.state.workflow_id == retry.workflow_id;
    runs.find(|((namespace, _), shadow)| namespace == of && own(shadow))
        .map(|(_, shadow)| shadow)
}

/// What a retry says it came to is what its execution came to.
fn is_told(view: &View<'_>, of: &Namespace, retry: &RevertRetry) -> Check {
    let shadow = execution(view, of, retry);
    if retry.ended_at == 0 || shadow.is_some_and(|shadow| shadow.damaged) {
        return Ok(());
    }
    let came = shadow.and_then(|shadow| Ended::of(&shadow.records));
    let same = came.as_ref().map(|came| &came.status) == Some(&retry.status);
    // It could not be read any more, or not be started.
    let unknown = retry.status == "unknown" || (shadow.is_none() && retry.status == "failed");
    match same || unknown {
        true => Ok(()),
        false => Err(format!(
            "{} is said to be {}, and came to {came:?}",
            retry.workflow_id, retry.status
        )),
    }
}

fn goes_on(before: Option<&CompensationFailure>, now: &CompensationFailure) -> Check {
    let open = now.retries.iter().filter(|retry| retry.ended_at == 0);
    if open.count() > 1 {
        return Err(format!("{} is undone twice at once", now.id));
    }
    let done = |retry: &&RevertRetry| matches!(retry.status.as_str(), "completed" | "partial");
    if now.retries.iter().filter(done).count() > 1 {
        return Err(format!("{} was undone twice", now.id));
    }
    let Some(before) = before else {
        return Ok(());
    };
    for (n, known) in before.retries.iter().enumerate() {
        let kept = now.retries.get(n);
        let same = kept.is_some_and(|kept| {
            kept.workflow_id == known.workflow_id && (known.ended_at == 0 || kept == known)
        });
        if !same {
            return Err(format!("{known:?} of {} is {kept:?} now", now.id));
        }
    }
    Ok(())
}

impl Invariant for Retries {
    fn name(&self) -> &'static str {
        "retries"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for id in &view.news.compensations {
            let record = &view.observer.compensations[id];
            goes_on(self.0.get(id), record)?;
            record
                .retries
                .iter()
                .try_for_each(|retry| is_told(view, &id.0, retry))?;
            self.0.insert(id.clone(), record.clone());
        }
        for run in &view.news.touched {
            let Some(shadow) = view.observer.runs.get(run) else {
                continue;
            };
            let id = &shadow.state.workflow_id;
            let mut records = view.observer.compensations.iter();
            let wanted = records.any(|((of, _), record)| {
                *of == run.0 && record.retries.iter().any(|retry| retry.workflow_id == *id)
            });
            if shadow.state.workflow_type == REVERT_WORKFLOW_TYPE && !wanted {
                return Err(format!("{id} runs, and no record asks for it"));
            }
        }
        Ok(())
    }

    fn of_everything(&mut self, view: &View<'_>) -> Check {
        for (namespace, id, execution) in &view.ledger.retries {
            let record = view
                .observer
                .compensations
                .get(&(namespace.clone(), id.clone()));
            let kept = record.is_some_and(|record| {
                let mut retries = record.retries.iter();
                retries.any(|retry| retry.workflow_id == *execution)
            });
            if !kept {
                return Err(format!(
                    "{id} was to be undone again by {execution}, which is lost"
                ));
            }
        }
        Ok(())
    }

    fn at_the_end(&mut self, view: &View<'_>) -> Check {
        match view.observer.open_retries().next() {
            Some((record, open)) => {
                Err(format!("{} of {} never ends", open.workflow_id, record.id))
            }
            None => Ok(()),
        }
    }

    fn begin_again(&mut self) {
        self.0.clear();
    }
}
