//! A plan names services of its own tenant only, as they are described when it is planned; one that was made before was kept for this very
//! tenant, and nobody had been told before the planning that it is forgotten.

use std::collections::BTreeMap;

use orchestrion::orchestration::PLAN_ACTIVITY_ID;
use orchestrion::orchestration::submission::{PlanSource, PlanningResult};
use orchestrion_history::ids::{Namespace, Timestamp};
use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::v1::note::Kind;
use serde_json::Value;

use super::super::ledger::Run;
use super::super::life::version_of;
use super::super::observer::Shadow;
use super::super::planners::DESCRIBED;
use super::{Check, Invariant, View};

/// Plannings under way, and plans that were kept.
#[derive(Default)]
pub(super) struct Cached {
    /// When the last attempt of a planning started, by its scheduling event.
    plannings: BTreeMap<(Run, i64), Timestamp>,
    /// By tenant and id, since when. What a power cut takes back was there.
    kept: BTreeMap<(Namespace, String), Timestamp>,
}

fn planned(attributes: &A) -> Option<(i64, PlanningResult)> {
    let A::ActivityTaskCompletedEventAttributes(done) = attributes else {
        return None;
    };
    let payload = done.result.as_ref()?.payloads.first()?;
    let result = serde_json::from_slice(&payload.data).ok()?;
    Some((done.scheduled_event_id, result))
}

/// Whether a run's plan was made before.
pub fn is_cached(shadow: &Shadow) -> bool {
    let events = shadow.records.iter().filter_map(Record::event);
    let attributes = events.filter_map(|event| event.attributes.as_ref());
    let mut plans = attributes.filter_map(planned);
    plans.any(|(_, result)| result.source == PlanSource::Cache)
}

impl Cached {
    fn is_of_its_tenant(
        &self,
        view: &View<'_>,
        namespace: &Namespace,
        result: &PlanningResult,
        began: Timestamp,
    ) -> Check {
        if result.source == PlanSource::Cache {
            let id = &result.cached_plan;
            let Some(kept) = self.kept.get(&(namespace.clone(), id.clone())) else {
                return Err(format!("plan {id} was never kept for {namespace}"));
            };
            let forgotten = view.ledger.forgotten.iter();
            let mut forgotten = forgotten.filter(|(of, ..)| of == namespace);
            if forgotten.any(|(_, asked, told)| kept < asked && *told < began) {
                return Err(format!("plan {id} was forgotten, and serves"));
            }
        }
        for task in result.plan.iter().flat_map(|plan| &plan.tasks) {
            let described = task.input.get(DESCRIBED).and_then(Value::as_str);
            let Some(version) = described.and_then(version_of) else {
                continue;
            };
            let service = (namespace.clone(), task.service.clone());
            let told = view.ledger.described.get(&service).into_iter().flatten();
            let mut newer = told.filter(|(other, told)| *other > version && *told < began);
            if let Some((newer, _)) = newer.next() {
                return Err(format!(
                    "{} is planned as version {version} of {}, which was described as version {newer} by then ({:?})",
                    task.id, task.service, result.source
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for Cached {
    fn name(&self) -> &'static str {
        "cached"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for plan in &view.observer.plans {
            if !self.kept.contains_key(plan) {
                self.kept.insert(plan.clone(), view.now);
            }
        }
        for (run, record) in &view.news.records {
            match record {
                Record::Event(event) => match &event.attributes {
                    Some(A::ActivityTaskScheduledEventAttributes(a))
                        if a.activity_id == PLAN_ACTIVITY_ID =>
                    {
                        let planning = (run.clone(), event.event_id);
                        self.plannings.insert(planning, view.now);
                    }
                    Some(attributes) => {
                        let Some((event_id, result)) = planned(attributes) else {
                            continue;
                        };
                        let Some(began) = self.plannings.remove(&(run.clone(), event_id)) else {
                            continue;
                        };
                        let id = &view.observer.runs[run].state.workflow_id;
                        self.is_of_its_tenant(view, &run.0, &result, began)
                            .map_err(|why| format!("{id}: {why}"))?;
                    }
                    None => {}
                },
                Record::Note(note) => {
                    if let Some(Kind::ActivityAttemptStarted(started)) = &note.kind {
                        let planning = (run.clone(), started.scheduled_event_id);
                        if let Some(began) = self.plannings.get_mut(&planning) {
                            *began = Timestamp(note.at);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.plannings.clear();
    }
}
