//! The undoing of a run whose plan came to a bad end.
//!
//! ```text
//!  task Pending                             --turn--> RequestCancelActivityTask, once; its close is waited for
//!  task Unknown, revertible                 --turn--> StartTimer; its late result is waited for
//!  task Completed while such a timer runs   --turn--> CancelTimer
//!  nothing pending, nothing being reverted  --turn--> the newest completed task with compensation data:
//!       its time is over                                  expired
//!       else ScheduleActivityTask revert:<task>
//!            --ActivityTaskCompleted------------------->  completed | partial | failed | expired, as it says
//!            --ActivityTaskFailed---------------------->  failed; expired when its time left no further attempt
//!            --ActivityTaskTimedOut start to close----->  unknown
//!            --ActivityTaskTimedOut schedule to close-->  expired
//!  nothing left                             --turn--> the run closes; what never answered is recorded as unknown
//!  cancelled without compensation           --turn--> cancel requests as above; their closes are waited for, and that is all
//! ```
//!
//! Invariant: reverts run one at a time, always the newest completed and not yet reverted task; one that fails stops no other.
//! Invariant: nothing new of the plan is scheduled once the undoing has begun.

use std::collections::HashMap;

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::common::v1::{Header, Payloads};
use orchestrion_proto::v1::CompensationFailure;
use serde_json::{Value, json};

use super::tasks::{Run, Stage};
use super::{
    Closed, DOUBLING, Draft, Effect, FinalStatus, Interpreter, MemoFields, Node, Phase,
    StatusChange, commands,
};
use crate::orchestration::effect::rfc3339;
use crate::orchestration::outcome::{
    Compensation, CompensationSummary, RevertOutcome, RevertStatus,
};
use crate::orchestration::submission::{Options, Rules, json_payload, raw_json_payload};
use crate::orchestration::{
    COMPENSATION_HEADER, LATE_TIMER_PREFIX, REVERT_ID_PREFIX, REVERT_TYPE_SUFFIX,
};
use crate::registry::ids::derived;

/// What ended a plan before its tasks were all complete.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incident {
    /// A task failed for good, or nobody knows what became of it.
    Failed { task: usize, text: String },
    /// A service asked for the end.
    Aborted { task: usize, payload: Value },
    /// Somebody outside asked for the end.
    Canceled { payload: Value },
}

/// Whether a task's late result is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LateWait {
    #[default]
    None,
    Waiting,
    Over,
}

impl Incident {
    /// `cancelled` is what callers are told of a cancel.
    fn status(&self, cancelled: FinalStatus) -> FinalStatus {
        match self {
            Self::Failed { .. } => FinalStatus::Failed,
            Self::Aborted { .. } => FinalStatus::Aborted,
            Self::Canceled { .. } => cancelled,
        }
    }

    /// Why a revert is asked for, as services know it: a cancel is an abort from outside.
    fn reason(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "failed",
            Self::Aborted { .. } | Self::Canceled { .. } => "aborted",
        }
    }

    fn task(&self) -> Option<usize> {
        match self {
            Self::Failed { task, .. } | Self::Aborted { task, .. } => Some(*task),
            Self::Canceled { .. } => None,
        }
    }
}

impl Run {
    pub(super) fn give_up_waiting(&mut self, task: usize) {
        self.tasks[task].late_wait = LateWait::Over;
    }

    pub(super) fn close_revert(&mut self, task: usize, closed: &Closed<'_>) {
        let outcome = match *closed {
            Closed::Completed(result) => RevertOutcome::of_result(result),
            Closed::Failed(failure, retry_state) => RevertOutcome::of_failure(failure, retry_state),
            Closed::TimedOut(failure, _) => RevertOutcome::of_timeout(failure),
            Closed::Canceled => {
                RevertOutcome::new(RevertStatus::Failed, "the revert was canceled".to_owned())
            }
        };
        self.reverting = None;
        self.end_revert(task, outcome);
    }

    fn end_revert(&mut self, task: usize, outcome: RevertOutcome) {
        if outcome.status.needs_attention() {
            self.unreported.push(task);
        }
        self.tasks[task].revert = Some(outcome);
    }

