//! How long a plan may take, judged by how long its services took in runs that have ended.
//!
//! Nothing of it is stored: the durations are gathered from the journals of the newest completed runs when somebody asks, and kept
//! in memory. After a restart the first question gathers them anew.
//!
//! Invariant: no commit pays for an estimate, and one question reads a bounded number of journals.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orchestrion_history::ids::{Namespace, RunId, WorkflowId};
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;

use crate::engine::handle::{CallError, Handle, Run, Target};
use crate::orchestration::{REVERT_TYPE_SUFFIX, WORKFLOW_TYPE};
use crate::plan::Plan;

/// The newest runs that are looked at.
const RUNS_LISTED: usize = 64;
/// Journals that one question reads.
const JOURNALS_MAX: usize = 16;
/// Events of a journal that is read for this; longer ones say little more.
const HISTORY_EVENTS_MAX: i64 = 2_000;
/// Durations kept of a service: the newest.
const SAMPLES_MAX: usize = 32;
/// Runs remembered as read.
const RUNS_REMEMBERED: usize = 256;
/// Projects that are remembered.
const PROJECTS_MAX: usize = 1_000;

/// How long services took.
#[derive(Default)]
pub struct Durations(Mutex<HashMap<Namespace, Known>>);

#[derive(Default)]
struct Known {
    /// By service, oldest first.
    samples: HashMap<String, VecDeque<Duration>>,
    read: HashSet<RunId>,
    /// The same, oldest first.
    order: VecDeque<RunId>,
}

impl Durations {
    /// How long the plan may take: the longest way through it. `None` where a service on it has not completed anything yet.
    pub fn estimate(
        &self,
        handle: &Handle,
        project: &Namespace,
        plan: &Plan,
    ) -> Result<Option<Duration>, CallError> {
        let fresh = self.unread(handle, project)?;
        let mut journals = Vec::with_capacity(fresh.len());
        for target in fresh {
            if let Some(run) = handle.journal(&target)? {
                journals.push(run);
            }
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PROJECTS_MAX && !known.contains_key(project) {
            known.clear();
        }
        let known = known.entry(project.clone()).or_default();
        // Oldest first, so that the newest stay.
        for run in journals.iter().rev() {
            known.learn(run);
        }
        Ok(known.longest_way(plan))
    }

    /// Completed runs whose journals were not read, newest first.
    fn unread(&self, handle: &Handle, project: &Namespace) -> Result<Vec<Target>, CallError> {
        let listed = handle.list(project, RUNS_LISTED)?;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(project);
        let fresh = listed.iter().filter_map(|line| {
            let run_id = RunId(<[u8; 16]>::try_from(&line.run_id[..]).ok()?);
            let wanted = line.workflow_type == WORKFLOW_TYPE
                && line.status == WorkflowExecutionStatus::Completed as i32
                && line.history_length <= HISTORY_EVENTS_MAX
                && known.is_none_or(|known| !known.read.contains(&run_id));
            let workflow_id = WorkflowId::parse(&line.workflow_id).ok()?;
            wanted.then(|| Target {
                namespace: project.clone(),
                workflow_id,
                run_id: Some(run_id),
            })
        });
        Ok(fresh.take(JOURNALS_MAX).collect())
    }
}

impl Known {
    fn learn(&mut self, run: &Run) {
        if !self.read.insert(run.run_id) {
            return;
        }
        self.order.push_back(run.run_id);
        if self.order.len() > RUNS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.read.remove(&oldest);
        }
        for (service, duration) in durations(run) {
            let samples = self.samples.entry(service).or_default();
            samples.push_back(duration);
            if samples.len() > SAMPLES_MAX {
                samples.pop_front();
            }
        }
    }

    fn median(&self, service: &str) -> Option<Duration> {
        let mut samples: Vec<Duration> = self.samples.get(service)?.iter().copied().collect();
        samples.sort_unstable();
        samples.get(samples.len() / 2).copied()
    }

    fn longest_way(&self, plan: &Plan) -> Option<Duration> {
        let mut done: HashMap<&str, Duration> = HashMap::with_capacity(plan.tasks.len());
        for group in &plan.parallel_groups {
            for id in group {
                let task = plan.tasks.iter().find(|task| task.id == *id)?;
                let begins = task
                    .depends_on
                    .iter()
                    .map(|before| done.get(before.as_str()).copied())
                    .try_fold(Duration::ZERO, |latest, end| Some(latest.max(end?)))?;
                done.insert(&task.id, begins + self.median(&task.service)?);
            }
        }
        done.values().copied().max()
    }
}

/// The durations of a run's tasks by service: from scheduling to completion, waits and retries included, as a caller lives through them.
fn durations(run: &Run) -> Vec<(String, Duration)> {
    let mut scheduled: HashMap<i64, (String, i64)> = HashMap::new();
    let mut found = Vec::new();
    for record in &run.records {
        let Some(event) = record.event() else {
            continue;
        };
        match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(a)) => {
                let kind = a.activity_type.as_ref().map_or("", |kind| &kind.name);
                let queue = a.task_queue.as_ref().map_or("", |queue| &queue.name);
                if !kind.ends_with(REVERT_TYPE_SUFFIX) {
                    scheduled.insert(event.event_id, (queue.to_owned(), record.at()));
                }
            }
            Some(Attributes::ActivityTaskCompletedEventAttributes(a)) => {
                if let Some((service, from)) = scheduled.remove(&a.scheduled_event_id) {
                    let nanos = u64::try_from(record.at() - from).unwrap_or(0);
                    found.push((service, Duration::from_nanos(nanos)));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::plan::PlanTask;

    fn task(id: &str, service: &str, depends_on: &[&str]) -> PlanTask {
        PlanTask {
            id: id.into(),
            service: service.into(),
            service_name: service.into(),
            revertible: false,
            input: Map::new(),
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    fn plan(tasks: Vec<PlanTask>, groups: &[&[&str]]) -> Plan {
        Plan {
            task_zero: Map::new(),
            tasks,
            parallel_groups: groups
                .iter()
                .map(|group| group.iter().map(|id| (*id).to_owned()).collect())
                .collect(),
        }
    }

    fn known(samples: &[(&str, &[u64])]) -> Known {
        Known {
            samples: samples
                .iter()
                .map(|(service, ms)| {
                    let samples = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
                    ((*service).to_owned(), samples)
                })
                .collect(),
            ..Known::default()
        }
    }

    #[test]
    fn the_longest_way_counts_and_outliers_do_not() {
        let known = known(&[("a", &[10, 10, 9_000]), ("b", &[100]), ("c", &[5])]);
        let plan = plan(
            vec![
                task("t1", "a", &[]),
                task("t2", "b", &[]),
                task("t3", "c", &["t1", "t2"]),
            ],
            &[&["t1", "t2"], &["t3"]],
        );
        assert_eq!(known.longest_way(&plan), Some(Duration::from_millis(105)));
    }

    #[test]
    fn a_service_nobody_has_seen_at_work_leaves_it_open() {
        let plan = plan(vec![task("t1", "new", &[])], &[&["t1"]]);
        assert_eq!(known(&[]).longest_way(&plan), None);
    }
}
