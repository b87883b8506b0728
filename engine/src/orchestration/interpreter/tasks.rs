//! The tasks of a plan while it runs.
//!
//! ```text
//!  Waiting --its dependencies completed----------------------> Pending    ActivityTaskScheduled, ready ones in plan order
//!  Pending --ActivityTaskCompleted---------------------------> Completed
//!          --ActivityTaskFailed------------------------------> Failed     the run fails; of type abort: the run is aborted
//!          --ActivityTaskTimedOut----------------------------> Unknown    the run fails; it may have been done all the same
//!          --ActivityTaskTimedOut, never started-------------> Failed
//!          --ActivityTaskCanceled----------------------------> Canceled   in a run that is being undone
//!          --ActivityTaskCanceled, an attempt timed out------> Unknown
//!  Failed | Canceled | Unknown --signal of a late result-----> Completed
//! ```
//!
//! Invariant: a task is scheduled once, and only while nothing in its run has failed.
//! Invariant: the inputs of all ready tasks resolve before the first of them is scheduled.

use std::collections::HashMap;

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::enums::v1::{RetryState, TimeoutType};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use serde_json::{Map, Value};

use super::undo::{Incident, LateWait};
use super::{
    Closed, Draft, Effect, FinalStatus, Interpreter, MemoFields, Node, Phase, StatusChange,
    cancel_payload, commands,
};
use crate::orchestration::ABORT_FAILURE_TYPE;
use crate::orchestration::outcome::{
    Compensation, CompensationSummary, RevertOutcome, TaskResult, abort_payload, ends_unknown,
    failure_text, task_result, timeout_type,
};
use crate::orchestration::submission::{Options, TakenOver, json_payloads};
use crate::plan::reference::resolve;
use crate::plan::{Plan, PlanTask};

/// A plan and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) plan: Plan,
    /// In plan order.
    pub(super) tasks: Vec<Task>,
    index: HashMap<String, usize>,
    /// Whose dependencies are complete and which are not scheduled.
    ready: Vec<usize>,
    /// Tasks that are scheduled and not closed.
    pub(super) pending: usize,
    completed: usize,
    /// Completed since the last turn.
    fresh: Vec<usize>,
    /// Completed, oldest first; those of one turn in plan order.
    pub(super) order: Vec<usize>,
    /// What ended the plan: the first in event order.
    pub(super) incident: Option<Incident>,
    /// Given to every revert: JSON text.
    pub(super) context: String,
    /// The task whose revert is scheduled.
    pub(super) reverting: Option<usize>,
    /// Tasks whose undoing ended badly since the last turn.
    pub(super) unreported: Vec<usize>,
    /// As the memo says it.
    pub(super) summary: CompensationSummary,
    /// Whether what was done is undone after a bad end.
    pub(super) compensate: bool,
    /// Timers started so far.
    pub(super) timers: u32,
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Task {
    pub(super) stage: Stage,
    open_dependencies: usize,
    dependents: Vec<usize>,
    pub(super) scheduled_event_id: i64,
    /// The last attempt history speaks of.
    pub(super) attempts: i32,
    /// Whether the attempt before that one gave no answer in time.
    timed_out_before: bool,
    output: Option<Value>,
    pub(super) compensation: Option<Compensation>,
    /// When it completed; of an unknown one, when it timed out.
    pub(super) closed_at: Timestamp,
    pub(super) cancel_requested: bool,
    pub(super) late_wait: LateWait,
    /// The id of the timer that ends that wait.
    pub(super) late_timer: String,
    pub(super) revert: Option<RevertOutcome>,
    pub(super) revert_attempts: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    #[default]
    Waiting,
    Pending,
    Completed,
    Failed,
    Canceled,
    Unknown,
}

/// A task's place in the plan, and its input.
type ReadyTask = (usize, Map<String, Value>);

impl Run {
    /// Of a plan that has not begun. Refuses only what could never be scheduled; all else was validated before.
    pub(super) fn of(plan: Plan) -> Result<Self, String> {
        let mut index = HashMap::with_capacity(plan.tasks.len());
        for (at, task) in plan.tasks.iter().enumerate() {
            if task.id.is_empty() || task.service.is_empty() || task.service_name.is_empty() {
                return Err(format!(
                    "task {at} of the plan lacks an id, a service or a service's name"
                ));
            }
            if index.insert(task.id.clone(), at).is_some() {
                return Err(format!("the plan has two tasks with the id {}", task.id));
            }
        }
        let mut tasks = vec![Task::default(); plan.tasks.len()];
        for (at, task) in plan.tasks.iter().enumerate() {
            tasks[at].open_dependencies = task.depends_on.len();
            for dependency in &task.depends_on {
                if let Some(&dependency) = index.get(dependency) {
                    tasks[dependency].dependents.push(at);
                }
            }
        }
        let ready = (0..tasks.len())
            .filter(|&at| tasks[at].open_dependencies == 0)
            .collect();
        Ok(Self {
            plan,
            tasks,
            index,
            ready,
            pending: 0,
            completed: 0,
            fresh: Vec::new(),
            order: Vec::new(),
            incident: None,
            context: String::new(),
            reverting: None,
            unreported: Vec::new(),
            summary: CompensationSummary::default(),
            compensate: true,
            timers: 0,
        })
    }