    /// The newest task that has something to undo and is not undone.
    fn newest_to_revert(&self) -> Option<(usize, &Compensation)> {
        if !self.compensate {
            return None;
        }
        self.order.iter().rev().find_map(|&task| {
            let compensation = self.tasks[task].compensation.as_ref();
            let wanted = self.planned(task).revertible && self.tasks[task].revert.is_none();
            compensation
                .filter(|_| wanted)
                .map(|compensation| (task, compensation))
        })
    }

    /// Schedules the next revert; those whose time is over end here.
    fn next_revert(&mut self, options: &Options, now: Timestamp) -> Option<(super::Command, Node)> {
        while let Some((task, compensation)) = self.newest_to_revert() {
            let left_ms = self.time_left_ms(task, compensation, now);
            if left_ms > 0 {
                let command = self.revert(task, compensation, left_ms, options);
                self.reverting = Some(task);
                return Some((command, Node::Revert(task)));
            }
            let text = format!("its time to live of {} ms is over", compensation.ttl_ms);
            self.end_revert(task, RevertOutcome::new(RevertStatus::Expired, text));
        }
        None
    }

    /// Rounded up to whole milliseconds; 0 when it is over.
    fn time_left_ms(&self, task: usize, compensation: &Compensation, now: Timestamp) -> u64 {
        let ttl_ns = i128::from(compensation.ttl_ms.min(Options::TIME_MS_MAX)) * 1_000_000;
        let left_ns = i128::from(self.tasks[task].closed_at.0) + ttl_ns - i128::from(now.0);
        u64::try_from((left_ns + 999_999).div_euclid(1_000_000)).unwrap_or(0)
    }

    fn revert(
        &self,
        task: usize,
        compensation: &Compensation,
        left_ms: u64,
        o: &Options,
    ) -> super::Command {
        let planned = self.planned(task);
        let context = raw_json_payload(self.context.clone().into_bytes());
        commands::schedule(commands::Activity {
            id: format!("{REVERT_ID_PREFIX}{}", planned.id),
            kind: format!("{}{REVERT_TYPE_SUFFIX}", planned.service_name),
            queue: planned.service.clone(),
            input: Some(Payloads {
                payloads: vec![raw_json_payload(compensation.data.clone())],
            }),
            header: Some(Header {
                fields: HashMap::from([(COMPENSATION_HEADER.to_owned(), context)]),
            }),
            start_to_close_ms: o.compensation_timeout_ms,
            schedule_to_close_ms: Some(left_ms),
            retry: commands::retry(
                o.compensation_attempts,
                o.compensation_initial_ms,
                DOUBLING,
                o.compensation_max_ms,
                &[],
            ),
        })
    }

    /// Cancel requests for what is pending, in plan order.
    fn cancel_pending(&mut self, draft: &mut Draft) {
        for task in self
            .tasks
            .iter_mut()
            .filter(|task| task.stage == Stage::Pending && !task.cancel_requested)
        {
            task.cancel_requested = true;
            draft.push(commands::request_cancel(task.scheduled_event_id));
        }
    }

    /// Timers for late results, in plan order.
    fn await_late_results(
        &mut self,
        options: &Options,
        rules: Rules,
        now: Timestamp,
        draft: &mut Draft,
    ) {
        for (at, task) in self.tasks.iter_mut().enumerate() {
            let planned = &self.plan.tasks[at];
            match (task.stage, task.late_wait) {
                (Stage::Unknown, LateWait::None) if planned.revertible && self.compensate => {
                    let waited_ms =
                        u64::try_from(now.since(task.closed_at).as_millis()).unwrap_or(u64::MAX);
                    // A timer even for a wait that is over: which commands a run gives should not hang on milliseconds.
                    let left_ms = options.late_result_wait().saturating_sub(waited_ms).max(1);
                    self.timers += 1;
                    task.late_timer = if rules.number_timers() {
                        self.timers.to_string()
                    } else {
                        format!("{LATE_TIMER_PREFIX}{}", planned.id)
                    };
                    draft.push_node(
                        commands::start_timer(task.late_timer.clone(), left_ms),
                        Node::LateResult(at),
                    );
                    task.late_wait = LateWait::Waiting;
                }
                (Stage::Completed, LateWait::Waiting) => {
                    draft.push(commands::cancel_timer(task.late_timer.clone()));
                    task.late_wait = LateWait::Over;
                }
                _ => {}
            }
        }
    }

