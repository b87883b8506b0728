//! Each revert chosen is of the newest task that completed and is not yet undone, each task is undone at most once, and an orchestration that
//! failed ends only when nothing is left to undo.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion::orchestration::{LATE_RESULT_SIGNAL, REVERT_ID_PREFIX, WORKFLOW_TYPE};
use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use serde_json::Value;

use super::super::ledger::Run;
use super::{Check, Invariant, View};

/// What was done and undone in every orchestration.
#[derive(Default)]
pub(super) struct Undo(BTreeMap<Run, Done>);

#[derive(Default)]
struct Done {
    /// By scheduling event: the activity's id, and whether it can be undone.
    activities: BTreeMap<i64, (String, bool)>,
    revertible: BTreeSet<String>,
    /// Completed and not yet undone, oldest first; those that one turn saw count in the plan's order.
    done: Vec<(u32, usize, String)>,
    turns: u32,
    chosen: BTreeSet<String>,
    undone: BTreeSet<i64>,
}

/// Tasks of the simulation are numbered in the plan's order.
fn place(task: &str) -> usize {
    let digits = task.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.parse().unwrap_or_default()
}

impl Done {
    fn completed(&mut self, task: &str) {
        let known = self.done.iter().any(|(_, _, other)| other == task);
        if self.revertible.contains(task) && !known && !self.chosen.contains(task) {
            self.done.push((self.turns, place(task), task.to_owned()));
        }
    }

    fn event(&mut self, id: i64, attributes: &A) -> Check {
        match attributes {
            A::WorkflowTaskCompletedEventAttributes(_) => self.turns += 1,
            A::ActivityTaskScheduledEventAttributes(a) => {
                let service = a.activity_type.as_ref().map_or("", |t| t.name.as_str());
                self.activities
                    .insert(id, (a.activity_id.clone(), service != "plain"));
                let Some(task) = a.activity_id.strip_prefix(REVERT_ID_PREFIX) else {
                    if service != "plain" && a.activity_id.starts_with("task") {
                        self.revertible.insert(a.activity_id.clone());
                    }
                    return Ok(());
                };
                self.done.sort();
                let newest = self.done.pop().map(|(_, _, task)| task);
                if newest.as_deref() != Some(task) {
                    return Err(format!("{task} is undone where {newest:?} is the newest"));
                }
                if !self.chosen.insert(task.to_owned()) {
                    return Err(format!("{task} is undone twice"));
                }
            }
            A::ActivityTaskCompletedEventAttributes(a) => {
                let Some((task, _)) = self.activities.get(&a.scheduled_event_id).cloned() else {
                    return Ok(());
                };
                if task.starts_with(REVERT_ID_PREFIX) && !self.undone.insert(a.scheduled_event_id) {
                    return Err(format!("{task} succeeds twice"));
                }
                self.completed(&task);
            }
            A::WorkflowExecutionSignaledEventAttributes(a)
                if a.signal_name == LATE_RESULT_SIGNAL =>
            {
                let input = a.input.as_ref().and_then(|input| input.payloads.first());
                let signal: Option<Value> =
                    input.and_then(|payload| serde_json::from_slice(&payload.data).ok());
                if let Some(task) = signal.as_ref().and_then(|signal| signal["task"].as_str()) {
                    self.completed(task);
                }
            }
            A::WorkflowExecutionFailedEventAttributes(_)
            | A::WorkflowExecutionCanceledEventAttributes(_) => {
                if let Some((_, _, task)) = self.done.last() {
                    return Err(format!("it ends as failed, and {task} is not undone"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Invariant for Undo {
    fn name(&self) -> &'static str {
        "undo"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, record) in &view.news.records {
            let state = &view.observer.runs[run].state;
            if state.workflow_type != WORKFLOW_TYPE {
                continue;
            }
            let Record::Event(event) = record else {
                continue;
            };
            let Some(attributes) = &event.attributes else {
                continue;
            };
            let done = self.0.entry(run.clone()).or_default();
            done.event(event.event_id, attributes)
                .map_err(|why| format!("{}: {why}", state.workflow_id))?;
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.0.clear();
    }
}