    /// Of a plan some of whose results come from another run. Those tasks are complete, and theirs to undo there.
    pub(super) fn taking_over(plan: Plan, results: Vec<TakenOver>) -> Result<Self, String> {
        let mut run = Self::of(plan)?;
        for result in results {
            let Some(&task) = run.index.get(&result.task) else {
                return Err(format!(
                    "a result of {} is taken over, and the plan has no such task",
                    result.task
                ));
            };
            if run.tasks[task].stage == Stage::Completed {
                return Err(format!("a result of {} is taken over twice", result.task));
            }
            let answer = TaskResult {
                output: result.output,
                compensation: None,
            };
            run.complete(task, answer, Timestamp::ZERO);
        }
        let tasks = &run.tasks;
        run.ready
            .retain(|&task| tasks[task].stage == Stage::Waiting);
        Ok(run)
    }

    pub(super) fn planned(&self, task: usize) -> &PlanTask {
        &self.plan.tasks[task]
    }

    pub(super) fn scheduled(&mut self, task: usize, event_id: i64) {
        self.tasks[task].scheduled_event_id = event_id;
    }

    pub(super) fn attempt_started(
        &mut self,
        task: usize,
        attempt: i32,
        last_failure: Option<&Failure>,
    ) {
        let task = &mut self.tasks[task];
        task.attempts = attempt;
        task.timed_out_before = timeout_type(last_failure) != TimeoutType::Unspecified;
    }

    pub(super) fn revert_attempt_started(&mut self, task: usize, attempt: i32) {
        self.tasks[task].revert_attempts = attempt;
    }

    pub(super) fn close_task(
        &mut self,
        task: usize,
        closed: &Closed<'_>,
        at: Timestamp,
        options: &Options,
    ) {
        self.pending -= 1;
        match *closed {
            Closed::Completed(result) => match task_result(result, options.compensation_ttl_ms) {
                Ok(result) => self.complete(task, result, at),
                Err(bad) => self.fail(
                    task,
                    Stage::Failed,
                    format!("the result of the task cannot be read: {bad}"),
                ),
            },
            Closed::Failed(failure, retry_state) => match abort_payload(failure) {
                Some(payload) => {
                    self.tasks[task].stage = Stage::Failed;
                    self.incident
                        .get_or_insert(Incident::Aborted { task, payload });
                }
                None => self.fail(
                    task,
                    Stage::Failed,
                    exhausted(retry_state, failure_text(failure)),
                ),
            },
            Closed::TimedOut(failure, retry_state) => {
                if ends_unknown(self.tasks[task].attempts > 0, failure) {
                    let text = format!(
                        "no answer within {} ms: the outcome is unknown",
                        options.task_timeout_ms
                    );
                    self.tasks[task].closed_at = at;
                    self.fail(task, Stage::Unknown, exhausted(retry_state, text));
                } else {
                    self.fail(task, Stage::Failed, failure_text(failure));
                }
            }
            Closed::Canceled => {
                let unknown = self.tasks[task].timed_out_before;
                self.tasks[task].closed_at = at;
                let stage = if unknown {
                    Stage::Unknown
                } else {
                    Stage::Canceled
                };
                self.fail(task, stage, "the task was canceled".to_owned());
            }
        }
    }

    /// What a service did although its activity had closed without a result. Of any other task there is nothing to learn.
    pub(super) fn late_result(&mut self, id: &str, result: TaskResult, at: Timestamp) {
        let Some(&task) = self.index.get(id) else {
            return;
        };
        if matches!(
            self.tasks[task].stage,
            Stage::Failed | Stage::Canceled | Stage::Unknown
        ) {
            self.complete(task, result, at);
        }
    }

    pub(super) fn cancel_requested(&mut self, reason: &str, compensate: bool) {
        if self.incident.is_none() {
            self.incident = Some(Incident::Canceled {
                payload: cancel_payload(reason),
            });
            self.compensate = compensate;
        }
    }