    fn never_answered(&self) -> impl Iterator<Item = usize> {
        (0..self.tasks.len()).filter(|&task| {
            self.compensate
                && self.tasks[task].stage == Stage::Unknown
                && self.planned(task).revertible
        })
    }

    fn summarize(&self) -> CompensationSummary {
        let mut summary = CompensationSummary::default();
        if !self.compensate {
            return summary;
        }
        for (at, task) in self
            .tasks
            .iter()
            .enumerate()
            .filter(|(at, _)| self.planned(*at).revertible)
        {
            let outcome = match task.stage {
                Stage::Completed if task.compensation.is_some() => {
                    task.revert.as_ref().map(|revert| revert.status)
                }
                Stage::Unknown => {
                    (task.late_wait == LateWait::Over).then_some(RevertStatus::Unknown)
                }
                _ => continue,
            };
            debug_assert!(
                self.reverting != Some(at) || outcome.is_none(),
                "a task is reverted once"
            );
            summary.total += 1;
            summary.completed +=
                usize::from(outcome.is_some_and(|status| !status.needs_attention()));
            summary.failed += usize::from(outcome.is_some_and(RevertStatus::needs_attention));
        }
        summary.active = summary.completed + summary.failed < summary.total;
        summary
    }

    fn is_undone(&self) -> bool {
        let waiting = self
            .tasks
            .iter()
            .any(|task| task.late_wait == LateWait::Waiting);
        self.pending == 0 && self.reverting.is_none() && !waiting
    }
}

impl Interpreter {
    /// Callers learn the end at once; the run stays open until it is undone.
    pub(super) fn begin_undoing(
        &mut self,
        mut run: Box<Run>,
        mut memo: MemoFields,
        now: Timestamp,
        draft: &mut Draft,
    ) {
        let Some(incident) = run.incident.clone() else {
            return self.phase = Phase::Running(run);
        };
        let status = incident.status(self.cancelled());
        let reason = incident.reason();
        let mut change = StatusChange::new(&self.orchestration_id, status, now);
        change.webhook.clone_from(&self.webhook);
        let payload = self.incident_payload(&run, &incident);
        memo.insert("status".to_owned(), json_payload(change.status.as_str()));
        if let Some(task) = incident.task() {
            memo.insert("task".to_owned(), json_payload(&run.planned(task).id));
        }
        match incident {
            Incident::Failed { .. } => {
                memo.insert("error".to_owned(), json_payload(&payload));
                change.error = Some(payload.clone());
            }
            Incident::Aborted { .. } | Incident::Canceled { .. } => {
                memo.insert("abort".to_owned(), json_payload(&payload));
                change.abort_reason = Some(payload.clone()).filter(|payload| !payload.is_null());
            }
        }
        run.context = json!({
            "orchestrationId": self.orchestration_id,
            "reason": reason,
            "payload": object_or_null(payload),
            "timestamp": rfc3339(now),
        })
        .to_string();
        draft.effects.push(Effect::StatusChanged(change));
        self.decide_undoing(run, memo, now, draft);
    }

    pub(super) fn decide_undoing(
        &mut self,
        mut run: Box<Run>,
        mut memo: MemoFields,
        now: Timestamp,
        draft: &mut Draft,
    ) {
        let mut actions = Draft::default();
        run.settle_fresh();
        run.cancel_pending(&mut actions);
        run.await_late_results(&self.options, self.rules, now, &mut actions);
        if run.pending == 0 && run.reverting.is_none() {
            actions.commands.extend(
                run.next_revert(&self.options, now)
                    .map(|(command, node)| (command, Some(node))),
            );
        }
        for task in std::mem::take(&mut run.unreported) {
            actions.effects.push(Effect::CompensationFailed(
                self.failed_revert(&run, task, now),
            ));
        }
        let summary = run.summarize();
        if !memo.is_empty() || summary != run.summary {
            memo.insert("compensation".to_owned(), json_payload(&summary));
            run.summary = summary;
            draft.push(commands::upsert_memo(memo));
        }
        draft.commands.append(&mut actions.commands);
        draft.effects.append(&mut actions.effects);
        if run.is_undone() {
            self.end_undone(&run, now, draft);
        } else {
            self.phase = Phase::Undoing(run);
        }
    }

