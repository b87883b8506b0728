//! The interpreter: the deterministic workflow code of an orchestration. History events go in, commands come out.
//!
//! ```text
//!  Void     --WorkflowExecutionStarted of a revert---------> Again     (its rules stand in `again`)
//!           --WorkflowExecutionStarted, with a plan--------> Running
//!           --WorkflowExecutionStarted, without------------> Planning
//!           --WorkflowExecutionStarted, unreadable---------> Refused
//!  Refused  --turn----------------------------------------> Closed    WorkflowExecutionFailed InvalidSubmission
//!  Planning --plan.generate completed: planned-------------> Running
//!           --plan.generate completed: not actionable------> Closed    WorkflowExecutionFailed NotActionable
//!           --plan.generate failed or timed out------------> Closed    WorkflowExecutionFailed PlanFailed
//!           --WorkflowExecutionCancelRequested-------------> Closed    WorkflowExecutionCanceled
//!  Running  --every task completed-------------------------> Closed    WorkflowExecutionCompleted
//!           --a task failed, aborted, timed out, or cancel-> Undoing
//!  Undoing  --nothing pending, to revert or to wait for----> Closed    WorkflowExecutionFailed TaskFailed | TaskAborted,
//!                                                                      WorkflowExecutionCanceled
//! ```
//!
//! A cancel comes as a cancel request, or as the signal `orchestrion.cancel`, which also says whether what was done is undone; the engine
//! records a cancel request right behind that signal, which says nothing more to this code.
//!
//! One loop decides once per workflow task, on all results folded so far; the phases' own rules stand in `tasks` and `undo`. The order
//! of a turn's commands is part of the contract with every replayer: memo, cancel requests in plan order, timers in plan order,
//! activities in plan order (or one revert), close.
//!
//! Invariant: a turn is a pure function of the events folded and of the time of its `WorkflowTaskStarted`.
//! Invariant: the journal is compared with every turn, live or replayed, before anything follows it.

mod again;
mod commands;
mod expected;
mod tasks;
mod undo;

#[cfg(test)]
mod against_core;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod stories;
#[cfg(test)]
pub(super) mod world;

use std::collections::{HashMap, VecDeque};

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::common::v1::{Payload, Payloads};
use orchestrion_proto::temporal::api::enums::v1::RetryState;
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    HistoryEvent, WorkflowExecutionStartedEventAttributes,
};
use serde::Deserialize;
use serde_json::{Value, json};

use self::again::Again;
use self::expected::Shape;
use self::tasks::Run;
use super::effect::{Effect, FinalStatus, StatusChange};
use super::outcome::{failure_text, late_result};
use super::submission::{
    Options, PlanningOutcome, PlanningResult, Rules, Submission, json_payload, read_json,
};
use super::{
    CANCEL_SIGNAL, LATE_RESULT_SIGNAL, PLAN_ACTIVITY_ID, PLAN_ACTIVITY_TYPE, PLANNER_QUEUE,
    REVERT_WORKFLOW_TYPE, UNREASONED, time_of,
};
use crate::plan::Plan;

/// The factor between two waits where the options name none.
const DOUBLING: f64 = 2.0;

/// What one turn asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    /// For the run's history, in order.
    pub commands: Vec<Command>,
    /// Committed beside them.
    pub effects: Vec<Effect>,
}

/// A journal that is not what its own events make the interpreter ask for: another program wrote it, or it was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event_id} is {found}, but the plan's code asks for {expected}")]
pub struct NonDeterminism {
    /// The first event that differs.
    pub event_id: i64,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// The workflow code of one orchestration, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Interpreter {
    orchestration_id: String,
    run_id: String,
    options: Options,
    /// Where the submission itself wants to be told.
    webhook: Option<String>,
    rules: Rules,
    phase: Phase,
    /// What the activities and timers of this run stand for, by the event that scheduled them; closed ones leave.
    nodes: HashMap<i64, Node>,
    /// The time of the last `WorkflowTaskStarted`.
    task_started_at: Timestamp,
    /// What the journal must say next.
    expected: VecDeque<(Shape, Option<Node>)>,
    /// The time of a live turn whose completion is not folded yet.
    live: Option<Timestamp>,
    /// Whether a turn was taken and never recorded.
    lost_turn: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Void,
    Refused(String),
    Planning(Box<Planning>),
    Running(Box<Run>),
    Undoing(Box<Run>),
    Again(Box<Again>),
    Closed,
}