    fn complete(&mut self, task: usize, result: TaskResult, at: Timestamp) {
        let done = &mut self.tasks[task];
        done.stage = Stage::Completed;
        done.output = Some(result.output);
        done.compensation = result.compensation;
        done.closed_at = at;
        self.completed += 1;
        self.fresh.push(task);
        for dependent in self.tasks[task].dependents.clone() {
            let open = &mut self.tasks[dependent].open_dependencies;
            *open -= 1;
            if *open == 0 {
                self.ready.push(dependent);
            }
        }
    }

    fn fail(&mut self, task: usize, stage: Stage, text: String) {
        self.tasks[task].stage = stage;
        self.incident.get_or_insert(Incident::Failed { task, text });
    }

    /// Results that came before one turn count in plan order.
    pub(super) fn settle_fresh(&mut self) {
        self.fresh.sort_unstable();
        self.order.append(&mut self.fresh);
    }

    /// The ready tasks in plan order with their inputs; or the first whose references lead nowhere, and why.
    fn take_ready(&mut self) -> Result<Vec<ReadyTask>, Incident> {
        self.ready.sort_unstable();
        let ready = std::mem::take(&mut self.ready);
        let output = |id: &str| {
            self.index
                .get(id)
                .and_then(|&task| self.tasks[task].output.as_ref())
        };
        ready
            .into_iter()
            .map(|task| {
                match resolve(&self.plan.tasks[task].input, &self.plan.task_zero, &output) {
                    Ok(input) => Ok((task, input)),
                    Err(error) => Err(Incident::Failed {
                        task,
                        text: error.to_string(),
                    }),
                }
            })
            .collect()
    }

    /// A plan whose rest waits for what never comes: its dependencies name each other, or nothing in the plan.
    fn stuck(&self) -> Incident {
        let task = self
            .tasks
            .iter()
            .position(|task| task.stage == Stage::Waiting)
            .unwrap_or(0);
        let waits_for = self.planned(task).depends_on.join(", ");
        Incident::Failed {
            task,
            text: format!("the task can never start: it waits for {waits_for}"),
        }
    }

    fn is_complete(&self) -> bool {
        self.completed == self.tasks.len()
    }

    /// Outputs of the tasks nobody depends on, in plan order.
    fn results(&self) -> Vec<Value> {
        let last = self.tasks.iter().filter(|task| task.dependents.is_empty());
        last.map(|task| task.output.clone().unwrap_or_default())
            .collect()
    }

    fn schedule(&self, task: usize, input: &Map<String, Value>, o: &Options) -> super::Command {
        let planned = self.planned(task);
        commands::schedule(commands::Activity {
            id: planned.id.clone(),
            kind: planned.service_name.clone(),
            queue: planned.service.clone(),
            input: Some(json_payloads(input)),
            header: None,
            start_to_close_ms: o.task_timeout_ms,
            schedule_to_close_ms: None,
            retry: commands::retry(
                o.task_attempts,
                o.retry_initial_ms,
                o.retry_factor,
                o.retry_max_ms,
                &[ABORT_FAILURE_TYPE],
            ),
        })
    }
}

impl Interpreter {
    /// `memo` is what the turn has to write anyway.
    pub(super) fn decide_running(
        &mut self,
        mut run: Box<Run>,
        memo: Option<MemoFields>,
        now: Timestamp,
        draft: &mut Draft,
    ) {
        run.settle_fresh();
        if run.incident.is_none() && run.is_complete() {
            draft
                .commands
                .extend(memo.map(|fields| (commands::upsert_memo(fields), None)));
            return self.complete(&run, now, draft);
        }
        if run.incident.is_none() {
            match run.take_ready() {
                Err(incident) => run.incident = Some(incident),
                Ok(ready) if ready.is_empty() && run.pending == 0 => {
                    run.incident = Some(run.stuck())
                }
                Ok(ready) => {
                    draft
                        .commands
                        .extend(memo.map(|fields| (commands::upsert_memo(fields), None)));
                    for (task, input) in ready {
                        draft
                            .push_node(run.schedule(task, &input, &self.options), Node::Task(task));
                        run.tasks[task].stage = Stage::Pending;
                        run.pending += 1;
                    }
                    self.phase = Phase::Running(run);
                    return;
                }
            }
        }
        self.begin_undoing(run, memo.unwrap_or_default(), now, draft);
    }

    fn complete(&mut self, run: &Run, now: Timestamp, draft: &mut Draft) {
        let results = run.results();
        draft.push(commands::complete(&results));
        let mut change = StatusChange::new(&self.orchestration_id, FinalStatus::Completed, now);
        change.webhook.clone_from(&self.webhook);
        change.results = results;
        draft.effects.push(Effect::StatusChanged(change));
        self.phase = Phase::Closed;
    }
}

fn exhausted(retry_state: RetryState, text: String) -> String {
    match retry_state {
        RetryState::MaximumAttemptsReached => format!("too many consecutive failures: {text}"),
        _ => text,
    }
}