    fn end_undone(&mut self, run: &Run, now: Timestamp, draft: &mut Draft) {
        for task in run.never_answered() {
            draft
                .effects
                .push(Effect::CompensationFailed(self.lost_task(run, task, now)));
        }
        let Some(incident) = &run.incident else {
            return;
        };
        let payload = self.incident_payload(run, incident);
        draft.push(match incident {
            Incident::Failed { task, text } => {
                let details = json!({"error": payload, "compensation": run.summary});
                commands::fail(
                    "TaskFailed",
                    format!("task {} failed: {text}", run.planned(*task).id),
                    Some(&details),
                )
            }
            Incident::Aborted { task, .. } => {
                let details = json!({"abort": payload, "compensation": run.summary});
                let message = format!("task {} aborted the orchestration", run.planned(*task).id);
                commands::fail("TaskAborted", message, Some(&details))
            }
            Incident::Canceled { .. } => {
                commands::cancel(&json!({"abort": payload, "compensation": run.summary}))
            }
        });
        self.phase = Phase::Closed;
    }

    /// As callers read it: `{id,producer,error}` of a failure, the payload of an abort.
    fn incident_payload(&self, run: &Run, incident: &Incident) -> Value {
        match incident {
            Incident::Aborted { payload, .. } | Incident::Canceled { payload } => payload.clone(),
            Incident::Failed { task, text } => {
                let planned = run.planned(*task);
                let short = derived(
                    "task failure",
                    &[self.run_id.as_bytes(), planned.id.as_bytes()],
                );
                json!({"id": format!("task_fail_{}_{short}", planned.id), "producer": planned.service, "error": text})
            }
        }
    }

    fn failed_revert(&self, run: &Run, task: usize, now: Timestamp) -> CompensationFailure {
        let done = &run.tasks[task];
        let (data, ttl_ms) = done
            .compensation
            .as_ref()
            .map_or((&b"null"[..], 0), |c| (&c.data[..], c.ttl_ms));
        let outcome = done.revert.as_ref();
        CompensationFailure {
            data_json: String::from_utf8_lossy(data).into_owned(),
            ttl_ms: i64::try_from(ttl_ms).unwrap_or(i64::MAX),
            status: outcome
                .map_or(RevertStatus::Failed, |outcome| outcome.status)
                .to_string(),
            failure: outcome
                .and_then(|outcome| outcome.error.clone())
                .unwrap_or_default(),
            attempts_made: done.revert_attempts,
            max_attempts: attempts(self.options.compensation_attempts),
            ..self.record(run, task, now)
        }
    }

    /// A task of which nobody knows whether there is something to undo.
    fn lost_task(&self, run: &Run, task: usize, now: Timestamp) -> CompensationFailure {
        CompensationFailure {
            data_json: "null".to_owned(),
            status: RevertStatus::Unknown.to_string(),
            failure: "the task timed out and never answered: whether it was done is unknown"
                .to_owned(),
            attempts_made: run.tasks[task].attempts,
            max_attempts: attempts(self.options.task_attempts),
            ..self.record(run, task, now)
        }
    }

    fn record(&self, run: &Run, task: usize, now: Timestamp) -> CompensationFailure {
        let planned = run.planned(task);
        CompensationFailure {
            id: format!(
                "c_{}",
                derived(
                    "compensation",
                    &[self.run_id.as_bytes(), planned.id.as_bytes()]
                )
            ),
            orchestration_id: self.orchestration_id.clone(),
            task_id: planned.id.clone(),
            service_id: planned.service.clone(),
            service_name: planned.service_name.clone(),
            context_json: run.context.clone(),
            at: now.0,
            resolution_state: "pending".to_owned(),
            ..Default::default()
        }
    }
}

fn attempts(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Revert handlers are given an object or null.
fn object_or_null(payload: Value) -> Value {
    match payload {
        Value::Object(_) | Value::Null => payload,
        other => json!({"value": other}),
    }
}
