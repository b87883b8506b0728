//! A recorded answer of the model is never asked for again, whatever became of the engine since.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion::orchestration::PLAN_ACTIVITY_ID;
use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;

use super::super::ledger::Run;
use super::{Check, Invariant, View};

/// Orchestrations whose planning is recorded.
#[derive(Default)]
pub(super) struct Plans {
    scheduled: BTreeMap<(Run, i64), String>,
    planned: BTreeSet<String>,
}

impl Invariant for Plans {
    fn name(&self) -> &'static str {
        "plans"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        if let Some(id) = view.asked.iter().find(|id| self.planned.contains(*id)) {
            return Err(format!(
                "the model was asked about {id}, whose plan is recorded"
            ));
        }
        for (run, record) in &view.news.records {
            let Record::Event(event) = record else {
                continue;
            };
            match &event.attributes {
                Some(A::ActivityTaskScheduledEventAttributes(a))
                    if a.activity_id == PLAN_ACTIVITY_ID =>
                {
                    let id = view.observer.runs[run].state.workflow_id.clone();
                    self.scheduled.insert((run.clone(), event.event_id), id);
                }
                Some(A::ActivityTaskCompletedEventAttributes(a)) => {
                    let planning = (run.clone(), a.scheduled_event_id);
                    if let Some(id) = self.scheduled.get(&planning) {
                        self.planned.insert(id.clone());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        *self = Self::default();
    }
}
