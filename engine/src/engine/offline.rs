//! Services that are not connected: their tasks wait, are shown as waiting, and fail once the grace period is over.
//!
//! The period counts the time nobody served the queue, not the time behind other tasks. Reverts have none: they wait until
//! their time to live ends.

use std::time::Duration;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::request::{ActivityRef, FailActivity, MarkActivityWaiting, Request};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};

use super::core::Core;
use super::handle::Target;
use super::matching::{QueueKey, Waiting};
use super::round::{Inner, Round};

/// How often queues without workers are looked at, while there are any.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// Tasks looked at in one check; the others come with the next.
const LOOKS_MAX: usize = 512;

impl Core {
    pub(super) fn check_offline(&mut self, round: &mut Round) {
        if !self.matching.has_absent() {
            self.next_offline_check = None;
            return;
        }
        if self.next_offline_check.is_some_and(|at| at > round.now) {
            return;
        }
        self.next_offline_check = Some(round.now.plus(CHECK_EVERY));

        let mut found = Vec::new();
        for (queue, since, waiting) in self.matching.absent(round.now) {
            if queue.namespace.is_none() {
                continue; // The engine's own workers come with the engine.
            }
            let due = waiting.filter(|task| task.look_at <= round.now);
            found.extend(due.map(|task| (queue.clone(), task.clone(), since.max(task.at))));
            if found.len() >= LOOKS_MAX {
                break;
            }
        }
        found.truncate(LOOKS_MAX);
        for (queue, task, since) in found {
            self.look(round, &queue, &task, since);
        }
    }

    /// One task without a worker since `since`: shown as waiting, failed when its grace is over, looked at again when either is due.
    fn look(&mut self, round: &mut Round, queue: &QueueKey, task: &Waiting, since: Timestamp) {
        let target = Target {
            namespace: task.namespace.clone(),
            workflow_id: task.workflow_id.clone(),
            run_id: Some(task.run_id),
        };
        let Some(grace) = self.grace(&target, task.event_id) else {
            // Workflow code has time-outs of its own for that.
            return self
                .matching
                .looked(queue, task, false, Timestamp(i64::MAX));
        };
        let absent = round.now.since(since);
        let over = grace.is_some_and(|grace| absent >= grace);
        let mark = (over || absent >= self.options.waiting_mark) && !task.marked;
        let first = grace.map_or(self.options.waiting_mark, |grace| {
            grace.min(self.options.waiting_mark)
        });
        let look_at = match (task.marked || mark, grace) {
            (false, _) => since.plus(first),
            (true, Some(grace)) => since.plus(grace),
            (true, None) => Timestamp(i64::MAX),
        };
        self.matching.looked(queue, task, mark, look_at);
        let ask = |request| Inner {
            namespace: task.namespace.clone(),
            workflow_id: task.workflow_id.clone(),
            run_id: task.run_id,
            request,
        };
        if mark {
            round
                .inner
                .push_back(ask(Request::MarkActivityWaiting(MarkActivityWaiting {
                    scheduled_event_id: task.event_id,
                    attempt: task.attempt,
                    reason: "no worker of the service is connected".to_owned(),
                })));
        }
        if over {
            round
                .inner
                .push_back(ask(Request::FailActivity(Box::new(FailActivity {
                    activity: ActivityRef::Scheduled(task.event_id),
                    failure: offline_failure(grace.unwrap_or_default()),
                    identity: "orchestrion".to_owned(),
                    last_heartbeat: None,
                }))));
        }
    }

    /// How long this attempt of a built-in run may wait without any worker; the inner `None` is for ever.
    fn grace(&mut self, target: &Target, event_id: i64) -> Option<Option<Duration>> {
        let Ok(run) = self.find(target) else {
            return Some(None); // It cannot be read now: it is looked at again later.
        };
        let execution = self.executions.get(&run)?;
        let interpreter = execution.interpreter.as_ref()?;
        let activity = execution.state.activities.get(&event_id)?;
        let reverts = activity
            .activity_id
            .starts_with(crate::orchestration::REVERT_ID_PREFIX);
        Some((!reverts).then(|| Duration::from_millis(interpreter.options().grace_ms)))
    }

    pub(super) fn offline_check_from(&mut self, now: Timestamp) {
        if self.next_offline_check.is_none() && self.matching.has_absent() {
            self.next_offline_check = Some(now);
        }
    }
}

fn offline_failure(grace: Duration) -> Failure {
    Failure {
        message: format!(
            "service remained unhealthy while exceeding maximum duration of {grace:?}"
        ),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(
            ApplicationFailureInfo {
                r#type: "ServiceOffline".to_owned(),
                non_retryable: true,
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}
