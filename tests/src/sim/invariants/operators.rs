//! What operators were granted of activities stands in the journal, or it was so already when they asked.

use std::collections::BTreeSet;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::record::Record;
use orchestrion_history::replay;
use orchestrion_history::request::ActivityChoice;
use orchestrion_history::state::{Activity, MutableState, Stage};
use orchestrion_proto::prost::Message as _;

use super::super::ledger::marks_in;
use super::super::operators::{Act, Operated};
use super::{Check, Invariant, View};

/// The marks that were found where they belong: they stay there.
#[derive(Default)]
pub(super) struct Operators {
    found: BTreeSet<String>,
}

fn is_meant(choice: &ActivityChoice, activity: &Activity) -> bool {
    match choice {
        ActivityChoice::Id(id) => activity.activity_id == *id,
        ActivityChoice::Type(name) => activity.activity_type == *name,
        ActivityChoice::All => true,
    }
}

/// Whether there was nothing to do.
fn was_so(state: &MutableState, operated: &Operated) -> bool {
    let open = state.activities.values();
    let open = open.filter(|activity| !matches!(activity.stage, Stage::Settled));
    let meant: Vec<&Activity> = open
        .filter(|activity| is_meant(&operated.choice, activity))
        .collect();
    let is_so = |activity: &&Activity| match operated.act {
        Act::Pause => activity.paused.is_some(),
        Act::Unpause => activity.paused.is_none(),
        Act::Restore => {
            let first = activity.original_options.get();
            first.is_none_or(|first| first == activity.options())
        }
        Act::Reset | Act::Change => false,
    };
    !meant.is_empty() && meant.iter().all(is_so)
}

/// Whether there is nothing left to do behind the last record that it left.
fn is_so_behind(records: &[Record], mark: &str, operated: &Operated) -> Result<bool, String> {
    if matches!(operated.act, Act::Reset | Act::Change) {
        return Ok(true);
    }
    let last = records.iter().rposition(|record| carries(record, mark));
    let state = replay::fold(&records[..last.map_or(0, |last| last + 1)]);
    Ok(was_so(&state.map_err(|e| e.to_string())?, operated))
}

fn carries(record: &Record, mark: &str) -> bool {
    let bytes = match record {
        Record::Event(event) => event.encode_to_vec(),
        Record::Note(note) => note.encode_to_vec(),
    };
    marks_in(&bytes).any(|other| other == mark)
}

/// Whether there was nothing to do at some moment between the question and its answer.
fn was_so_then(records: &[Record], operated: &Operated) -> Result<bool, String> {
    let mut state = MutableState::default();
    let mut last = Timestamp(0);
    for record in records {
        let next = last.max(Timestamp(record.at()));
        if last <= operated.told_at && next >= operated.asked_at && was_so(&state, operated) {
            return Ok(true);
        }
        let one = std::slice::from_ref(record);
        replay::fold_onto(&mut state, one).map_err(|e| e.to_string())?;
        last = next;
    }
    Ok(last <= operated.told_at && was_so(&state, operated))
}

impl Operators {
    fn is_done(&mut self, view: &View<'_>, mark: &str, operated: &Operated) -> Check {
        let (_, run_id) = &operated.run;
        let Some(shadow) = view.observer.runs.get(&operated.run) else {
            return Err(format!("{mark} was granted, and there is no run {run_id}"));
        };
        let id = &shadow.state.workflow_id;
        if shadow.damaged {
            return Ok(());
        }
        if shadow.marks.contains(mark) {
            if self.found.insert(mark.to_owned()) && !is_so_behind(&shadow.records, mark, operated)?
            {
                return Err(format!(
                    "{:?} of {:?} of {id} stands as {mark} in its journal, and is not so by it",
                    operated.act, operated.choice
                ));
            }
            return Ok(());
        }
        if self.found.contains(mark) {
            return Err(format!("{mark} stood in run {run_id} of {id} and is lost"));
        }
        match was_so_then(&shadow.records, operated) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "{:?} of {:?} was granted as {mark}, and run {run_id} of {id} knows nothing of it",
                operated.act, operated.choice
            )),
            Err(why) => Err(format!("{id}: {why}")),
        }
    }
}

impl Invariant for Operators {
    fn name(&self) -> &'static str {
        "operators"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for mark in view.told {
            if let Some(operated) = view.ledger.operated.get(mark) {
                self.is_done(view, mark, operated)?;
            }
        }
        Ok(())
    }

    fn of_everything(&mut self, view: &View<'_>) -> Check {
        let found = view.ledger.operated.iter();
        let found: Vec<_> = found
            .filter(|(mark, _)| self.found.contains(*mark))
            .collect();
        for (mark, operated) in found {
            self.is_done(view, mark, operated)?;
        }
        Ok(())
    }
}
