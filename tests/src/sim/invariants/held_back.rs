//! What is paused is handed out to nobody: no attempt of a paused activity or run starts, and no workflow task of a paused run is scheduled,
//! started or completed. Those who get tasks complain when theirs was handed out after an operator was told of the pause.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::v1::note::Kind;

use super::super::ledger::Run;
use super::{Check, Invariant, View};

/// What is paused, as journals say.
#[derive(Default)]
pub(super) struct HeldBack(BTreeMap<Run, Paused>);

#[derive(Default)]
struct Paused {
    run: bool,
    /// By scheduling event.
    activities: BTreeSet<i64>,
}

impl Paused {
    fn event(&mut self, id: i64, attributes: &A) -> Check {
        match attributes {
            A::WorkflowExecutionPausedEventAttributes(_) => self.run = true,
            A::WorkflowExecutionUnpausedEventAttributes(_) => self.run = false,
            A::WorkflowTaskScheduledEventAttributes(_)
            | A::WorkflowTaskStartedEventAttributes(_)
            | A::WorkflowTaskCompletedEventAttributes(_)
                if self.run =>
            {
                return Err(format!(
                    "the run is paused, and event {id} is of a workflow task"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&mut self, kind: &Kind) -> Check {
        match kind {
            Kind::ActivityPaused(n) => _ = self.activities.insert(n.scheduled_event_id),
            Kind::ActivityUnpaused(n) => _ = self.activities.remove(&n.scheduled_event_id),
            Kind::ActivityReset(n) if !n.keep_paused => {
                self.activities.remove(&n.scheduled_event_id);
            }
            Kind::WorkflowTaskRetried(_) if self.run => {
                return Err("the run is paused, and a workflow task is tried again".to_owned());
            }
            Kind::ActivityAttemptStarted(n)
                if self.run || self.activities.contains(&n.scheduled_event_id) =>
            {
                return Err(format!(
                    "attempt {} of event {} starts while it is paused",
                    n.attempt, n.scheduled_event_id
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Invariant for HeldBack {
    fn name(&self) -> &'static str {
        "held_back"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, record) in &view.news.records {
            let paused = self.0.entry(run.clone()).or_default();
            let held = match record {
                Record::Event(event) => event.attributes.as_ref().map_or(Ok(()), |attributes| {
                    paused.event(event.event_id, attributes)
                }),
                Record::Note(note) => note.kind.as_ref().map_or(Ok(()), |kind| paused.note(kind)),
            };
            held.map_err(|why| {
                let id = &view.observer.runs[run].state.workflow_id;
                format!("{id}: {why}")
            })?;
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.0.clear();
    }
}