#[derive(Debug, Clone, PartialEq)]
struct Planning {
    input: Option<Payloads>,
    stage: PlanningStage,
    /// Why cancellation was asked for, if it was.
    canceled: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum PlanningStage {
    Wanted,
    Asked,
    Answered(Result<Box<PlanningResult>, String>),
}

/// What an activity or a timer stands for. The number is the task's place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Planning,
    Task(usize),
    Revert(usize),
    LateResult(usize),
    RevertAgain,
}

/// How an activity closed.
enum Closed<'a> {
    Completed(Option<&'a Payloads>),
    Failed(Option<&'a Failure>, RetryState),
    TimedOut(Option<&'a Failure>, RetryState),
    Canceled,
}

/// A turn in the making.
#[derive(Default)]
struct Draft {
    commands: Vec<(Command, Option<Node>)>,
    effects: Vec<Effect>,
}

impl Draft {
    fn push(&mut self, command: Command) {
        self.commands.push((command, None));
    }

    fn push_node(&mut self, command: Command, node: Node) {
        self.commands.push((command, Some(node)));
    }
}

impl Default for Interpreter {
    fn default() -> Self {
        Self::new()
    }
}

impl Interpreter {
    /// Of a run that has no event yet.
    pub fn new() -> Self {
        Self {
            orchestration_id: String::new(),
            run_id: String::new(),
            options: Options::default(),
            webhook: None,
            rules: Rules::default(),
            phase: Phase::Void,
            nodes: HashMap::new(),
            task_started_at: Timestamp::ZERO,
            expected: VecDeque::new(),
            live: None,
            lost_turn: false,
        }
    }

    /// Folds one history event, payloads resolved. At a `WorkflowTaskCompleted` whose turn was not taken live, the turn is taken, and its
    /// commands are compared with the command events that follow. After an error the interpreter is of no use.
    pub fn apply(&mut self, event: &HistoryEvent) -> Result<(), NonDeterminism> {
        let Some(attributes) = &event.attributes else {
            return Ok(());
        };
        if let Some(shape) = Shape::of_event(event) {
            return self.apply_command_event(event, &shape);
        }
        self.refuse_unless_recorded(event)?;
        let at = time_of(event);
        match attributes {
            Attributes::WorkflowExecutionStartedEventAttributes(a) => self.start(a),
            Attributes::WorkflowTaskStartedEventAttributes(_) => self.task_started_at = at,
            Attributes::WorkflowTaskCompletedEventAttributes(_) => self.complete_turn(event)?,
            Attributes::ActivityTaskStartedEventAttributes(a) => {
                let node = self.node(a.scheduled_event_id, event)?;
                match (&mut self.phase, node) {
                    (Phase::Running(run) | Phase::Undoing(run), Node::Task(task)) => {
                        run.attempt_started(task, a.attempt, a.last_failure.as_ref());
                    }
                    (Phase::Undoing(run), Node::Revert(task)) => {
                        run.revert_attempt_started(task, a.attempt)
                    }
                    _ => {}
                }
            }
            Attributes::ActivityTaskCompletedEventAttributes(a) => {
                self.close_activity(
                    event,
                    a.scheduled_event_id,
                    at,
                    Closed::Completed(a.result.as_ref()),
                )?;
            }
            Attributes::ActivityTaskFailedEventAttributes(a) => {
                let closed = Closed::Failed(a.failure.as_ref(), a.retry_state());
                self.close_activity(event, a.scheduled_event_id, at, closed)?;
            }
            Attributes::ActivityTaskTimedOutEventAttributes(a) => {
                let closed = Closed::TimedOut(a.failure.as_ref(), a.retry_state());
                self.close_activity(event, a.scheduled_event_id, at, closed)?;
            }
            Attributes::ActivityTaskCanceledEventAttributes(a) => {
                self.close_activity(event, a.scheduled_event_id, at, Closed::Canceled)?;
            }
            Attributes::TimerFiredEventAttributes(a) => {
                let node = self.node(a.started_event_id, event)?;
                self.nodes.remove(&a.started_event_id);
                if let (Phase::Undoing(run), Node::LateResult(task)) = (&mut self.phase, node) {
                    run.give_up_waiting(task);
                }
            }
            Attributes::WorkflowExecutionSignaledEventAttributes(a)
                if a.signal_name == LATE_RESULT_SIGNAL =>
            {
                if let (Phase::Running(run) | Phase::Undoing(run), Some((task, result))) = (
                    &mut self.phase,
                    late_result(a.input.as_ref(), self.options.compensation_ttl_ms),
                ) {
                    run.late_result(&task, result, at);
                }
            }
            Attributes::WorkflowExecutionSignaledEventAttributes(a)
                if a.signal_name == CANCEL_SIGNAL =>
            {
                let asked = read_json::<Cancel>(a.input.as_ref()).unwrap_or_default();
                self.cancel_requested(&asked.reason, asked.compensate);
            }
            Attributes::WorkflowExecutionCancelRequestedEventAttributes(a) => {
                self.cancel_requested(&a.cause, true)
            }
            Attributes::WorkflowExecutionTerminatedEventAttributes(_)
            | Attributes::WorkflowExecutionTimedOutEventAttributes(_) => self.close(),
            // Signals of other names, workflow tasks that came to nothing, and what future servers write.
            _ => {}
        }
        Ok(())
    }

    /// The live turn, once a workflow task has started and before its completion is written; `now` is the time of the
    /// `WorkflowTaskStarted`. An interpreter whose turn is not recorded has to be dropped and folded again.
    pub fn turn(&mut self, now: Timestamp) -> Turn {
        self.lost_turn |= self.live.is_some();
        let draft = self.decide(now);
        self.expect(&draft);
        self.live = Some(now);
        Turn {
            commands: draft
                .commands
                .into_iter()
                .map(|(command, _)| command)
                .collect(),
            effects: draft.effects,
        }
    }

    /// What the run obeys; the defaults before it has started.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether the run has ended, for this code.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    fn start(&mut self, event: &WorkflowExecutionStartedEventAttributes) {
        self.orchestration_id.clone_from(&event.workflow_id);
        self.run_id.clone_from(&event.original_execution_run_id);
        let workflow_type = event.workflow_type.as_ref().map(|kind| kind.name.as_str());
        if workflow_type == Some(REVERT_WORKFLOW_TYPE) {
            self.phase = match Again::read(event.input.as_ref()) {
                Err(reason) => Phase::Refused(reason),
                Ok(again) => {
                    self.options = again.options().bounded();
                    Phase::Again(Box::new(again))
                }
            };
            return;
        }
        self.phase = match read_json::<Submission>(event.input.as_ref()) {
            Err(bad) => Phase::Refused(bad.to_string()),
            Ok(submission) => {
                self.options = submission.options.bounded();
                self.webhook = submission.webhook;
                self.rules = submission.rules;
                match submission.plan {
                    Some(plan) => match Run::taking_over(plan, submission.taken_over) {
                        Ok(run) => Phase::Running(Box::new(run)),
                        Err(reason) => Phase::Refused(reason),
                    },
                    None => Phase::Planning(Box::new(Planning {
                        input: event.input.clone(),
                        stage: PlanningStage::Wanted,
                        canceled: None,
                    })),
                }
            }
        };
    }

    fn complete_turn(&mut self, event: &HistoryEvent) -> Result<(), NonDeterminism> {
        match self.live.take() {
            Some(now) if now == self.task_started_at && !self.lost_turn => Ok(()),
            Some(now) => Err(NonDeterminism {
                event_id: event.event_id,
                expected: "every turn that was taken".to_owned(),
                found: format!(
                    "the turn of {} ns, after one taken at {} ns",
                    self.task_started_at.0, now.0
                ),
            }),
            None => {
                let draft = self.decide(self.task_started_at);
                self.expect(&draft);
                Ok(())
            }
        }
    }

    fn expect(&mut self, draft: &Draft) {
        let shapes = draft
            .commands
            .iter()
            .filter_map(|(command, node)| Some((Shape::of_command(command)?, *node)));
        self.expected = shapes.collect();
    }

    fn apply_command_event(
        &mut self,
        event: &HistoryEvent,
        found: &Shape,
    ) -> Result<(), NonDeterminism> {
        match self.expected.pop_front().filter(|_| self.live.is_none()) {
            Some((expected, node)) if expected == *found => {
                if let Some(node) = node {
                    self.nodes.insert(event.event_id, node);
                    self.node_written(node, event.event_id);
                }
                if let Some(Attributes::TimerCanceledEventAttributes(a)) = &event.attributes {
                    self.nodes.remove(&a.started_event_id);
                }
                Ok(())
            }
            expected => Err(NonDeterminism {
                event_id: event.event_id,
                found: found.describe(expected.as_ref().map(|(shape, _)| shape)),
                expected: expected
                    .map_or_else(|| "nothing".to_owned(), |(shape, _)| shape.describe(None)),
            }),
        }
    }

    /// Every command of a turn stands before anything else happens. A cancelled activity that nobody runs closes right behind the
    /// request, with its start if an attempt of it has timed out; and between a live turn and its completion only the workflow task itself is written.
    fn refuse_unless_recorded(&self, event: &HistoryEvent) -> Result<(), NonDeterminism> {
        let may_interrupt = match &event.attributes {
            Some(
                Attributes::WorkflowExecutionTerminatedEventAttributes(_)
                | Attributes::WorkflowExecutionTimedOutEventAttributes(_),
            ) => true,
            Some(
                Attributes::WorkflowTaskStartedEventAttributes(_)
                | Attributes::WorkflowTaskScheduledEventAttributes(_),
            ) => self.live.is_some(),
            Some(Attributes::WorkflowTaskCompletedEventAttributes(_)) => self.live.is_some(),
            Some(Attributes::ActivityTaskStartedEventAttributes(a)) => {
                self.live.is_none() && self.nodes.contains_key(&a.scheduled_event_id)
            }
            Some(Attributes::ActivityTaskCanceledEventAttributes(a)) => {
                self.live.is_none() && self.nodes.contains_key(&a.scheduled_event_id)
            }
            _ => false,
        };
        if may_interrupt || (self.live.is_none() && self.expected.is_empty()) {
            return Ok(());
        }
        let next = self
            .expected
            .front()
            .map_or_else(|| "nothing".to_owned(), |(shape, _)| shape.describe(None));
        Err(NonDeterminism {
            event_id: event.event_id,
            expected: if self.live.is_some() {
                "the completion of the turn that was taken".to_owned()
            } else {
                next
            },
            found: event.event_type().as_str_name().to_owned(),
        })
    }

    fn node(&self, scheduled_event_id: i64, event: &HistoryEvent) -> Result<Node, NonDeterminism> {
        self.nodes
            .get(&scheduled_event_id)
            .copied()
            .ok_or_else(|| NonDeterminism {
                event_id: event.event_id,
                expected: format!(
                    "nothing of event {scheduled_event_id}, which scheduled nothing that is open"
                ),
                found: event.event_type().as_str_name().to_owned(),
            })
    }

    fn node_written(&mut self, node: Node, event_id: i64) {
        if let (Phase::Running(run) | Phase::Undoing(run), Node::Task(task)) =
            (&mut self.phase, node)
        {
            run.scheduled(task, event_id);
        }
        if let (Phase::Again(again), Node::RevertAgain) = (&mut self.phase, node) {
            again.scheduled(event_id);
        }
    }

    fn close_activity(
        &mut self,
        event: &HistoryEvent,
        scheduled_event_id: i64,
        at: Timestamp,
        closed: Closed<'_>,
    ) -> Result<(), NonDeterminism> {
        let node = self.node(scheduled_event_id, event)?;
        self.nodes.remove(&scheduled_event_id);
        match (&mut self.phase, node) {
            (Phase::Planning(planning), Node::Planning) => {
                planning.stage = PlanningStage::Answered(planning_answer(
                    &closed,
                    self.options.planning_attempts,
                ));
            }
            (Phase::Running(run) | Phase::Undoing(run), Node::Task(task)) => {
                run.close_task(task, &closed, at, &self.options);
            }
            (Phase::Undoing(run), Node::Revert(task)) => run.close_revert(task, &closed),
            (Phase::Again(again), Node::RevertAgain) => again.close(&closed),
            // The run is over for this code, or the node is of another phase: nothing depends on it any more.
            _ => {}
        }
        Ok(())
    }

    fn cancel_requested(&mut self, reason: &str, compensate: bool) {
        match &mut self.phase {
            Phase::Planning(planning) => {
                planning.canceled.get_or_insert_with(|| reason.to_owned());
            }
            Phase::Running(run) => run.cancel_requested(reason, compensate),
            Phase::Again(again) => again.cancel_requested(),
            Phase::Void | Phase::Refused(_) | Phase::Undoing(_) | Phase::Closed => {}
        }
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.nodes.clear();
        self.expected.clear();
        self.live = None;
    }

    fn decide(&mut self, now: Timestamp) -> Draft {
        let mut draft = Draft::default();
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Void => self.phase = Phase::Void,
            Phase::Closed => {}
            Phase::Refused(reason) => {
                let message = format!("the submission cannot run: {reason}");
                self.end_unplanned(&mut draft, "failed", "InvalidSubmission", message);
            }
            Phase::Planning(planning) => self.decide_planning(planning, now, &mut draft),
            Phase::Running(run) => self.decide_running(run, None, now, &mut draft),
            Phase::Undoing(run) => self.decide_undoing(run, HashMap::new(), now, &mut draft),
            Phase::Again(again) => self.decide_again(again, &mut draft),
        }
        draft
    }

    fn decide_planning(&mut self, mut planning: Box<Planning>, now: Timestamp, draft: &mut Draft) {
        if let Some(reason) = planning.canceled {
            return self.end_canceled_planning(draft, &reason, now);
        }
        match planning.stage {
            PlanningStage::Asked => self.phase = Phase::Planning(planning),
            PlanningStage::Wanted => {
                draft.push_node(self.ask_planner(planning.input.take()), Node::Planning);
                planning.stage = PlanningStage::Asked;
                self.phase = Phase::Planning(planning);
            }
            PlanningStage::Answered(Err(message)) => {
                self.end_unplanned(draft, "failed", "PlanFailed", message)
            }
            PlanningStage::Answered(Ok(result))
                if result.outcome == PlanningOutcome::NotActionable =>
            {
                let reason = result.reason.unwrap_or_default();
                let message = format!("preparation failed with status not_actionable: {reason}");
                self.end_unplanned(draft, "not_actionable", "NotActionable", message);
            }
            PlanningStage::Answered(Ok(result)) => match self.run_of(result.plan) {
                Err(message) => self.end_unplanned(draft, "failed", "PlanFailed", message),
                Ok(run) => {
                    let memo = HashMap::from([("status".to_owned(), json_payload("processing"))]);
                    self.decide_running(Box::new(run), Some(memo), now, draft);
                }
            },
        }
    }

    fn run_of(&self, plan: Option<Plan>) -> Result<Run, String> {
        Run::of(plan.ok_or("the planner answered with no plan")?)
    }

    fn ask_planner(&self, input: Option<Payloads>) -> Command {
        let o = &self.options;
        commands::schedule(commands::Activity {
            id: PLAN_ACTIVITY_ID.to_owned(),
            kind: PLAN_ACTIVITY_TYPE.to_owned(),
            queue: PLANNER_QUEUE.to_owned(),
            input,
            header: None,
            start_to_close_ms: o.planning_timeout_ms,
            schedule_to_close_ms: None,
            retry: commands::retry(
                o.planning_attempts,
                o.planning_initial_ms,
                DOUBLING,
                o.planning_max_ms,
                &["Refused", crate::orchestration::INTERRUPTED_FAILURE_TYPE],
            ),
        })
    }

    /// Nothing ran, so nothing is undone, and no webhook is sent: the submitter is waiting for the answer.
    fn end_unplanned(&mut self, draft: &mut Draft, status: &str, kind: &str, message: String) {
        let memo = [
            ("status".to_owned(), json_payload(status)),
            ("error".to_owned(), json_payload(&message)),
        ];
        draft.push(commands::upsert_memo(HashMap::from(memo)));
        draft.push(commands::fail(kind, message, None));
        self.phase = Phase::Closed;
    }

    /// What callers are told of a cancel.
    fn cancelled(&self) -> FinalStatus {
        if self.rules.tell_cancelled() {
            FinalStatus::Cancelled
        } else {
            FinalStatus::Aborted
        }
    }

    fn end_canceled_planning(&mut self, draft: &mut Draft, reason: &str, now: Timestamp) {
        let payload = cancel_payload(reason);
        let status = self.cancelled();
        let memo = [
            ("status".to_owned(), json_payload(status.as_str())),
            ("abort".to_owned(), json_payload(&payload)),
        ];
        draft.push(commands::upsert_memo(HashMap::from(memo)));
        draft.push(commands::cancel(&json!({"abort": payload})));
        let mut change = StatusChange::new(&self.orchestration_id, status, now);
        change.webhook.clone_from(&self.webhook);
        change.abort_reason = Some(payload);
        draft.effects.push(Effect::StatusChanged(change));
        self.phase = Phase::Closed;
    }
}

/// What the cancel signal says. One that cannot be read asks for the end, and for the undoing.
#[derive(Deserialize)]
#[serde(default)]
struct Cancel {
    reason: String,
    compensate: bool,
}

impl Default for Cancel {
    fn default() -> Self {
        Self {
            reason: UNREASONED.to_owned(),
            compensate: true,
        }
    }
}

/// Fields of a memo, to be written with a turn.
type MemoFields = HashMap<String, Payload>;

fn cancel_payload(reason: &str) -> Value {
    json!({"reason": format!("canceled: {reason}")})
}

fn planning_answer(closed: &Closed<'_>, attempts: u32) -> Result<Box<PlanningResult>, String> {
    let exhausted = |text: String, retry_state: RetryState| match retry_state {
        RetryState::MaximumAttemptsReached => {
            format!(
                "exceeded maximum retries ({}): {text}",
                attempts.saturating_sub(1)
            )
        }
        _ => text,
    };
    match closed {
        Closed::Completed(result) => read_json(*result)
            .map(Box::new)
            .map_err(|bad| format!("the planner's answer cannot be read: {bad}")),
        Closed::Failed(failure, retry_state) => {
            Err(exhausted(failure_text(*failure), *retry_state))
        }
        Closed::TimedOut(failure, retry_state) => Err(exhausted(
            format!(
                "the planner gave no answer in time: {}",
                failure_text(*failure)
            ),
            *retry_state,
        )),
        Closed::Canceled => Err("the planning was canceled".to_owned()),
    }
}
